"""`op.bench(...)`: forward and backward timed against NumPy's reference and against the machine's own limits.

An op is timed where its operands lie, on the CPU or on a device. Everything is timed in turn, round after
round (A B C A B C …), so that a slow moment of the machine slows it all; the median is reported. The limit
is the least time that the operations and the fewest bytes could take at the peak and copy rates that were
measured in the same rounds; a device's peak is not measured, so there the limit is that of the bytes alone.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.autograd.derivative import Derivative
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.errors import DerivativeError
from tilewright.op import costs, limits, storage
from tilewright.op.backward import random_cotangents, saved_values
from tilewright.op.derivatives import at_call, vjp
from tilewright.op.machines import Machine, machine, sample_on_host
from tilewright.op.op import Op

BUDGET = 2.0  # seconds, about
SLOW = 0.25  # seconds: sampled once
MOST_ROUNDS = 50
FEWEST_ROUNDS = 3
REFERENCE = "NumPy, float64 reference"


@dataclass(frozen=True)
class Timing:
    """One thing that was timed: seconds a call, the fewest bytes, operations, and the least time possible."""

    what: str
    seconds: float
    moved: int
    operations: int
    least: float | None

    @property
    def fraction(self) -> float | None:
        """Of the machine's limit."""
        return None if self.least is None else self.least / self.seconds


@dataclass(frozen=True)
class BenchReport:
    """Timings in the order in which they were asked for, and the limits that were measured beside them."""

    op: str
    timings: tuple[Timing, ...]
    limits: limits.Limits
    machine: str

    def table(self) -> Any:
        """A `rich` table."""
        from rich.table import Table

        peak = self.limits.operations
        told = f"{costs.quantity(peak, 'FLOP/s')} multiply-add, " if peak else ""
        table = Table(
            title=f"{self.op}, {self.machine}",
            caption=f"limits: {told}{costs.quantity(self.limits.bandwidth, 'B/s')} copy",
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("what")
        for column in ("time", "GB/s", "GFLOP/s", "of the limit"):
            table.add_column(column, justify="right")
        for timing in self.timings:
            fraction = timing.fraction
            table.add_row(
                timing.what,
                duration(timing.seconds),
                f"{timing.moved / timing.seconds / 1e9:.1f}",
                f"{timing.operations / timing.seconds / 1e9:.1f}",
                "" if fraction is None else f"{fraction:.0%}",
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


def duration(seconds: float) -> str:
    """`0.00123` → `"1.23 ms"`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def bench(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any], budget: float = BUDGET) -> BenchReport:
    """The report, after about `budget` seconds; tuples of ints stand for random float32 arrays."""
    arguments = op.arguments(tiles, keywords)
    target = arguments.target(op.name)
    call = op.bind(arguments.as_arrays())
    arrays, scalars = dict(call.arrays), dict(call.scalars)
    program = at_call(call.program, arrays)
    work = {"forward": _runner(program, arrays, scalars, target)}
    totals = {"forward": _totals(program, arrays, target)}
    derivative = _derivative(program)
    if derivative is not None:
        saved = saved_values(derivative, arrays, scalars, target)
        given = {**arrays, **random_cotangents(derivative, arrays), **saved}
        forward = _runner(derivative.forward, arrays, scalars, target)
        backward = _runner(derivative.backward, given, scalars, target)
        work["forward + backward"] = lambda: (forward(), backward())
        totals["forward + backward"] = _added(
            _totals(derivative.forward, arrays, target), _totals(derivative.backward, given, target)
        )
    work[REFERENCE] = lambda: reference(program, {**arrays, **scalars})
    totals[REFERENCE] = totals["forward"]
    place = machine(target)
    seconds = _interleaved(work, place, budget)
    measured = place.limits()
    timings = tuple(_timing(what, seconds[what], totals[what], measured) for what in work)
    return BenchReport(op.name, timings, measured, place.name)


def _derivative(program: Program) -> Derivative | None:
    try:
        return vjp(program)
    except DerivativeError:
        return None


def _runner(
    program: Program, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any], target: str
) -> Callable[[], Any]:
    executable = compile_program(program, target)
    operands = [storage.lying_on(arrays[p.name], target) for p in program.tiles]
    numbers = {p.name: scalars[p.name] for p in program.scalars}
    run = executable.prepared(operands)
    return lambda: run(operands, numbers)


def _totals(program: Program, arrays: Mapping[str, np.ndarray], target: str) -> costs.Totals:
    plan = compile_program(program, target).plan
    return costs.totals(plan, costs.extents_of(plan, {name: a.shape for name, a in arrays.items()}))


def _added(first: costs.Totals, second: costs.Totals) -> costs.Totals:
    return costs.Totals(
        first.moved + second.moved, first.fewest + second.fewest, first.operations + second.operations
    )


def _timing(what: str, seconds: float, totals: costs.Totals, measured: limits.Limits) -> Timing:
    least = measured.seconds(totals.operations, totals.fewest) if what != REFERENCE else None
    return Timing(what, seconds, totals.fewest, totals.operations, least)


def _interleaved(work: Mapping[str, Callable[[], Any]], place: Machine, budget: float) -> dict[str, float]:
    """The median seconds of each, all taken in turn, with the limits of the place between."""
    samples: dict[str, list[float]] = {}
    calls = {}
    for what, run in work.items():
        run()  # compiles and warms up
        samples[what] = [_sample(place, what, run, 1)]
        calls[what] = place.calls(samples[what][0])
    began = time.perf_counter()
    for number in range(MOST_ROUNDS):
        for what, run in work.items():
            if samples[what][0] < SLOW:
                samples[what].append(_sample(place, what, run, calls[what]))
        place.probe()
        if number + 1 >= FEWEST_ROUNDS and time.perf_counter() - began > budget:
            break
    return {what: statistics.median(found) for what, found in samples.items()}


def _sample(place: Machine, what: str, run: Callable[[], Any], calls: int) -> float:
    return (sample_on_host if what == REFERENCE else place.sample)(run, calls)
