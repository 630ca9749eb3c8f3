"""Derivative Programs against finite differences of the float64 reference.

Directional derivatives by central differences with Richardson extrapolation: with
D(h) = (f(x + hu) - f(x - hu)) / 2h the table D, (4 D(h/2) - D(h)) / 3, … converges like h^{2k}; the entry
whose neighbours agree best is taken, and how well they agree is its error estimate (Ridders' method).

Errors are relative to the terms of the sum, never to less than 1e-6 of the terms of f: rounding of f is
no error. Infinite results have no slope and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.autograd.derive import Derivative, jvp, vjp
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """One number of the derivative Program beside the same one by finite differences."""

    what: str
    derived: float
    measured: float
    uncertainty: float
    scale: float

    @property
    def error(self) -> float:
        """|derived - measured| less the measurement's uncertainty, relative to the size of the terms."""
        if np.isnan(self.derived) or np.isnan(self.measured):
            return float("inf")
        excess = abs(self.derived - self.measured) - 2 * self.uncertainty
        return max(excess, 0.0) / max(self.scale, abs(self.measured), 1e-12)


@dataclass(frozen=True)
class Report:
    """Every comparison of one check; `error` is the worst."""

    op: str
    comparisons: tuple[Comparison, ...]

    @property
    def error(self) -> float:
        return max((c.error for c in self.comparisons), default=0.0)

    def __str__(self) -> str:
        rows = (
            f"  {c.what:<24} {c.derived: .12e} {c.measured: .12e}  {c.error:.1e}" for c in self.comparisons
        )
        return "\n".join((f"{self.op}: worst relative error {self.error:.1e}", *rows))


def check_vjp(
    program: Program,
    arguments: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    *,
    derivative: Derivative | None = None,
    directions: int = 3,
    entries: int = 6,
    seed: int = 0,
) -> Report:
    """d_x · u against the derivative of Σ d_y · f(x + t u), for entries of the operands and random u.

    All entries are tried where an operand has no more than `entries`, otherwise that many random ones.
    """
    derivative = derivative or vjp(program, tuple(wrt) if wrt is not None else None)
    rng = np.random.default_rng(seed)
    arrays = widened(program, arguments)
    outputs = dict(
        zip((r.name for r in derivative.forward.results), _run(derivative.forward, arrays), strict=True)
    )
    cotangents = {param: _weights(outputs[name], rng) for name, param in derivative.cotangents}
    gradients = run_backward(derivative, arrays, cotangents)

    def loss(at: Arrays) -> float:
        values = dict(zip((r.name for r in program.results), _run(program, at), strict=True))
        return sum(_weighed(values[name], cotangents[param]) for name, param in derivative.cotangents)

    floor = 1e-6 * sum(
        _weighed(np.abs(outputs[name]), np.abs(cotangents[param])) for name, param in derivative.cotangents
    )
    comparisons = []
    for operand, result in derivative.gradients:
        gradient = gradients[result]
        for what, direction in _directions(operand, arrays[operand].shape, rng, directions, entries):
            step = {operand: direction}
            measured, uncertainty = directional(loss, arrays, step)
            derived = float(np.sum(gradient * direction))
            scale = float(np.sum(np.abs(gradient * direction)) + floor)
            comparisons.append(Comparison(what, derived, measured, uncertainty, scale))
    return Report(program.name, tuple(comparisons))


def check_jvp(
    program: Program,
    arguments: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    *,
    directions: int = 3,
    seed: int = 0,
) -> Report:
    """Each result's tangent against the derivative of f(x + t u), for random directions u of all operands."""
    names = tuple(wrt) if wrt is not None else tuple(p.name for p in program.tiles if p.dtype.is_float)
    derived = jvp(program, names)
    rng = np.random.default_rng(seed)
    arrays = widened(program, arguments)
    outputs = dict(zip((r.name for r in program.results), _run(program, arrays), strict=True))
    comparisons = []
    for number in range(directions):
        step = {name: rng.standard_normal(arrays[name].shape) for name in names}
        tangents = tangent_arguments(program, derived, names, step)
        values = _run(derived, {**arrays, **tangents})
        for position, (result, value) in enumerate(zip(_floating(program), values, strict=True)):
            weight = _weights(outputs[result], rng)

            def probe(at: Arrays, name: str = result, weight: np.ndarray = weight) -> float:
                found = dict(zip((r.name for r in program.results), _run(program, at), strict=True))
                return _weighed(found[name], weight)

            measured, uncertainty = directional(probe, arrays, step)
            what = f"t_{_floating(program)[position]} direction {number}"
            scale = _weighed(np.abs(value), np.abs(weight)) + 1e-6 * abs(probe(arrays))
            comparisons.append(Comparison(what, _weighed(value, weight), measured, uncertainty, scale))
    return Report(program.name, tuple(comparisons))


