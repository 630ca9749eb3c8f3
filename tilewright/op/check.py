"""`op.check(...)`: every target against the float64 meaning, the gradient against finite differences.

    results    each target's forward and backward against NumPy's float64 reference, element by element
    memory     the CPU's kernels again, in a forked child: operands, results and scratch memory lie against
               pages without access, and are poisoned with NaN before they are written; a device's again with
               results that are poisoned and have margins, which must stay as they are
    gradient   the derivative Program in float64 against finite differences of the reference

Operands that lie on a device are tried there, on copies that lie as they do, beside the CPU; others on the
first device, if there is one. Nothing is raised on a mismatch: the report says so, loudly, and its `ok` is
False.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.autograd.check import check_vjp
from tilewright.autograd.derivative import Derivative
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.axes import base, is_batch_axis
from tilewright.dsl.dtypes import DType, of_array
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.jumps import jumps
from tilewright.dsl.program import Cast, Map, Node, Program, Reduce
from tilewright.dsl.reference import reference
from tilewright.dsl.scalars import COPYING
from tilewright.errors import DerivativeError, TargetError, TilewrightError
from tilewright.op import margins
from tilewright.op.backward import random_cotangents, saved_values
from tilewright.op.derivatives import at_call, vjp
from tilewright.op.derived import without_saved
from tilewright.op.op import Op
from tilewright.op.targets import targets_at_hand
from tilewright.runtime import guard, memory, threads

Arrays = Mapping[str, np.ndarray]

PER_OPERATION = 16.0  # units of rounding that a formula may lose, besides those of its longest sum
PER_TERM = 4.0  # times the square root of the number of terms
MOVED = 8.0  # times what a result moves by if operands and values are rounded once
DIFFERENCES_TOLERANCE = 1e-5
CORNER = 24  # extent to which operands are cut for finite differences
INTERPRETED = 40_000  # elements beyond which the interpreter, which is slow, sees a corner only
CHILD_TIMEOUT = 120.0


@dataclass(frozen=True)
class Line:
    """One comparison: `error` is relative to the size of what is compared; None where there is no number."""

    what: str
    target: str
    error: float | None
    tolerance: float | None
    verdict: str
    skipped: bool = False

    @property
    def ok(self) -> bool:
        return self.skipped or self.verdict == "ok"


@dataclass(frozen=True)
class CheckReport:
    """What was compared; `ok` when everything agrees. Printing it shows the table."""

    op: str
    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        return all(line.ok for line in self.lines) and any(not line.skipped for line in self.lines)

    def __bool__(self) -> bool:
        return self.ok

    def table(self) -> Any:
        """A `rich` table."""
        from rich.table import Table

        table = Table(title=f"{self.op}: {'all targets agree' if self.ok else 'WRONG'}", title_justify="left")
        for column, justify in (
            ("what", "left"),
            ("target", "left"),
            ("error", "right"),
            ("allowed", "right"),
        ):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        table.add_column("verdict", overflow="fold")
        for line in self.lines:
            style = "dim" if line.skipped else "" if line.ok else "bold red"
            table.add_row(
                line.what,
                line.target,
                _number(line.error),
                _number(line.tolerance),
                line.verdict,
                style=style,
            )
        return table

    def __rich__(self) -> Any:
        return self.table()

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=110, no_color=True).print(self.table())
        return text.getvalue()

    __repr__ = __str__


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def check(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> CheckReport:
    """The report; tuples of ints stand for random float32 arrays. Raises only as a call of the op does."""
    arguments = op.arguments(tiles, keywords)
    targets = _targets(arguments.target(op.name))
    call = op.bind(arguments.as_arrays())
    program, operands, scalars = call.program, dict(call.arrays), dict(call.scalars)
    here = [target for target, missing in targets if not missing]
    lines = [
        *_on_every_target(lambda arrays: Trial(program, program, arrays, scalars), program, operands, here),
        *_backward(program, operands, scalars, here),
        *(Line(op.name, t, None, None, f"not here: {why}", skipped=True) for t, why in targets if why),
    ]
    return CheckReport(op.name, tuple(lines))


@dataclass(frozen=True)
class Trial:
    """A Program to be run on targets, and what it means in terms of the operands alone.

    The meaning of a backward is that of its operands and cotangents: what its forward saves, which each
    target computes in its own way, is no operand of it.
    """

    program: Program
    meaning: Program
    operands: Arrays
    scalars: Mapping[str, Any]
    derivative: Derivative | None = None

    @classmethod
    def of_backward(cls, program: Program, operands: Arrays, scalars: Mapping[str, Any]) -> Trial:
        """Raises `DerivativeError` where there is none."""
        derivative = vjp(at_call(program, operands))
        given = {**operands, **random_cotangents(derivative, operands)}
        return cls(derivative.backward, without_saved(derivative), given, scalars, derivative)

    @property
    def given(self) -> dict[str, Any]:
        return _given(self.meaning, {**self.operands, **self.scalars})

    @property
    def numbers(self) -> dict[str, Any]:
        return {p.name: self.scalars[p.name] for p in self.program.scalars}

    def arrays(self, target: str) -> dict[str, np.ndarray]:
        """The operands of the Program on a target, which computes what the forward saves."""
        saved = saved_values(self.derivative, self.operands, self.scalars, target) if self.derivative else {}
        given = {**self.operands, **saved}
        return {p.name: given[p.name] for p in self.program.tiles}


def _targets(operands: str) -> list[tuple[str, str]]:
    """The targets that are tried for operands on one of them, with why some are not there."""
    known = targets_at_hand()
    if operands == "cpu":
        return list(known)
    return [*((target, why) for target, why in known if not target.startswith("cuda")), (operands, "")]


# --- targets against the reference ------------------------------------------------------------------------


def _backward(
    program: Program, operands: Arrays, scalars: Mapping[str, Any], targets: Sequence[str]
) -> Iterator[Line]:
    try:
        derivative = vjp(at_call(program, operands))
    except DerivativeError as reason:
        yield Line("gradient", "", None, None, f"none: {reason}", skipped=True)
        return
    forward = derivative.forward
    if len(forward.results) > len(program.results):  # what it saves beside
        yield from _on_every_target(
            lambda arrays: Trial(forward, forward, arrays, scalars), program, operands, targets
        )
    yield from _on_every_target(
        lambda arrays: Trial.of_backward(program, arrays, scalars), program, operands, targets
    )
    yield _differences(program, derivative, operands, scalars)


def _given(program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    return {p.name: values[p.name] for p in program.params}


def _on_every_target(
    trial_on: Callable[[Arrays], Trial], program: Program, operands: Arrays, targets: Sequence[str]
) -> Iterator[Line]:
    whole = trial_on(operands)
    for target in targets:
        slow = target == "interpreter" and sum(a.size for a in whole.operands.values()) > INTERPRETED
        trial = trial_on(corner(program, operands)) if slow else whole
        name = trial.program.name
        try:
            yield from _on_target(trial, target)
        except TargetError as reason:
            yield Line(name, target, None, None, f"cannot run: {reason}", skipped=target != "cpu")
        except (TilewrightError, ArithmeticError, ValueError, TypeError, RuntimeError) as reason:
            yield Line(name, target, None, None, f"FAILED: {type(reason).__name__}: {reason}")


def _on_target(trial: Trial, target: str) -> Iterator[Line]:
    program = trial.program
    executable = compile_program(program, target)
    arrays = trial.arrays(target)
    actual = executable.run(arrays, trial.numbers)
    expected = reference(trial.meaning, trial.given)
    expected = tuple(_held(v, r.dtype) for v, r in zip(expected, program.results, strict=True))
    tolerances = _tolerances(trial)
    errors = [relative_error(np.asarray(a), e) for a, e in zip(actual, expected, strict=True)]
    if any(error > tolerances[r.name] for r, error in zip(program.results, errors, strict=True)):
        tolerances = _widened(trial, expected, tolerances)
        expected, errors = _from_what_was_saved(trial, arrays, actual, expected, errors)
    for result, mine, right, error in zip(program.results, actual, expected, errors, strict=True):
        allowed = tolerances[result.name]
        verdict = "ok" if error <= allowed else f"WRONG: {_worst(np.asarray(mine), right)}"
        yield Line(result.name, target, error, allowed, verdict)
    if target == "cpu":
        yield _on_guard_pages(program, arrays, trial.numbers, expected, tolerances)
    elif target != "interpreter":  # which checks each access
        yield _between_margins(program, arrays, trial.numbers, (expected, tolerances), target)


def _from_what_was_saved(
    trial: Trial, arrays: Arrays, actual: Sequence[np.ndarray], expected: tuple[np.ndarray, ...],
    errors: Sequence[float],
) -> tuple[tuple[np.ndarray, ...], list[float]]:  # fmt: skip
    """Of each result of a backward the meaning that is closer: that of the operands, or that of the values
    which the target's own forward saved. These are rounded: 1 - y² of a tanh near 1 is what y says.
    """
    program = trial.program
    if trial.derivative is None or not trial.derivative.saved:
        return expected, list(errors)
    others = reference(program, _given(program, {**arrays, **trial.scalars}))
    others = tuple(_held(v, r.dtype) for v, r in zip(others, program.results, strict=True))
    found = [
        min((error, right), (relative_error(np.asarray(mine), other), other), key=lambda pair: pair[0])
        for mine, right, other, error in zip(actual, expected, others, errors, strict=True)
    ]
    return tuple(right for _, right in found), [error for error, _ in found]


def _held(value: np.ndarray, dtype: DType) -> np.ndarray:
    """A result of the reference, as its dtype has it where it cannot hold it: infinite or NaN."""
    if not dtype.is_float:
        return value
    with np.errstate(all="ignore"):
        narrow = value.astype(dtype.numpy).astype(np.float64)
    return np.where(np.isfinite(narrow), value, narrow)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest |actual - expected| / (|expected| + its root mean square); inf if NaNs or infs differ.

    Differences up to the smallest number that the dtype of `actual` has are none: it has nothing in between.
    """
    if actual.shape != expected.shape:
        return math.inf
    if not actual.size:
        return 0.0
    mine, right = _floats(actual), _floats(expected)
    finite = np.isfinite(right)
    same = np.array_equal(np.isnan(mine), np.isnan(right))
    if not same or not np.array_equal(mine[~finite & ~np.isnan(right)], right[~finite & ~np.isnan(right)]):
        return math.inf
    if not finite.any():
        return 0.0
    mine, right = mine[finite], right[finite]
    scale = np.abs(right) + np.sqrt(np.mean(right * right))
    difference = np.maximum(np.abs(mine - right) - _smallest(actual), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.max(np.where(difference == 0, 0.0, difference / scale)))


