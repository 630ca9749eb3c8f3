"""Comparison of a target's results with the float64 reference.

Two results agree when their shapes and dtypes do, NaNs and infinities stand in the same places, integers and
bools are equal, and floats differ by no more than rounding explains. What rounding explains is measured:
`rounding_noise` evaluates the program several times with every intermediate value disturbed by its dtype's
rounding error and held in its dtype's range. An element that comes out finite in one evaluation and not in
another, or as another integer, is decided by rounding alone: nothing is asked of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from tilewright.dsl.dtypes import DType, as_dtype
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Cast, Map, Node, Program, Reduce, Scatter
from tilewright.dsl.reference import _Evaluator, _widen, reference
from tilewright.dsl.scalars import COPYING, SCALARS

EPSILON = {
    "float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8,
    "float8_e4m3fn": 2.0**-4, "float8_e5m2": 2.0**-3,
}  # fmt: skip
LARGEST = {
    "float64": np.inf, "float32": 3.4028235677973366e38, "float16": 65520.0, "bfloat16": 3.3961e38,
    "float8_e4m3fn": np.nextafter(464, 465), "float8_e5m2": 61440.0,
}  # fmt: skip
SPACING = {"float16": 2.0**-25, "float8_e4m3fn": 2.0**-10, "float8_e5m2": 2.0**-17}
"""Half the distance of numbers near 0, where that counts."""
BEYOND = {"float8_e4m3fn": np.nan}
"""What is too large, if not infinity."""


def assert_close(
    actual: Any,
    expected: Any,
    dtype: DType | str,
    *,
    length: int = 1,
    magnitude: float | None = None,
    noise: Any = 0.0,
    ulps: float = 4.0,
    what: str = "result",
) -> None:
    """Raise `AssertionError` unless `actual` is `expected` (in float64) up to the rounding of `dtype`.

    The tolerance of an element is ulps · ε · |expected| + 4 · ε · magnitude · √length + 8 · noise, where
    `magnitude` is the size of what was added up (the largest finite |expected| if not given, for `length`
    above 1) and `length` how many. Where `noise` is infinite, anything is right.
    """
    dtype = as_dtype(dtype)
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has the shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == dtype.numpy, f"{what} has the dtype {actual.dtype}, expected {dtype.name}"
    if not dtype.is_float:
        _report(what, actual, expected, (actual != expected) & np.isfinite(noise), np.zeros(expected.shape))
        return
    epsilon = EPSILON[dtype.name]
    wide, expected = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(expected[np.isfinite(expected)])
    if magnitude is None:
        magnitude = float(finite.max(initial=0.0)) if length > 1 else 0.0
    tiny = float(ml_dtypes.finfo(dtype.numpy).tiny) if dtype.bits > 8 else ulps * SPACING[dtype.name]
    with np.errstate(invalid="ignore", over="ignore"):
        tolerance = ulps * epsilon * np.abs(expected) + 4 * epsilon * magnitude * np.sqrt(length)
        tolerance = tolerance + 8 * np.asarray(noise) + tiny
        near_overflow = np.abs(expected) + tolerance >= LARGEST[dtype.name] * (1 - epsilon)
        overflowed = np.isinf(wide) & near_overflow & (np.sign(wide) == np.sign(expected))
        overflowed |= np.isnan(wide) & near_overflow & (dtype.name in BEYOND)
        same = (wide == expected) | (np.isnan(wide) & np.isnan(expected)) | overflowed
        close = np.isfinite(wide) & np.isfinite(expected) & (np.abs(wide - expected) <= tolerance)
    wrong = ~(same | close) & np.isfinite(noise)
    _report(what, wide, expected, wrong, np.broadcast_to(tolerance, expected.shape))


def _report(what: str, actual: Any, expected: Any, wrong: np.ndarray, tolerance: np.ndarray) -> None:
    if not wrong.any():
        return
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    distance = np.where(wrong, np.where(np.isnan(distance), np.inf, distance), -1.0)
    worst = np.unravel_index(int(np.argmax(distance)), distance.shape)
    place = f"[{', '.join(str(int(i)) for i in worst)}]"
    raise AssertionError(
        f"{what} is wrong in {int(wrong.sum())} of {wrong.size} elements; the worst is {place}: "
        f"{actual[worst]!r}, expected {expected[worst]!r} within {float(tolerance[worst]):.3g}"
    )


def check_results(
    program: Program, arguments: Mapping[str, Any], actual: Sequence[Any], ulps: float = 4.0
) -> None:
    """Raise `AssertionError` unless `actual` are the results of `program` up to rounding."""
    expected = reference(program, arguments)
    assert len(actual) == len(expected), f"{len(actual)} results, expected {len(expected)}"
    noise = rounding_noise(program, arguments)
    for result, found, right, deviation in zip(program.results, actual, expected, noise, strict=True):
        assert_close(found, right, result.dtype, noise=deviation, ulps=ulps, what=result.name)


def rounding_noise(program: Program, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """How far each element of each result moves when every intermediate value is off by its rounding.

    Infinite where that decides what kind of number the element is.
    """
    exact = _Exact(program, arguments)
    expected = exact.results(program)
    noise = [np.zeros(value.shape) for value in expected]
    for seed, outcome in enumerate(OUTCOMES):
        evaluator = _Disturbed(program, arguments, exact, outcome, np.random.default_rng(seed))
        disturbed = evaluator.results(program)
        for total, right, value in zip(noise, expected, disturbed, strict=True):
            np.maximum(total, _distance(right, value), out=total)
    return tuple(noise)


def _distance(exact: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The distance of two results, infinite where they are not the same kind of number."""
    if exact.dtype.kind != "f":
        return np.where(exact == value, 0.0, np.inf)
    same = (exact == value) | (np.isnan(exact) & np.isnan(value))
    with np.errstate(invalid="ignore"):
        distance = np.abs(value - exact)
    return np.where(same, 0.0, np.where(np.isfinite(distance), distance, np.inf))


