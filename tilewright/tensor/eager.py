"""The language's functions outside of ops: `tw.exp(tensor)`, `tw.sum(array, dim=0)`.

On NumPy arrays they give NumPy arrays, on Tensors they give Tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.dsl import expression, language
from tilewright.dsl.scalars import ScalarFunction
from tilewright.errors import ArgumentError
from tilewright.op.binding import where
from tilewright.tensor import operators
from tilewright.tensor.draws import DRAWS
from tilewright.tensor.families import ALONG, PARTS, is_number
from tilewright.tensor.record import Value


def apply_row(row: ScalarFunction, operands: tuple[Any, ...]) -> Any:
    """A row of the scalar table on Tensors or arrays."""
    if row.name == "pow":
        result = operators.power(_value(operands[0], "pow"), operands[1])
    else:
        result = operators.pointwise(row.name, *operands)
    return _like(result, operands)


def apply_function(name: str, operands: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """A function along axes of a Tensor or an array: `axes` (also `dim`, `axis`) are integers.

    Or a Tensor of random numbers.
    """
    if name in DRAWS:
        return DRAWS[name](*operands, **keywords)
    if name in PARTS:
        values = [_value(operand, name) for operand in operands]
        return _like(operators.parts(name, *values), operands)
    value, axes = operands
    for spelling in ("dim", "axis"):
        if spelling in keywords:
            axes = keywords.pop(spelling)
    if name in ALONG:
        return _along(name, value, axes, keywords)
    keepdim = keywords.pop("keepdim", False) or keywords.pop("keepdims", False)
    correction = keywords.pop("correction", None)
    if keywords:
        raise ArgumentError(
            f"{where(name)} has no argument {next(iter(keywords))!r}; it takes dim and keepdim"
        )
    tensor = _value(value, name)
    if name.startswith("arg"):
        return _like(operators.argument(name, tensor, axes, keepdim), (value,))
    return _like(operators.reduce(name, tensor, axes, keepdim, correction), (value,))


def _along(name: str, value: Any, axis: Any, keywords: dict[str, Any]) -> Any:
    """A scan, an order or a rank: what it is along one dimension."""
    drops = name in ("median", "quantile")
    keepdim = drops and (keywords.pop("keepdim", False) or keywords.pop("keepdims", False))
    taken = ALONG[name]
    unknown = [keyword for keyword in keywords if keyword not in taken]
    if unknown:
        known = ", ".join(("dim", *taken, *["keepdim"] * drops))
        raise ArgumentError(f"{where(name)} has no argument {unknown[0]!r}; it takes {known}")
    listed = [keyword for keyword, value in keywords.items() if not is_number(value)]
    if listed:
        raise ArgumentError(f"{where(name)}: {listed[0]} is a number, got {keywords[listed[0]]!r}")
    results = operators.along(name, _value(value, name), axis, keepdim, **keywords)
    if isinstance(results, tuple):
        return tuple(_like(result, (value,)) for result in results)
    return _like(results, (value,))


def cast(value: Any, dtype: Any) -> Any:
    """A Tensor or an array in another dtype."""
    return _like(operators.convert(_value(value, "cast"), dtype), (value,))


def _value(operand: Any, name: str) -> Any:
    if isinstance(operand, Value):
        return operand
    return Value.kind._make(operators.as_stored_operand(operand, name))


def _like(result: Any, operands: tuple[Any, ...]) -> Any:
    """The result as an array if no operand is a Tensor."""
    for operand in operands:
        if isinstance(operand, Value):
            return result
    return result._array if any(isinstance(o, np.ndarray) for o in operands) else result


def install() -> None:
    """Make the language's functions work on Tensors and arrays."""
    expression.eager_apply = apply_row
    expression.eager_kind = Value
    expression.eager_cast = cast
    language.eager = apply_function
