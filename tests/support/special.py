"""Special values: NaN, zeros, infinities, subnormal numbers, labels out of range, masks of nothing.

    check_special(case, "cpu")                  those that the case names, in its first operand
    check_special_everywhere(case, "cpu")       all of them, in each operand and each incoming gradient

A target must give what the float64 reference does, NaN and infinities in the same places. Only where rounding
decides what a number becomes (a sum that leaves float32's range in one order and not in another) is nothing
asked of it: `compare.rounding_noise`. And what is not finite may be what a contraction makes of it:
`as_contracted`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.support.cases import Case, Subject
from tests.support.checks import Arrays, assert_right, extents_of, run, with_cotangents
from tests.support.compare import assert_close, check_results
from tilewright.autograd.derive import Derivative
from tilewright.autograd.inversion import without_scatters
from tilewright.compiler.contraction import factorise, recognise
from tilewright.compiler.sinking import sink
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import Map, Node, Param, Program, Reduce, Scan, rewrite
from tilewright.dsl.reference import reference
from tilewright.dsl.simplify import simplify
from tilewright.op.derivatives import at_call, vjp
from tilewright.op.derived import without_saved

Compute = Callable[[Arrays], Sequence[np.ndarray]]


def check_special(case: Case, target: str) -> None:
    """Special values, one after the other and all of them at once, in some places of the first operand."""
    for dtype in (np.float64, np.float32):
        for values in [(v,) for v in case.special] + [case.special]:
            arguments = case.arguments(dtype)
            first = next(iter(arguments))
            arguments[first] = sprinkled(arguments[first], values)
            call = case.call(arguments)
            arrays = {**call.arrays, **call.scalars}
            assert_right(call.program, arrays, target, case.tolerance, f"{case} with {values}")


def sprinkled(array: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """`array` with `values` in its first and last rows."""
    changed = array.copy()
    rows = changed.reshape(-1, changed.shape[-1])
    for position, value in enumerate(values):
        rows[0, (3 * position) % rows.shape[1]] = value
        rows[-1, (5 * position + 2) % rows.shape[1]] = value
    return changed


# --- in every operand and every incoming gradient -----------------------------------------------------------


def special_numbers(dtype: DType) -> tuple[tuple[Any, ...], ...]:
    """What an operand of a dtype is tried with; numbers that poison no others stand beside each other.

    Of integers -100 is what losses ignore unless told, and 7 the first that is no class of the cases'.
    """
    if dtype.is_bool:
        return ((False,), (True,))
    if dtype.is_integer:
        low, high = dtype.range
        return ((-1,), (-100,), (7,), (low, high)) if low else ((7,), (high,))
    tiny = float(np.finfo(dtype.numpy).smallest_subnormal)
    return ((math.nan,), (math.inf,), (-math.inf,), (0.0, -0.0, 3 * tiny, -tiny))


def with_rows_of(array: np.ndarray, values: Sequence[Any]) -> np.ndarray:
    """`array` with `values` in turn throughout its first row, and the first of them in its last one."""
    changed = np.array(array)
    rows = changed.reshape(-1, changed.shape[-1] if changed.ndim else 1)
    width = rows.shape[1] if len(rows) > 1 else (rows.shape[1] + 1) // 2
    rows[0, :width] = np.resize(np.asarray(values, array.dtype), width)
    rows[-1, rows.shape[1] // 2] = values[0]
    return changed


def check_special_everywhere(case: Subject, target: str, dtype: Any = np.float32) -> None:
    """Each special number in each operand, and in each incoming gradient: values and gradients.

    Gradients are those of the backward after the forward, with what that saved.
    """
    call = case.call(case.arguments(dtype))
    arrays = {**call.arrays, **call.scalars}
    wrong = _wrong(call.program, arrays, lambda given: run(call.program, given, target), case.tolerance)
    if case.differentiable:
        derivative = vjp(at_call(call.program, call.arrays))
        whole = without_saved(derivative)
        given = with_cotangents(whole, arrays, extents_of(call.program, arrays))
        wrong += _wrong(whole, given, lambda given: _pulled(derivative, given, target), 4 * case.tolerance)
    assert not wrong, f"{case} in {np.dtype(dtype)} on {target}:\n" + "\n".join(wrong)


def _wrong(program: Program, arrays: Arrays, compute: Compute, tolerance: float) -> list[str]:
    """What differs from the reference, with which numbers in which operand."""
    found = []
    for param in program.params:
        for values in special_numbers(param.dtype):
            given = {**arrays, param.name: _specially(arrays[param.name], values, param)}
            try:
                _check(program, given, compute(given), tolerance)
            except AssertionError as error:
                found.append(f"{values} in {param.name}: {error}")
    return found


def _specially(array: Any, values: Sequence[Any], param: Param) -> Any:
    if isinstance(array, np.ndarray):
        return with_rows_of(array, values)
    return param.dtype.numpy.type(values[0]).item()


def _check(program: Program, given: Arrays, actual: Sequence[np.ndarray], tolerance: float) -> None:
    """Against the reference; where that does not suffice, by what contractions and rounding explain."""
    try:
        _check_at_once(program, given, actual, tolerance)
    except AssertionError:
        check_results(program, given, _as_expected(program, given, actual), tolerance)


def _check_at_once(program: Program, given: Arrays, actual: Sequence[np.ndarray], tolerance: float) -> None:
    expected = reference(program, given)
    for result, found, right in zip(program.results, actual, expected, strict=True):
        assert_close(found, right, result.dtype, length=4, ulps=tolerance, what=result.name)


def _pulled(derivative: Derivative, given: Arrays, target: str) -> tuple[np.ndarray, ...]:
    results = run(derivative.forward, given, target)
    saved = {r.name: a for r, a in zip(derivative.forward.results, results, strict=True)}
    return run(derivative.backward, {**saved, **given}, target)


def _as_expected(program: Program, given: Arrays, actual: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Results with the reference in place of what is right all the same (`language.md` says where).

    NaN where a contraction has 0 · NaN, and ±∞ or NaN where it has the other: ∞ · Σ x for Σ ∞ · x. NaN for
    ±∞ where steps of a scan may be combined with each other first.
    """
    if all(a.dtype.kind in "iub" or np.all(np.isfinite(a)) for a in actual):
        return list(actual)
    plain, simple = (reference(as_contracted(program, s), given) for s in (False, True))
    combined = any(isinstance(n, Scan) and len(n.body) > 1 for n in program.nodes())
    ends = zip(actual, reference(program, given), plain, simple, strict=True)
    return [_replaced(*end, combined) if end[0].dtype.kind == "f" else end[0] for end in ends]


def _replaced(
    found: np.ndarray, right: np.ndarray, plain: np.ndarray, simple: np.ndarray, combined: bool
) -> np.ndarray:
    unseen = np.isnan(found) & np.isnan(plain)
    infinite = ~np.isfinite(right) & ~np.isfinite(found)
    same = (found == simple) | (np.isnan(found) & (np.isnan(simple) | combined))
    with np.errstate(all="ignore"):
        return np.where(unseen | (infinite & same), right, found).astype(found.dtype)


@functools.lru_cache(maxsize=32)
def as_contracted(program: Program, simplified: bool) -> Program:
    """A Program with its sums of products as contractions have them, which matters to what is not finite.

    Masks and edges are on a factor, which is 0 there and not left out: 0 · NaN. What does not run along a
    summed axis is a factor of the sum: ∞ · Σ x, not Σ ∞ · x.
    """

    def contracted(node: Node) -> Node:
        found = recognise(node)
        return node if found is None else Reduce("sum", found.k, Map("mul", (found.left, found.right)))

    solved = without_scatters(program)
    sunk = simplify(sink(simplify(solved))) if simplified else sink(solved)
    return sunk.with_results(rewrite(factorise(tuple(r.node for r in sunk.results)), contracted))
