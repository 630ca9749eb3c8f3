"""Families of ops that Tensors need: one op for each row of the scalar table, each reduction, each product.

A row's op takes Tensors as operands and Python numbers at run time, so that `x * 0.1` and `x * 0.2` are one
kernel.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.dsl import complex_numbers, language
from tilewright.dsl.axes import Scalar, TileSpec
from tilewright.dsl.dtypes import as_dtype
from tilewright.dsl.expression import cast
from tilewright.dsl.program import Cast, Param, Program, Read, Result
from tilewright.dsl.scalars import SCALARS
from tilewright.dsl.trace import REQUIRED, TileParameter
from tilewright.op.binding import Binding
from tilewright.op.direct import DirectOp
from tilewright.op.traced import TracedOp

OPERANDS = ("a", "b", "c")
POINTWISE = TileSpec((), True)


def made_op(
    function: Callable[..., Any],
    name: str,
    tiles: Mapping[str, TileSpec],
    scalars: Sequence[str] = (),
    constants: Mapping[str, Any] | None = None,
) -> TracedOp:
    """An op of a function that is written for any number of operands or axes."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(n, positional, annotation=spec) for n, spec in tiles.items()]
    parameters += [inspect.Parameter(n, keyword, annotation=Scalar) for n in scalars]
    parameters += [
        inspect.Parameter(n, keyword, default=value, annotation=object)
        for n, value in (constants or {}).items()
    ]
    function.__name__ = function.__qualname__ = name
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return TracedOp(function)


@functools.cache
def pointwise(row: str, numbers: tuple[bool, ...]) -> TracedOp:
    """The op of a row of the scalar table; operands marked in `numbers` are passed at run time."""
    names = OPERANDS[: len(numbers)]
    function = SCALARS[row]

    def compute(**operands: Any) -> Any:
        return function(*(operands[name] for name in names))

    tiles = {name: POINTWISE for name, number in zip(names, numbers, strict=True) if not number}
    return made_op(compute, row, tiles, [n for n, number in zip(names, numbers, strict=True) if number])


@functools.lru_cache(maxsize=None, typed=True)
def power(exponent: float) -> TracedOp:
    """x ** exponent, for exponents that are products or roots."""

    def compute(a: Any) -> Any:
        return a**exponent

    return made_op(compute, "pow", {"a": POINTWISE})


@functools.cache
def over_last_axes(name: str, count: int, correction: int | None = None) -> TracedOp:
    """The op of a reduction of the language over the last `count` axes."""
    axes = tuple(f"r{position}" for position in range(count))
    function = getattr(language, name)
    keywords = {} if correction is None else {"correction": correction}

    def compute(x: Any) -> Any:
        return function(x, axes[0] if count == 1 else axes, **keywords)

    return made_op(compute, name, {"x": TileSpec(axes, True)})


ALONG = {
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), ("reverse", "exclusive")),
    **dict.fromkeys(("argcummax", "argcummin"), ("reverse",)),
    **dict.fromkeys(("argsort", "sort"), ("descending",)),
    "topk": ("k", "largest"),
    "median": (),
    "quantile": ("q",),
}
"""The language's functions along one axis, with the constants that each takes."""


@functools.lru_cache(maxsize=None, typed=True)
def along(name: str, after: int, constants: tuple[tuple[str, Any], ...]) -> TracedOp:
    """The op of a function along the axis that has `after` others behind it."""
    axes = tuple(f"r{position}" for position in range(after + 1))
    function = getattr(language, name)

    def compute(x: Any) -> Any:
        return function(x, axis=axes[0], **dict(constants))

    return made_op(compute, name, {"x": TileSpec(axes, True)})


@functools.cache
def product(left: str, right: str) -> TracedOp:
    """Σ_k a·b, for the named axes of both operands, such as "m k" and "k n"; batch axes broadcast."""
    specs = {
        "a": TileSpec(tuple(left.split()), left != "k"),
        "b": TileSpec(tuple(right.split()), right != "k"),
    }

    def compute(a: Any, b: Any) -> Any:
        return language.sum(a * b, "k")

    return made_op(compute, "matmul", specs)


copied = made_op(lambda x: x, "copy", {"x": POINTWISE})
"""The elements of an array in memory of their own, in order."""

PARTS = {
    "real": complex_numbers.real,
    "imag": complex_numbers.imag,
    "conj": complex_numbers.conj,
    "angle": complex_numbers.angle,
    "complex": complex_numbers.complex_number,
}
"""What takes complex numbers apart and puts them together."""


@functools.cache
def parts(name: str, count: int) -> TracedOp:
    """The op of a function of `count` operands in `PARTS`."""
    names = OPERANDS[:count]

    def compute(**operands: Any) -> Any:
        return PARTS[name](*(operands[n] for n in names))

    return made_op(compute, name, dict.fromkeys(names, POINTWISE))


class Convert(DirectOp):
    """x in another dtype, as `tw.cast` has it; the result keeps that dtype whatever the operand's is."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "convert"
        self.tiles = (TileParameter("x", POINTWISE, False),)
        self.scalars = {}
        self.constants = {"dtype": REQUIRED}
        self._programs: dict[Any, Program] = {}

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        operand = binding.operands["x"]
        assert operand is not None
        target = as_dtype(constants["dtype"])
        key = (operand.dtype, operand.batch, target)
        found = self._programs.get(key)
        if found is None:
            read = Read("x", operand.batch, operand.dtype)
            value = cast(read, target).node if target.is_bool else Cast(read, target)
            found = self._programs[key] = Program(
                self.name, (Param("x", operand.batch, operand.dtype),), (Result("y", value, operand.batch),)
            )
        return found


convert = Convert()

CHEAP_EXPONENTS = frozenset({-2, -1, -0.5, 0.5, 1, 2, 3, 4})


def is_number(value: Any) -> bool:
    """Whether a value is weakly typed and real: a Python number."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)
