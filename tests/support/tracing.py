"""Programs of functions, without an op object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tilewright.dsl.dtypes import DType, float64, of_array
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.dsl.trace import Operand, inline, read_signature, trace
from tilewright.dsl.verify import verify


def traced(
    function: Callable[..., Any], *dtypes: DType, ranks: Mapping[str, int] | None = None, **constants: Any
) -> Program:
    """The Program of a function for operands of these dtypes (the last for all that follow)."""
    signature = read_signature(function)
    given = list(dtypes) or [float64]
    given += given[-1:] * len(signature.tiles)
    operands = {
        tile.name: Operand(dtype, (ranks or {}).get(tile.name, 0))
        for tile, dtype in zip(signature.tiles, given, strict=False)
    }
    return verify(trace(signature, operands, {}, constants), "tracing")


def meaning(function: Callable[..., Any], *arrays: Any, **constants: Any) -> Any:
    """What the reference gives for a function over arrays: one result, or a tuple of them."""
    signature = read_signature(function)
    values = dict(zip((tile.name for tile in signature.tiles), map(np.asarray, arrays), strict=False))
    operands: dict[str, Operand | None] = {tile.name: None for tile in signature.tiles}
    for tile in signature.tiles:
        if tile.name in values:
            array = values[tile.name]
            operands[tile.name] = Operand(of_array(array) or float64, array.ndim - len(tile.spec.axes))
    program = verify(trace(signature, operands, {}, constants), "tracing")
    results = reference(program, values)
    return results[0] if len(results) == 1 else results


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is an op when it is called on tiles."""
    signature = read_signature(function)
    return lambda *tiles, **keywords: inline(signature, tiles, keywords)
