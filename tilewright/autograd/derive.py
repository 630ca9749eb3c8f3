"""The derivative generator: a Program's vector-Jacobian and Jacobian-vector products, as Programs.

    y = f(x)      vjp: forward   x ↦ y, saved        backward   x, y, saved, d_y ↦ d_x = d_y · ∂f/∂x
                  jvp:           x, t_x ↦ t_y = ∂f/∂x · t_x

Derivatives are Programs, so they can be differentiated again, to any order. Both passes visit each node once;
what they write is then brought into the form that a person would write (`dsl.algebra`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilewright.autograd.backward_pass import BackwardPass
from tilewright.autograd.derivative import Derivative
from tilewright.autograd.operands import close, declared_axes, fresh_name
from tilewright.autograd.residuals import Saved, Write, as_results, choose, log_sums, without_marks
from tilewright.autograd.scans import push_forward_scan
from tilewright.autograd.transpose import push_forward
from tilewright.dsl.algebra import Collector, Emitter, Polynomials, Recogniser, collect
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.location import users_line
from tilewright.dsl.program import Node, Param, Program, Read, Result, Scan, topological
from tilewright.errors import DerivativeError


def vjp(program: Program, wrt: tuple[str, ...] | None = None) -> Derivative:
    """The backward of `program` for the operands `wrt` (all floating tiles if omitted)."""
    program, marks = without_marks(program)
    targets = _targets(program, wrt)
    taken = {p.name for p in program.params} | {r.name for r in program.results}
    polynomials = Polynomials(declared_axes(program))
    seeds = _seeds(program, taken)
    passed = BackwardPass(program, targets, seeds, polynomials)
    raw = passed.gradients()
    choice = choose(program, _emission(program, raw, polynomials), lambda text: _numbered(text, taken), marks)
    results = tuple(
        Result(fresh_name(f"d_{p.name}", taken), cast(Expr(node), p.dtype).node, p.axes)
        for p, node in zip(targets, choice.gradients, strict=True)
    )
    params = _distinct((*program.params, *(s.param for s in choice.saved), *(p for _, p in seeds)))
    keep = {p.name for _, p in seeds}
    forward = replace(program, results=(*program.results, *as_results(choice.saved, program)))
    return Derivative(
        forward,
        close(passed.axes.added_to(program), f"{program.name}_backward", params, keep, results),
        tuple(dict.fromkeys(s.param.name for s in choice.saved)),
        tuple((r.name, p.name) for r, p in seeds),
        tuple((p.name, r.name) for p, r in zip(targets, results, strict=True)),
    )


def jvp(program: Program, wrt: tuple[str, ...] | None = None) -> Program:
    """The tangents of `program`'s floating results for tangents `t_<param>` of the operands `wrt`."""
    targets = _targets(program, wrt)
    outputs = _floating_results(program)
    names = tangent_names(program, wrt)
    taken = {p.name for p in program.params} | set(names.values())
    tangents = tuple(Param(names[p.name], p.axes, p.dtype) for p in targets)
    polynomials = Polynomials(declared_axes(program))
    matters = BackwardPass(program, targets, _seeds(program, taken), polynomials).cotangents
    pushed = _forward_pass(program, {p.name: t for p, t in zip(targets, tangents, strict=True)}, set(matters))
    raw = tuple(
        pushed[r.node].node if r.node in pushed else constant(0, r.dtype.compute).node for r in outputs
    )
    results = tuple(
        Result(fresh_name(f"t_{r.name}", taken), cast(Expr(node), r.dtype).node, r.axes)
        for r, node in zip(outputs, collect(raw, program.nodes(), polynomials), strict=True)
    )
    keep = {p.name for p in tangents}
    return close(program, f"{program.name}_jvp", (*program.params, *tangents), keep, results)


def passed_back(program: Program, wrt: tuple[str, ...] | None = None) -> BackwardPass:
    """What arrives at each value of `program`; the cotangent that is given for a result y is called d_y."""
    program, _ = without_marks(program)
    targets = _targets(program, wrt)
    taken = {p.name for p in program.params} | {r.name for r in program.results}
    return BackwardPass(program, targets, _seeds(program, taken), Polynomials(declared_axes(program)))


