"""`op.explain(...)`: the mathematics, the derived gradient, and the kernels that both became and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.autograd.derivation import derivation
from tilewright.autograd.derivative import Derivative
from tilewright.compiler.nest import Kernel, Plan
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl.axes import is_batch_axis
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.formula import definition, formula
from tilewright.dsl.program import Program
from tilewright.errors import DerivativeError, TargetError
from tilewright.op import costs, storage, words
from tilewright.op.derivatives import at_call, vjp
from tilewright.op.op import Arguments, Call, Op

WIDTH = 100
LONGEST = 60  # steps of a derivation


def explain(op: Op, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> str:
    """Text about an op at these operands (tuples of ints stand for float32 arrays). Raises as a call does."""
    call = op.bind(stand_ins(op.arguments(tiles, keywords)))
    return "\n".join(_lines(op, call)) + "\n"


def stand_ins(arguments: Arguments) -> Arguments:
    """The same call with arrays in the place of shapes, their contents undefined."""
    return Arguments(
        {n: _empty(v) for n, v in arguments.tiles.items()}, arguments.scalars, arguments.constants
    )


def _empty(value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(extent, int) for extent in value):
        return np.empty(value, np.float32)
    return storage.on_host(value)


@dataclass(frozen=True)
class Compiled:
    """A Program as kernels for operands of some shapes, with the steps of the CPU's, by kernel, if there are
    any.
    """

    plan: Plan
    extents: Mapping[str, int]
    specialised: Mapping[str, Any]


def compiled(program: Program, arrays: Mapping[str, np.ndarray]) -> Compiled:
    """The kernels of a Program and how the CPU target specialises them to these operands."""
    executable: Any = compile_program(program, "cpu")
    shapes = {name: array.shape for name, array in arrays.items()}
    extents = costs.extents_of(executable.plan, shapes)
    try:
        specialised = {step.compiled.kernel.name: step for step in executable.steps(arrays)}
    except TargetError:
        specialised = {}
    return Compiled(executable.plan, extents, specialised)


def backward_arrays(derivative: Derivative, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Operands of the backward; saved values and cotangents have undefined contents."""
    forward = derivative.forward
    extents = bind_extents(forward, {p.name: arrays[p.name].shape for p in forward.tiles})
    return {
        p.name: arrays[p.name] if p.name in arrays else np.empty([extents[a] for a in p.axes], p.dtype.numpy)
        for p in derivative.backward.tiles
    }


# --- the page ---------------------------------------------------------------------------------------------


def _lines(op: Op, call: Call) -> Iterator[str]:
    program = call.program
    yield op.usage()
    if op.__doc__ and op.__doc__ is not type(op).__doc__:
        yield from ("  " + line for line in textwrap.dedent(op.__doc__).strip().splitlines())
    yield ""
    yield from _signature(call)
    yield ""
    yield "Mathematics"
    yield from _formulas(program)
    yield ""
    program = at_call(program, call.arrays)
    yield from _kernels("Forward", compiled(program, call.arrays))
    yield ""
    yield from _gradient(program, call.arrays)


def _formulas(program: Program) -> Iterator[str]:
    for line in formula(program).split("\n"):
        yield from _wrapped(line, "  ", "      ")


def _indented(text: str, by: int = 2) -> list[str]:
    return textwrap.indent(text, " " * by).splitlines()


def _signature(call: Call) -> Iterator[str]:
    shapes = {name: array.shape for name, array in call.arrays.items()}
    for param in call.program.params:
        kind = "a number, passed at run time" if param.scalar else _tile_text(param.axes, shapes[param.name])
        yield f"  {param.name}: {param.dtype.name} {kind}"
    for result in call.program.results:
        yield f"  → {result.name}: {result.dtype.name} [{' '.join(result.axes)}]"
    batch = {a: g for a, g in call.binding.groups.items() if g and is_batch_axis(a)}
    for axis, group in batch.items():
        merged = f"{len(group)} leading axes {group} as one" if len(group) > 1 else "a leading axis"
        yield f"  {axis} is {merged} of those that `...` stands for"


def _tile_text(axes: tuple[str, ...], shape: tuple[int, ...]) -> str:
    return "[" + " ".join(f"{a}={e}" for a, e in zip(axes, shape, strict=True)) + "]"