def _smallest(array: np.ndarray) -> float:
    """The smallest positive number that an array of floating-point numbers can hold; 0 of another."""
    dtype = of_array(array)
    return float(ml_dtypes.finfo(array.dtype).smallest_subnormal) if dtype and dtype.is_float else 0.0


def _floats(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def _worst(actual: np.ndarray, expected: np.ndarray) -> str:
    """Where two arrays differ most, in words."""
    if actual.shape != expected.shape:
        return f"shape {actual.shape} instead of {expected.shape}"
    mine, right = _floats(actual), _floats(expected)
    difference = np.abs(mine - right)
    difference[np.isnan(mine) != np.isnan(right)] = np.inf
    place = np.unravel_index(
        int(np.argmax(np.nan_to_num(difference, nan=0.0, posinf=np.inf))), difference.shape
    )
    where = tuple(int(p) for p in place)
    return f"{mine[place]:.9g} instead of {right[place]:.9g} at {where}"


def _tolerances(trial: Trial) -> dict[str, float]:
    meaning = trial.meaning
    extents = bind_extents(meaning, {p.name: trial.operands[p.name].shape for p in meaning.tiles})
    sums = [n for n in meaning.nodes() if isinstance(n, Reduce)]
    terms = max((math.prod(extents[base(a)] for a in node.over) for node in sums), default=1)
    loss = PER_OPERATION + PER_TERM * math.sqrt(terms)
    inputs = max((_rounding(p.dtype.compute) for p in meaning.params), default=0.0)
    last = {r.node for r in meaning.results}
    inner = {n.dtype for n in meaning.nodes() if isinstance(n, Cast) and n not in last}
    saved = {p.dtype for p in trial.program.tiles if p.name not in trial.operands}
    rounded = max((_rounding(d) for d in inner | saved if d != d.compute), default=0.0)  # on targets alone
    return {
        r.name: 2 * _rounding(r.dtype) + 4 * rounded + loss * max(inputs, _rounding(r.dtype.compute))
        for r in meaning.results
    }


def _widened(
    trial: Trial, expected: Sequence[np.ndarray], tolerances: Mapping[str, float]
) -> dict[str, float]:
    """The tolerances, and what results move by where operands and what is computed from them are rounded:
    `tanh` of a sum of large terms has the rounding errors of the terms, a difference those of what cancels
    in it. Functions that jump (`dsl.jumps`) do not: a kernel that decides otherwise is wrong.
    """
    meaning = trial.meaning
    rng = np.random.default_rng(0)
    decided: list[np.ndarray] = []

    def decide(node: Node, value: np.ndarray) -> np.ndarray:
        if jumps(node):
            decided.append(value)
        return value

    def spread(value: np.ndarray, dtype: DType) -> np.ndarray:
        return value * (1 + _rounding(dtype.compute) * rng.uniform(-1, 1, value.shape))

    def rounded(node: Node, value: np.ndarray) -> np.ndarray:
        if jumps(node):
            return next(decisions)
        rounds = isinstance(node, Map) and node.dtype.is_float and node.function not in COPYING
        return spread(value, node.dtype) if rounds else value

    reference(meaning, trial.given, decide)
    decisions = iter(decided)  # they come in the order of the first time
    moved = trial.given
    for param in meaning.tiles:
        if param.dtype.is_float:
            moved[param.name] = spread(_floats(moved[param.name]), param.dtype)
    found = zip(meaning.results, reference(meaning, moved, rounded), expected, strict=True)
    by = {result.name: relative_error(value, right) for result, value, right in found}
    return {n: t + MOVED * by[n] if math.isfinite(by[n]) else t for n, t in tolerances.items()}


def _rounding(dtype: DType) -> float:
    return dtype.epsilon / 2 if dtype.is_float else 0.0


# --- guard pages ------------------------------------------------------------------------------------------


def _on_guard_pages(
    program: Program, arrays: Arrays, numbers: Mapping[str, Any], expected: tuple[np.ndarray, ...],
    tolerances: Mapping[str, float],
) -> Line:  # fmt: skip
    """The kernels once more, in a child that dies if they touch a byte beside their operands."""
    what = f"{program.name}: memory"
    executable = compile_program(program, "cpu")
    before = threads.get_num_threads()
    threads.set_num_threads(1)
    try:
        executable.run(dict(arrays), numbers)  # compiled for one thread, before the child is forked
        for side in ("end", "start"):

            def touch(side: guard.Side = side) -> None:
                _run_guarded(program, executable, arrays, numbers, expected, tolerances, side)

            outcome = guard.run_forked(touch, CHILD_TIMEOUT)
            if outcome.kind != "returned":
                return Line(what, "cpu", None, None, f"WRONG at the {side} of an array: {_told(outcome)}")
    except TilewrightError as reason:
        return Line(what, "cpu", None, None, f"not checked: {reason}", skipped=True)
    finally:
        threads.set_num_threads(before)
    return Line(what, "cpu", None, None, "ok")


def _run_guarded(
    program: Program, executable: Any, arrays: Arrays, numbers: Mapping[str, Any],
    expected: tuple[np.ndarray, ...], tolerances: Mapping[str, float], side: guard.Side,
) -> None:  # fmt: skip
    def poisoned(shape: Any, dtype: Any) -> np.ndarray:
        extents = shape if isinstance(shape, (tuple, list)) else (shape,)
        return guard.poisoned(extents, dtype, side)

    memory.empty = poisoned  # this process is a child, so nobody else sees it
    guarded = {name: guard.guarded(array, side) for name, array in arrays.items()}
    actual = executable.run(guarded, numbers)
    for result, mine, right in zip(program.results, actual, expected, strict=True):
        if not relative_error(mine, right) <= tolerances[result.name]:
            raise AssertionError(f"{result.name}: {_worst(mine, right)}, on memory poisoned with NaN")
    for name, array in arrays.items():
        if guarded[name].tobytes() != np.asarray(array).tobytes():
            raise AssertionError(f"the operand {name} was changed")


def _told(outcome: guard.ForkOutcome) -> str:
    if outcome.segfault:
        return "a kernel touched memory beside its operands"
    if outcome.kind == "raised":
        return outcome.report.strip().splitlines()[-1]
    return (
        outcome.kind if outcome.signal_number is None else f"{outcome.kind} (signal {outcome.signal_number})"
    )


# --- margins ----------------------------------------------------------------------------------------------


def _between_margins(
    program: Program, arrays: Arrays, numbers: Mapping[str, Any],
    right: tuple[tuple[np.ndarray, ...], Mapping[str, float]], target: str,
) -> Line:  # fmt: skip
    """A device's kernels once more, with results between margins; both are poisoned with NaN before."""
    what = f"{program.name}: memory"
    expected, tolerances = right
    made = [margins.poisoned(value.shape, r.dtype.numpy, target)
            for r, value in zip(program.results, expected, strict=True)]  # fmt: skip
    operands = {p.name: arrays[p.name] for p in program.tiles}
    compile_program(program, target).run(operands, numbers, [each.inside for each in made])
    for result, each, value in zip(program.results, made, expected, strict=True):
        found = each.inside.to_numpy()
        if not relative_error(found, value) <= tolerances[result.name]:
            told = f"{result.name}: {_worst(found, value)}, on memory poisoned with NaN"
            return Line(what, target, None, None, f"WRONG: {told}")
        if not each.is_whole:
            told = f"a kernel wrote beside {result.name}"
            return Line(what, target, None, None, f"WRONG: {told}")
    return Line(what, target, None, None, "ok")


# --- finite differences -----------------------------------------------------------------------------------


def _differences(
    program: Program, derivative: Derivative, operands: Arrays, scalars: Mapping[str, Any]
) -> Line:
    wrt = ", ".join(result for _, result in derivative.gradients)
    small = corner(program, operands)
    with np.errstate(all="ignore"):
        report = check_vjp(program, {**small, **scalars}, derivative=derivative, directions=2, entries=3)
    verdict = "ok"
    if not report.error <= DIFFERENCES_TOLERANCE:
        worst = max(report.comparisons, key=lambda c: c.error)
        verdict = f"WRONG: {worst.what}: derived {worst.derived:.9g}, measured {worst.measured:.9g}"
    return Line(wrt, "finite differences", report.error, DIFFERENCES_TOLERANCE, verdict)


def corner(program: Program, arrays: Arrays) -> dict[str, np.ndarray]:
    """The operands cut to their first `CORNER` positions; with integer operands (which may hold positions)
    along batch axes only."""
    by_value = any(p.dtype.is_integer for p in program.tiles)
    cut = {}
    for param in program.tiles:
        part = tuple(
            slice(None) if by_value and not is_batch_axis(axis) else slice(0, CORNER) for axis in param.axes
        )
        cut[param.name] = np.array(arrays[param.name][part], order="C")
    return cut