def _seeds(program: Program, taken: set[str]) -> tuple[tuple[Result, Param], ...]:
    """Each floating result with the param of its cotangent, under a name that is not `taken`."""
    outputs = _floating_results(program)
    return tuple((r, Param(fresh_name(f"d_{r.name}", taken), r.axes, r.dtype)) for r in outputs)


def _emission(program: Program, raw: tuple[Node, ...], polynomials: Polynomials) -> Write:
    """Writes the raw gradients in terms of the forward's values."""
    collector = Collector(topological((*(r.node for r in program.results), *log_sums(program))), polynomials)
    forms = [collector.form(node) for node in raw]

    def write(saved: Sequence[Saved]) -> tuple[Node, ...]:
        exact = [s.node for s in saved if not s.narrowed]
        emitter = Emitter(Recogniser(collector, [s.node for s in saved], exact))
        return tuple(emitter.form(form, node.dtype) for form, node in zip(forms, raw, strict=True))

    return write


def _distinct(params: tuple[Param, ...]) -> tuple[Param, ...]:
    return tuple({p.name: p for p in params}.values())


def _numbered(text: str, taken: set[str]) -> str:
    """The first of saved_0, saved_1, … that is new."""
    number = 0
    while text.format(number) in taken:
        number += 1
    taken.add(text.format(number))
    return text.format(number)


def tangent_names(program: Program, wrt: tuple[str, ...] | None = None) -> dict[str, str]:
    """The name of the tangent of each operand in `jvp`: `t_<param>`, with a number where that is taken."""
    taken = {p.name for p in program.params}
    return {p.name: fresh_name(f"t_{p.name}", taken) for p in _targets(program, wrt)}


def _forward_pass(program: Program, tangents: dict[str, Param], matters: set[Node]) -> dict[Node, Expr]:
    """The tangents of the nodes that matter: one with a zero cotangent has no effect on any result."""
    pushed: dict[Node, Expr] = {}
    for node in program.nodes():
        if node not in matters:
            continue
        if isinstance(node, Read):
            if node.param in tangents:
                param = tangents[node.param]
                given = Expr(Read(param.name, node.names, param.dtype))
                pushed[node] = cast(given, param.dtype.compute)
            continue
        tangent = push_forward_scan(node, pushed) if isinstance(node, Scan) else push_forward(node, pushed)
        if tangent is not None:
            pushed[node] = tangent
    return pushed


# --- what may be asked ----------------------------------------------------------------------------------


def _targets(program: Program, wrt: tuple[str, ...] | None) -> tuple[Param, ...]:
    if wrt is None:
        chosen = tuple(p for p in program.tiles if p.dtype.is_float)
        if not chosen:
            raise DerivativeError(
                f"{_op(program)} has no floating-point operand to differentiate by; its operands are "
                f"{_describe(program.params)}; convert one with .astype(float32)"
            )
        return chosen
    known = {p.name: p for p in program.params}
    for name in wrt:
        if name not in known:
            raise DerivativeError(
                f"{_op(program)} has no operand {name!r} to differentiate by; its operands are "
                f"{_describe(program.params)}"
            )
        if not known[name].dtype.is_float:
            raise DerivativeError(
                f"{_op(program)} cannot be differentiated by {name!r}, which is "
                f"{known[name].dtype.name}: integers and bool have no derivative; leave it out of wrt, "
                f"or pass it as float32"
            )
    return tuple(known[name] for name in dict.fromkeys(wrt))


def _floating_results(program: Program) -> tuple[Result, ...]:
    outputs = tuple(r for r in program.results if r.dtype.is_float)
    if not outputs:
        found = ", ".join(f"{r.name}: {r.dtype.name}" for r in program.results)
        raise DerivativeError(
            f"{_op(program)} has no floating-point result to differentiate ({found}); "
            f"return a floating-point value"
        )
    return outputs


def _op(program: Program) -> str:
    """The start of a message: the user's line and the op."""
    line = users_line()
    return f"{line}: op {program.name!r}" if line else f"op {program.name!r}"


def _describe(params: tuple[Param, ...]) -> str:
    return ", ".join(f"{p.name}: {p.dtype.name}" for p in params) or "none"