def _gradient(program: Program, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    try:
        derivative = vjp(program)
    except DerivativeError as reason:
        yield "Gradient: none"
        yield from _wrapped(str(reason), "  ")
        return
    yield "Derivation, from the results back to the operands (d_v is the gradient arriving at v)"
    yield from _derivation(program)
    yield ""
    yield "Gradient, derived (d_y is the gradient arriving at y)"
    yield from _formulas(derivative.backward)
    yield from _wrapped(_saved_text(program, derivative), "  ")
    yield ""
    if derivative.forward.results != program.results:
        yield from _kernels(
            "Forward that keeps what the backward needs", compiled(derivative.forward, arrays)
        )
        yield ""
    yield from _kernels("Backward", compiled(derivative.backward, backward_arrays(derivative, arrays)))


def _derivation(program: Program) -> Iterator[str]:
    """The chain rule, value by value: what each is, and what its gradient gives to those it is made of."""
    found = derivation(program)
    added: set[str] = set()
    for step in found.steps[:LONGEST]:
        end = ": what arrives cancels, so nothing goes back from here" if step.vanishes else ""
        yield from _wrapped(f"{step.name} = {definition(step.node, found.names)}{end}", "  ", "      ")
        for operand, back in step.gives:
            sign = "+=" if operand in added else "="
            added.add(operand)
            yield from _wrapped(f"d_{operand} {sign} {formula(back, found.names)}", "      ", "          ")
    if len(found.steps) > LONGEST:
        yield f"  … and {len(found.steps) - LONGEST} further steps"


def _saved_text(program: Program, derivative: Derivative) -> str:
    results = {r.name for r in program.results}
    again = [s for s in derivative.saved if s in results]
    extra = [s for s in derivative.saved if s not in results]
    parts = []
    if again:
        parts.append(f"The backward reads the result {', '.join(again)}, which is there anyway.")
    for name in extra:
        node = next(r.node for r in derivative.forward.results if r.name == name)
        parts.append(
            f"The forward keeps {name} = {formula(node)}, which is dearer to compute again than to read."
        )
    return " ".join(parts) or "Nothing of the forward is kept: the backward computes what it needs again."


def _kernels(title: str, what: Compiled) -> Iterator[str]:
    plan, extents = what.plan, what.extents
    total = costs.totals(plan, extents)
    count = len(plan.kernels)
    share = "" if not total.fewest else f" ({total.moved / total.fewest:.2f} × the fewest possible)"
    yield (
        f"{title}: {count} kernel{'s' * (count != 1)}, {costs.quantity(total.moved, 'B')} moved{share}, "
        f"{costs.quantity(total.operations, 'FLOP')}"
    )
    for kernel in plan.kernels:
        step = what.specialised.get(kernel.name)
        lines = kernel_lines(kernel, step.extents if step else extents, plan.kernels, step)
        yield from _indented("\n".join(lines))


def kernel_lines(
    kernel: Kernel, extents: Mapping[str, int], around: Sequence[Kernel], step: Any = None
) -> Iterator[str]:
    """One kernel in words: loops, formulas of each phase, reasons, costs, and the CPU's step if any."""
    specialised = step and step.compiled
    kernel = kernel if specialised is None else specialised.kernel  # in the form that the extents decided
    read, written = words.operands(kernel)
    yield f"{words.heading(kernel)}: {read} → {written}"
    yield f"  {words.loops(kernel, extents)}"
    if step and step.slices:
        axis, count = step.slices
        yield f"  once for each of {count} slices along {words.axis_label(axis)}; the figures are one's"
    kept = _kept(kernel, specialised)
    for label, lines in words.steps(kernel, kept):
        for number, line in enumerate(lines):
            yield from _wrapped(line, f"    {label if number == 0 else '':<6}", hanging=" " * 14)
    for reason in words.reasons(kernel, extents, around):
        yield from _wrapped(reason, "  why  ", hanging="       ")
    moved, work = costs.bytes_moved(kernel), costs.operations(kernel)
    yield f"  cost {moved} = {costs.quantity(moved.number(extents), 'B')}, " + (
        f"{work} = {costs.quantity(work.number(extents), 'FLOP')}" if work.terms else "no arithmetic"
    )
    if specialised is not None:
        yield from _wrapped(_cpu_text(kernel, specialised, bool(kept)), "  CPU  ", hanging="       ")


def _kept(kernel: Kernel, specialised: Any) -> Mapping[Any, int]:
    """Row values that the CPU keeps between phases instead of computing them again."""
    if specialised is None or specialised.schedule.lane_axis not in kernel.row:
        return {}
    from tilewright.compiler.targets.cpu.rows.keep import kept_nodes

    return kept_nodes(kernel)


PACKED = {  # whether the rows are read where they lie, and the columns
    (False, False): "both factors are packed into panels",
    (True, False): "the factor with vectors is packed, the other read where it lies",
    (False, True): "the factor with vectors is read where it lies, the other packed",
    (True, True): "both factors are read where they lie, nothing is packed",
}


def _cpu_text(kernel: Kernel, specialised: Any, keeps: bool) -> str:
    schedule = specialised.schedule
    if schedule.lane_axis is None:
        return "scalar code: there is no axis to run vectors along"
    axis = words.axis_label(schedule.lane_axis)
    if kernel.contraction:
        from tilewright.compiler.targets.cpu.contractions.walk import Walk

        columns = schedule.block_columns * schedule.lanes
        walk = Walk.of(kernel, schedule, specialised.layout)
        packed = PACKED[walk.direct, walk.inner or walk.in_lines]
        kind = schedule.dot_product
        dot_product = f", products of two {kind} numbers an instruction" if kind else ""
        return (
            f"{packed}; register blocks of {schedule.block_rows} × {columns} results, vectors of "
            f"{schedule.lanes} along {axis}" + dot_product
        )
    parts = [f"vectors of {schedule.lanes} along {axis}, {schedule.unroll} of them a step"]
    if kernel.scatter:
        parts.append("every lane adds to places of its own")
    elif kernel.row and schedule.lane_axis not in kernel.row:
        parts.append("so neighbouring rows lie side by side and every lane reduces its own")
    if keeps:
        parts.append(
            "kept… values stay in the thread's own memory between phases, being dearer to compute than to "
            "load again"
        )
    if getattr(schedule, "stream", False):
        parts.append("results are written past the caches, which they exceed")
    return "; ".join(parts)


def _wrapped(text: str, first: str, hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=hanging if hanging is not None else first,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