class _Exact(_Evaluator):
    """The reference, by node."""

    def __init__(self, program: Program, arguments: Mapping[str, Any]):
        arrays = {p.name: _widen(arguments[p.name], p.dtype) for p in program.params}
        super().__init__(arrays, bind_extents(program, {p.name: arrays[p.name].shape for p in program.tiles}))

    def results(self, program: Program) -> tuple[np.ndarray, ...]:
        """The results, infinite where their dtype cannot hold them."""
        with np.errstate(all="ignore"):
            found = [self.result(r.node, r.axes) for r in program.results]
        return tuple(
            _in_range(value, r.dtype) if r.dtype.is_float else value
            for value, r in zip(found, program.results, strict=True)
        )


# What becomes, in one evaluation each, of values that the order of a sum or of a product may carry out of the
# range of their dtype: nothing, as if there were no range; or this.
OUTCOMES = (None, np.inf, np.nan, 0.0)

# Their error is relative to what cancels in them.
CANCELLING = {"logaddexp"}

# Their values between two poles, a period apart, say nothing where the operand is off by more.
PERIODIC_POLES = {"tan", "lgamma", "digamma"}


class _Disturbed(_Exact):
    """The reference as a target might compute it.

    Each inexact value is moved at random within its rounding error and narrowed to its dtype. What may leave
    the dtype's range, or lies at a pole for all that is known, has the outcome of this evaluation.
    """

    def __init__(
        self, program: Program, arguments: Mapping[str, Any], exact: _Exact, outcome: float | None,
        random: np.random.Generator,
    ):  # fmt: skip
        super().__init__(program, arguments)
        self.disturb = self._moved
        self.exact = exact
        self.outcome = outcome
        self.random = random

    def _moved(self, node: Node, value: np.ndarray) -> np.ndarray:
        if not node.dtype.is_float or not node.args:
            return value
        error = np.where(np.isfinite(value), self._error(node, value), 0.0)
        value = value + error * self.random.uniform(-1, 1, value.shape)
        if self.outcome is None:
            return self._unlimited(node, value)
        value = _narrowed(value, node.dtype)
        with np.errstate(invalid="ignore"):
            return np.where(self._undecided(node, value), np.copysign(self.outcome, value), value)

    def _is_map(self, node: Node, functions: set[str]) -> TypeGuard[Map]:
        """Whether a node is one of these functions, and not in a scan's step, whose operands are not kept."""
        return isinstance(node, Map) and node.function in functions and node.args[0] in self.values

    def _unlimited(self, node: Node, value: np.ndarray) -> np.ndarray:
        """A value as if its dtype had no range, where float64 has: just finite after an overflow."""
        if not self._is_map(node, {"add", "sub", "mul"}):
            return value
        finite = [self._align(np.isfinite(self.values[a]), a.axes, node.axes) for a in node.operands]
        overflowed = np.isinf(value) & np.logical_and(*finite)
        return np.where(overflowed, np.copysign(np.finfo(np.float64).max, value), value)

    def _reduce(self, node: Reduce) -> np.ndarray:
        """Where no outcome is imposed, a partial sum or product has no limit (long doubles go to 1e4932)."""
        if self.outcome is not None or not node.dtype.is_float or node.combine not in ("sum", "prod"):
            return super()._reduce(node)
        terms = self.values[node.arg].astype(np.longdouble)
        return np.asarray(getattr(np, node.combine)(terms, axis=_positions(node)), np.float64)

    def _error(self, node: Node, value: np.ndarray) -> Any:
        epsilon = EPSILON[node.dtype.name]
        if isinstance(node, Map):
            size = np.maximum(np.abs(value), 1) if node.function in CANCELLING else np.abs(value)
            return 0.0 if node.function in COPYING else SCALARS[node.function].ulp * epsilon * size
        if isinstance(node, Cast):
            kept = node.arg.dtype.is_float and EPSILON[node.arg.dtype.name] >= epsilon
            exact = kept or (bool(np.all(np.abs(value) * epsilon < 0.5)) and not node.arg.dtype.is_float)
            return 0.0 if exact else epsilon * np.abs(value) + SPACING.get(node.dtype.name, 0.0)
        if isinstance(node, Reduce) and node.combine == "sum":
            magnitudes = np.abs(self.values[node.arg]).sum(axis=_positions(node))
            return epsilon * np.sqrt(self._count(node, value)) * magnitudes
        if isinstance(node, Reduce) and node.combine == "prod":
            return epsilon * np.sqrt(self._count(node, value)) * np.abs(value)
        if isinstance(node, Scatter):
            return epsilon * np.sqrt(self._count(node, value)) * self._added_magnitudes(node)
        return 0.0

    def _added_magnitudes(self, node: Scatter) -> np.ndarray:
        """Σ |value| of what a scatter adds up in each place."""
        plain = self.values
        self.values = {**plain, node.arg: np.abs(plain[node.arg])}
        total = self._scatter(node)
        self.values = plain
        return total

    def _count(self, node: Reduce | Scatter, value: np.ndarray) -> int:
        return max(1, self.values[node.arg].size // max(1, value.size))

    def _undecided(self, node: Node, value: np.ndarray) -> Any:
        """Whether this evaluation's outcome is one of those that an element may have."""
        if isinstance(node, Reduce) and node.combine == "sum":
            return self._sum_undecided(node)
        if isinstance(node, Reduce) and node.combine == "prod":
            return self._product_undecided(node)
        if self.outcome == 0:
            nothing = self._error(node, value) if self._is_map(node, CANCELLING) else 0.0
            return np.abs(value) < np.maximum(_smallest(node.dtype), nothing)  # some flush what is subnormal
        if self._is_map(node, PERIODIC_POLES):
            (operand,) = node.operands
            value = self.values[operand]
            off = np.abs(value - self.exact.evaluate(operand)) + self._error(operand, value)
            return self._align(off > 0.5, operand.axes, node.axes)
        return False

    def _sum_undecided(self, node: Reduce) -> Any:
        """In some order the sum passes the largest number: upwards, downwards, or both and is NaN.

        Operands that are infinite in both directions, or NaN, decide it.
        """
        terms, axes, largest = self.values[node.arg], _positions(node), LARGEST[node.dtype.name]
        up = np.where(terms > 0, terms, 0).sum(axis=axes) >= largest
        down = np.where(terms < 0, terms, 0).sum(axis=axes) <= -largest
        decided = _any(np.isnan(terms), axes) | (_any(terms == np.inf, axes) & _any(terms == -np.inf, axes))
        return ~decided & {"inf": up | down, "nan": up & down, "0.0": False}[str(self.outcome)]

    def _product_undecided(self, node: Reduce) -> Any:
        """In some order the product passes the largest or the smallest number, or both and is NaN.

        An operand of zero with one that is infinite, or NaN, decide it.
        """
        factors, axes = np.abs(self.values[node.arg]), _positions(node)
        over = np.where(factors > 1, factors, 1).prod(axis=axes) >= LARGEST[node.dtype.name]
        under = np.where(factors < 1, factors, 1).prod(axis=axes) < _smallest(node.dtype)
        zero, infinite = _any(factors == 0, axes), _any(factors == np.inf, axes)
        decided = _any(np.isnan(factors), axes) | (zero & infinite)
        outcomes = {"inf": over & ~zero, "nan": over & under, "0.0": under & ~infinite}
        return ~decided & outcomes[str(self.outcome)]


def _any(which: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.any(which, axis=axes)


def _positions(node: Reduce) -> tuple[int, ...]:
    return tuple(node.arg.axes.index(axis) for axis in node.over)


def _smallest(dtype: DType) -> float:
    """The smallest normal number of what a dtype is computed in."""
    return float(np.finfo(np.float64 if dtype.bits == 64 else np.float32).tiny)


def _narrowed(value: np.ndarray, dtype: DType) -> np.ndarray:
    """Values as numbers of a dtype, in float64; half precision is computed in float32."""
    with np.errstate(over="ignore"):
        return _in_range(np.asarray(value, np.float64 if dtype.bits == 64 else np.float32), dtype)


def _in_range(value: np.ndarray, dtype: DType) -> np.ndarray:
    """Float64 values, infinite or NaN where a dtype cannot hold them."""
    value = value.astype(np.float64)
    beyond = BEYOND.get(dtype.name, np.inf)
    return np.where(np.abs(value) >= LARGEST[dtype.name], np.copysign(beyond, value), value)
