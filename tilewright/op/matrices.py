"""Whole derivatives of small functions: the Jacobian and the Hessian as arrays.

A Jacobian is the op's vjp mapped over the unit cotangents of a result, a Hessian that of its gradient. They
have as many elements as result and operand have together, so they are for small functions; `op.hvp` gives a
Hessian times a vector for any.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.dsl.dtypes import as_dtype
from tilewright.errors import ArgumentError
from tilewright.op.binding import where
from tilewright.op.mapped import vmap
from tilewright.op.op import Op
from tilewright.op.shapes import result_types


def jacobian(op: Op, *tiles: Any, **keywords: Any) -> Any:
    """∂result / ∂operand for every floating-point operand: arrays of shape (*result.shape, *operand.shape).

    One array if there is one such operand, else a dict by the operands' names; a tuple of those if there are
    several floating-point results. Raises `DerivativeError` where the op has no derivative.
    """
    call = op.bind(op.arguments(tiles, keywords))
    types = result_types(call)
    floats = [n for n, t in enumerate(types) if t.dtype.is_float]
    operands = [p.name for p in call.program.tiles if p.dtype.is_float]
    found = []
    for wanted in floats:
        cotangents = [_units(types[n], n == wanted, types[wanted]) for n in floats]
        mapped = vmap(op.vjp, _same_for_all(op))
        rows = mapped(*_all_tiles(op, tiles, keywords), *cotangents, **_others(op, keywords))
        rows = rows if isinstance(rows, tuple) else (rows,)
        shape = types[wanted].shape
        blocks = {name: row.reshape(shape + row.shape[1:]) for name, row in zip(operands, rows, strict=True)}
        found.append(next(iter(blocks.values())) if len(blocks) == 1 else blocks)
    return found[0] if len(found) == 1 else tuple(found)


def hessian(op: Op, *tiles: Any, **keywords: Any) -> Any:
    """∂² Σ results / ∂operand ∂operand: the Jacobian of the op's gradient."""
    return jacobian(op.grad, *tiles, **keywords)


def _units(type: Any, own: bool, wanted: Any) -> np.ndarray:
    """The cotangents of one result: a unit for every element of the wanted one, zero for the others."""
    count = int(np.prod(wanted.shape))
    dtype = as_dtype(type.dtype).numpy
    if own:
        return np.eye(count, dtype=dtype).reshape((count, *type.shape))
    return np.zeros((count, *type.shape), dtype)


def _same_for_all(op: Op) -> dict[str, None]:
    return {t.name: None for t in op.tiles}


def _all_tiles(op: Op, tiles: tuple[Any, ...], keywords: Any) -> tuple[Any, ...]:
    names = [t.name for t in op.tiles]
    given = [*tiles, *(keywords.get(name) for name in names[len(tiles) :])]
    if len(given) > len(names):
        raise ArgumentError(f"{where(op.name)}: a Jacobian is of an op's own operands: {op.usage()}")
    return tuple(given)


def _others(op: Op, keywords: Any) -> dict[str, Any]:
    names = {t.name for t in op.tiles}
    return {name: value for name, value in keywords.items() if name not in names}