def _weights(output: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random weights of a result's elements, 0 of those that are infinite."""
    return np.where(np.isinf(output), 0.0, rng.standard_normal(output.shape))


def _weighed(values: np.ndarray, weights: np.ndarray) -> float:
    """Σ value · weight over the elements that have one."""
    return float(np.sum(np.multiply(values, weights, where=weights != 0, out=np.zeros(weights.shape))))


def _floating(program: Program) -> list[str]:
    return [r.name for r in program.results if r.dtype.is_float]


def tangent_arguments(
    program: Program, derived: Program, names: Sequence[str], step: Arrays
) -> dict[str, np.ndarray]:
    """The tangents in `step` under the names that they have as params of a jvp."""
    added = [p.name for p in derived.params if p.name not in {q.name for q in program.params}]
    return dict(zip(added, (step[name] for name in names), strict=True))


def run_backward(
    derivative: Derivative, arguments: Mapping[str, Any], cotangents: Arrays
) -> dict[str, np.ndarray]:
    """The gradients by result name; forward results that `backward` reads are computed by the reference."""
    outputs = dict(
        zip((r.name for r in derivative.forward.results), _run(derivative.forward, arguments), strict=True)
    )
    saved = {name: outputs[name] for name in derivative.saved}
    given = {**arguments, **saved, **cotangents}
    values = _run(derivative.backward, {p.name: given[p.name] for p in derivative.backward.params})
    return dict(zip((r.name for r in derivative.backward.results), values, strict=True))


def widened(program: Program, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arguments with floating-point ones in float64."""
    return {
        p.name: np.asarray(arguments[p.name]).astype(np.float64 if p.dtype.is_float else p.dtype.numpy)
        for p in program.params
    }


def _run(program: Program, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    return reference(program, {p.name: arguments[p.name] for p in program.params})


def _directions(
    operand: str, shape: tuple[int, ...], rng: np.random.Generator, directions: int, entries: int
) -> list[tuple[str, np.ndarray]]:
    size = int(np.prod(shape))
    found = []
    for position in rng.permutation(size)[:entries]:
        direction = np.zeros(size)
        direction[position] = 1
        found.append(
            (f"{operand}{list(map(int, np.unravel_index(position, shape)))}", direction.reshape(shape))
        )
    if size > entries:
        found += [(f"{operand} direction {n}", rng.standard_normal(shape)) for n in range(directions)]
    return found


def directional(
    function: Callable[[Arrays], float], at: Arrays, step: Arrays, size: float = 0.05, rounds: int = 10
) -> tuple[float, float]:
    """(d/dt) function(at + t·step) at 0, and an estimate of its error, by Ridders' extrapolation.

    The steps shrink to a millionth, so that a kink as close as that is left behind; at a kink every slope
    between those of its two sides is within the error. Of thousands of kinks differences jump from step to
    step, and neighbours in the table may agree by chance: where the shortest steps do not, they are right, to
    within what they differ by.
    """
    shrink = 3.0
    rounding = np.finfo(np.float64).eps * abs(middle := function(at))
    table: list[list[float]] = []
    bends = []  # how much steeper the function is ahead than behind: twice a kink's share of the error
    best, best_error = np.nan, np.inf
    for round_ in range(rounds):
        h = size / shrink**round_
        ahead, behind = _stepped(function, at, step, h), _stepped(function, at, step, -h)
        row = [(ahead - behind) / (2 * h)]
        bends.append((ahead - 2 * middle + behind) / h)
        factor = shrink**2
        for column in range(round_):
            row.append((row[column] * factor - table[-1][column]) / (factor - 1))
            factor *= shrink**2
            apart = max(abs(row[-1] - row[-2]), abs(row[-1] - table[-1][column]))
            error = max(apart, rounding / h)
            if error <= best_error:
                best, best_error = row[-1], error
        table.append(row)
    before, shorter, shortest = (row[0] for row in table[-3:])
    jump = abs(shortest - shorter)
    if abs(best - shortest) > max(jump, best_error) + 16 * rounding / h:
        best, best_error = shortest, max(jump, abs(shorter - before))
    kink = abs(bends[-1] * shrink - bends[-2]) / (shrink - 1)  # nothing but rounding where it is smooth
    if 16 * rounding / h < kink < np.inf:
        best_error += kink / 2
    return float(best), float(best_error)


def _stepped(function: Callable[[Arrays], float], at: Arrays, step: Arrays, h: float) -> float:
    return function({**at, **{name: at[name] + h * u for name, u in step.items()}})
