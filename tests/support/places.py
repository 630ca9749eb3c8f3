"""`out=`: results in memory of every order, and in memory that operands have too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.support.cases import Subject
from tests.support.layouts import EVERY, Pulled
from tilewright.errors import OverlapError

WRITABLE = ("strided", "reversed", "reversed everywhere", "transposed", "cropped")
REPEATING = ("repeated rows", "one number", "overlapping")
SHIFTS = (0, 1, -1, 16, -16)  # elements by which a result lies beside an operand

Operands = dict[str, np.ndarray]


def check_places(case: Subject, dtype: Any = np.float32) -> None:
    """Each result of the op and of its derivative in given memory: bit-equal to fresh memory, or refused."""
    arguments = case.arguments(dtype)
    check_places_of(case.op, arguments, case.keywords, f"{case} in {np.dtype(dtype)}")
    if case.differentiable:
        cotangents = Pulled(case, arguments).cotangents_of_users()
        told = f"the gradient of {case} in {np.dtype(dtype)}"
        check_places_of(case.op.vjp, {**arguments, **cotangents}, case.keywords, told)


def check_places_of(op: Any, operands: Operands, keywords: dict[str, Any], told: str) -> None:
    fresh = _as_tuple(op(**operands, **keywords))
    for number, expected in enumerate(fresh):
        for where, given, place in _places(operands, expected):
            out = tuple(place if n == number else None for n in range(len(fresh)))
            found = _as_tuple(op(**given, **keywords, out=out if len(out) > 1 else place))
            what = f"{told}: result {number} {where}"
            assert found[number] is place, what
            np.testing.assert_array_equal(place, expected, what)
        for layout in REPEATING if min(expected.shape, default=0) > 1 < expected.ndim else ():
            out = tuple(_repeating(expected, layout) if n == number else None for n in range(len(fresh)))
            _assert_refused(op, operands, keywords, out if len(out) > 1 else out[0], f"{told} {layout}")


def _assert_refused(op: Any, operands: Operands, keywords: dict[str, Any], out: Any, what: str) -> None:
    try:
        op(**operands, **keywords, out=out)
    except OverlapError:
        return
    raise AssertionError(f"{what}: not refused")


def _repeating(result: np.ndarray, layout: str) -> np.ndarray:
    """Memory that may be written, with several elements of a result at one address."""
    strides = EVERY[layout](result).strides
    return np.lib.stride_tricks.as_strided(np.zeros_like(result), result.shape, strides)


def _places(operands: Operands, result: np.ndarray) -> Iterator[tuple[str, Operands, np.ndarray]]:
    """(where it is, the operands, a place for a result)."""
    for layout in WRITABLE if result.ndim and result.size else ():
        yield f"laid {layout}", operands, EVERY[layout](np.zeros_like(result))
    for name in operands:
        for shift in SHIFTS:
            given, place = _beside(operands, name, result, shift)
            yield f"over {name}, {shift} elements further", given, place
        if result.ndim:
            given, place = _beside(operands, name, result, 0)
            yield f"over {name}, backwards", given, np.flip(place)


def _beside(operands: Operands, name: str, result: np.ndarray, shift: int) -> tuple[Operands, np.ndarray]:
    """The operands, one of them in a block in which a result lies so many elements further."""
    operand, margin = operands[name], 256
    block = np.zeros(operand.nbytes + result.nbytes + 2 * margin, np.uint8)
    moved = _within(block, margin, operand)
    moved[...] = operand
    return {**operands, name: moved}, _within(block, margin + shift * result.itemsize, result)


def _within(block: np.ndarray, start: int, like: np.ndarray) -> np.ndarray:
    return block[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


def _as_tuple(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)
