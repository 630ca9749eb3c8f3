"""Comparison of a target's results with the float64 reference.

Two results agree when their shapes and dtypes do, NaNs and infinities stand in the same places, integers and
bools are equal, and floats differ by no more than rounding explains. What rounding explains is measured:
`rounding_noise` evaluates the program several times with every intermediate value disturbed by its dtype's
rounding error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.support.programs import COPYING
from tilewright.dsl.dtypes import DType, as_dtype
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Cast, Map, Node, Program, Reduce
from tilewright.dsl.reference import _Evaluator, _widen, combine_arrays, reference
from tilewright.dsl.scalars import SCALARS

EPSILON = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST = {"float64": np.inf, "float32": 3.4028235677973366e38, "float16": 65520.0, "bfloat16": 3.3961e38}


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
    above 1) and `length` how many.
    """
    dtype = as_dtype(dtype)
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has the shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == dtype.numpy, f"{what} has the dtype {actual.dtype}, expected {dtype.name}"
    if not dtype.is_float:
        _report(what, actual, expected, actual != expected, np.zeros(expected.shape))
        return
    epsilon = EPSILON[dtype.name]
    wide, expected = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(expected[np.isfinite(expected)])
    if magnitude is None:
        magnitude = float(finite.max(initial=0.0)) if length > 1 else 0.0
    tiny = float(np.finfo(np.float32).tiny) if dtype.name == "bfloat16" else float(np.finfo(dtype.numpy).tiny)
    with np.errstate(invalid="ignore", over="ignore"):
        tolerance = ulps * epsilon * np.abs(expected) + 4 * epsilon * magnitude * np.sqrt(length)
        tolerance = tolerance + 8 * np.asarray(noise) + tiny
        near_overflow = np.abs(expected) + tolerance >= LARGEST[dtype.name] * (1 - epsilon)
        overflowed = np.isinf(wide) & near_overflow & (np.sign(wide) == np.sign(expected))
        same = (wide == expected) | (np.isnan(wide) & np.isnan(expected)) | overflowed
        close = np.isfinite(wide) & np.isfinite(expected) & (np.abs(wide - expected) <= tolerance)
    _report(what, wide, expected, ~(same | close), np.broadcast_to(tolerance, expected.shape))


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


def rounding_noise(program: Program, arguments: Mapping[str, Any], runs: int = 4) -> tuple[np.ndarray, ...]:
    """How far each element of each result moves when every intermediate value is off by its rounding."""
    exact = reference(program, arguments)
    noise = [np.zeros(value.shape) for value in exact]
    for seed in range(runs):
        disturbed = _disturbed(program, arguments, np.random.default_rng(seed))
        for total, right, value in zip(noise, exact, disturbed, strict=True):
            with np.errstate(invalid="ignore"):
                deviation = np.abs(value.astype(np.float64) - right.astype(np.float64))
            np.maximum(total, np.where(np.isfinite(deviation), deviation, 0.0), out=total)
    return tuple(noise)


def _disturbed(
    program: Program, arguments: Mapping[str, Any], random: np.random.Generator
) -> tuple[np.ndarray, ...]:
    arrays = {p.name: _widen(arguments[p.name], p.dtype) for p in program.params}
    extents = bind_extents(program, {p.name: arrays[p.name].shape for p in program.tiles})
    evaluator = _Disturbed(arrays, extents)
    evaluator.random = random
    with np.errstate(all="ignore"):
        return tuple(evaluator.result(r.node, r.axes) for r in program.results)


class _Disturbed(_Evaluator):
    """The reference with each inexact value moved at random within its rounding error."""

    random: np.random.Generator

    def _evaluate(self, node: Node) -> np.ndarray:
        return self._moved(node, super()._evaluate(node))

    def _combined(self, body, before, after):
        """One step of a scan; its error goes on into all later ones."""
        return combine_arrays(body, before, after, self._moved)

    def _moved(self, node: Node, value: np.ndarray) -> np.ndarray:
        if not node.dtype.is_float or not node.args:
            return value
        error = np.where(np.isfinite(value), self._error(node, value), 0.0)
        return value + error * self.random.uniform(-1, 1, value.shape)

    def _error(self, node: Node, value: np.ndarray) -> Any:
        epsilon = EPSILON[node.dtype.name]
        if isinstance(node, Map):
            return 0.0 if node.function in COPYING else SCALARS[node.function].ulp * epsilon * np.abs(value)
        if isinstance(node, Cast):
            kept = node.arg.dtype.is_float and node.arg.dtype.bits <= node.dtype.bits
            exact = kept or (bool(np.all(np.abs(value) * epsilon < 0.5)) and not node.arg.dtype.is_float)
            return 0.0 if exact else epsilon * np.abs(value)
        if isinstance(node, Reduce) and node.combine == "sum":
            magnitudes = _sum_of_magnitudes(self.values[node.arg], node)
            count = max(1, self.values[node.arg].size // max(1, value.size))
            return epsilon * np.sqrt(count) * magnitudes
        if isinstance(node, Reduce) and node.combine == "prod":
            count = max(1, self.values[node.arg].size // max(1, value.size))
            return epsilon * np.sqrt(count) * np.abs(value)
        return 0.0


def _sum_of_magnitudes(value: np.ndarray, node: Reduce) -> np.ndarray:
    return np.abs(value).sum(axis=tuple(node.arg.axes.index(a) for a in node.over))
