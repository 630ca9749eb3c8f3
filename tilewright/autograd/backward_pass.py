"""The pass from the results back to the operands: what arrives at each value of the forward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tilewright.autograd.scans import pull_back_scans
from tilewright.autograd.solving import Axes
from tilewright.autograd.transpose import pull_back, sum_over, to_operand
from tilewright.dsl.algebra import Polynomials
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.program import Node, Param, Program, Read, Result, Scan


class BackwardPass:
    """`cotangents` has the cotangent of every value through which one of `targets` acts on a result, where it
    is not zero, as a raw sum of contributions.

    `seeds` pairs each floating result with the param of the cotangent that is given for it.
    """

    def __init__(
        self,
        program: Program,
        targets: Sequence[Param],
        seeds: Sequence[tuple[Result, Param]],
        polynomials: Polynomials,
    ):
        self.program = program
        self.targets = targets
        self.active = _active(program, {p.name for p in targets})
        self.loops = _scans_by_loop(program.nodes())
        self.axes = Axes.of(program)
        self.cotangents = self._run(seeds, polynomials)

    def _run(self, seeds: Sequence[tuple[Result, Param]], polynomials: Polynomials) -> dict[Node, Expr]:
        pending: dict[Node, list[Expr]] = {}
        for result, param in seeds:
            given = cast(Expr(Read(param.name, param.axes, param.dtype)), param.dtype.compute)
            extra = tuple(a for a in result.axes if a not in result.node.axes)
            pending.setdefault(result.node, []).append(sum_over(given, extra))
        found: dict[Node, Expr] = {}
        for node in reversed(self.program.nodes()):
            contributions = pending.pop(node, None)
            if contributions is not None and node in self.active:
                cotangent = _total(contributions)
                if not polynomials.is_zero(cotangent.node):
                    found[node] = cotangent
            for operand, back in self.pulled_back(node, found):
                pending.setdefault(operand, []).append(back)
        return found

    def pulled_back(self, node: Node, arrived: Mapping[Node, Expr]) -> Iterable[tuple[Node, Expr]]:
        """What a node's cotangent, among those that have `arrived`, gives to its operands.

        Scans of one loop give theirs together, at the last of them.
        """
        return [(operand, back) for operand, back in self._given(node, arrived) if operand in self.active]

    def _given(self, node: Node, arrived: Mapping[Node, Expr]) -> Iterable[tuple[Node, Expr]]:
        if isinstance(node, Scan):
            together = self.loops[node.loop]
            there = {s: arrived[s] for s in together if s in arrived}
            return pull_back_scans(there) if node is together[0] else ()
        return pull_back(node, arrived[node], self.axes) if node in arrived else ()

    def gradients(self) -> tuple[Node, ...]:
        """The cotangent of each target: those of its reads, added under its declared axes."""
        parts: dict[str, list[Expr]] = {p.name: [] for p in self.targets}
        declared = {p.name: p for p in self.targets}
        for node, cotangent in self.cotangents.items():
            if isinstance(node, Read):
                parts[node.param].append(to_operand(node, declared[node.param], cotangent))
        return tuple(
            (_total(parts[p.name]) if parts[p.name] else constant(0, p.dtype.compute)).node
            for p in self.targets
        )


def _scans_by_loop(nodes: Iterable[Node]) -> dict[tuple, list[Scan]]:
    loops: dict[tuple, list[Scan]] = {}
    for node in nodes:
        if isinstance(node, Scan):
            loops.setdefault(node.loop, []).append(node)
    return loops


def _active(program: Program, wanted: set[str]) -> set[Node]:
    """The floating nodes through which a result depends on an operand that is asked for."""
    active: set[Node] = set()
    for node in program.nodes():
        if isinstance(node, Read):
            if node.param in wanted:
                active.add(node)
        elif node.dtype.is_float and any(a in active for a in node.args):
            active.add(node)
    return active


def _total(parts: list[Expr]) -> Expr:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
