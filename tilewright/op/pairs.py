"""Complex operands: calls of an op on pairs of real numbers along one axis more.

`op.with_pairs(names)` is the op whose operands `names` are real, with a last axis `re_im` of two positions. A
call with complex arrays is a call of that op on the same memory, and what comes back along `re_im` is complex
again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.dsl.axes import PAIR
from tilewright.dsl.complex_numbers import Complex, from_pairs
from tilewright.dsl.expression import Expr
from tilewright.dsl.trace import Signature
from tilewright.op.storage import behind
from tilewright.runtime.devices import Array

REAL_OF = {np.dtype(np.complex64): np.dtype(np.float32), np.dtype(np.complex128): np.dtype(np.float64)}


def is_complex_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, Array)) and value.dtype in REAL_OF


def as_pairs(array: Any) -> np.ndarray:
    """The same memory as real numbers along one more, last dimension."""
    if isinstance(array, Array):
        real = REAL_OF[array.dtype]
        return array.laid_out((*array.shape, 2), (*array.strides, real.itemsize), real)
    array = np.asarray(array)
    real = REAL_OF[array.dtype]
    return np.lib.stride_tricks.as_strided(array.real, (*array.shape, 2), (*array.strides, real.itemsize))


def from_pairs_of(array: np.ndarray) -> np.ndarray:
    """What runs along pairs, last, as complex numbers."""
    wide = np.complex64 if array.dtype == np.float32 else np.complex128
    if isinstance(array, Array):  # a kernel's result, which lies in order
        return array.laid_out(array.shape[:-1], array.strides[:-1], wide)
    return np.ascontiguousarray(array).view(wide)[..., 0]


def signature_with_pairs(signature: Signature, names: frozenset[str]) -> Signature:
    """The signature with a real tile of pairs for each complex operand."""

    @functools.wraps(signature.function)
    def function(**arguments: Any) -> Any:
        given = {n: from_pairs(v) if n in names and v is not None else v for n, v in arguments.items()}
        return signature.function(**given)

    tiles = tuple(
        dataclasses.replace(t, spec=t.spec.with_last(PAIR)) if t.name in names else t for t in signature.tiles
    )
    return dataclasses.replace(signature, function=function, tiles=tiles)


def complex_names(tiles: Mapping[str, Any]) -> frozenset[str]:
    """The operands that are complex: arrays, or values of an op's body."""
    return frozenset(
        name for name, value in tiles.items() if isinstance(value, Complex) or is_complex_array(value)
    )


def as_real(tiles: Mapping[str, Any]) -> dict[str, Any]:
    """Complex operands as pairs, all others as they are."""
    table: dict[str, Any] = {}
    for name, value in tiles.items():
        if isinstance(value, Complex):
            value = value.paired()
        elif is_complex_array(value):
            value = as_pairs(value)
        table[name] = value
    return table


def back(value: Any) -> Any:
    """A result inside an op: complex where it runs along pairs."""
    if isinstance(value, (tuple, list)):
        return tuple(map(back, value))
    return from_pairs(value) if isinstance(value, Expr) and PAIR in value.axes else value


def on_pairs(op: Any, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The op and the arguments of a question about complex operands, as the op on pairs has them."""
    names = [t.name for t in op.tiles]
    further = [f"#{n}" for n in range(len(tiles) - len(names))]
    tiles, keywords = tuple(map(behind, tiles)), {name: behind(value) for name, value in keywords.items()}
    found = complex_names({**dict(zip((*names, *further), tiles, strict=False)), **keywords})
    if not found:
        return op, tiles, keywords
    real = [as_pairs(tile) if is_complex_array(tile) else tile for tile in tiles]
    return op.with_pairs(found), tuple(real), as_real(keywords)
