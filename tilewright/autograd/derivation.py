"""A derivation as a person follows it: the chain rule, one node of the forward at a time.

`derive.vjp` adds up what goes back to each value and brings the sum into its final form. Here every step
stays as it is: what the gradient that arrives at one value gives to each of its operands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.autograd.backward_pass import BackwardPass
from tilewright.autograd.derive import passed_back
from tilewright.dsl.expression import Expr
from tilewright.dsl.formula import names_of_all
from tilewright.dsl.program import Cast, Node, Program, Read


@dataclass(frozen=True)
class Step:
    """`name` = `node`, and what it gives back to its operands, in terms of the gradient called d_`name`.

    `vanishes`: all that arrives at the node cancels, so that nothing goes back from it.
    """

    name: str
    node: Node
    gives: tuple[tuple[str, Node], ...] = ()
    vanishes: bool = False


@dataclass(frozen=True)
class Derivation:
    """The steps from the results back to the operands, and what they call each node of the forward."""

    names: dict[Node, str]
    steps: tuple[Step, ...]


def derivation(program: Program, wrt: tuple[str, ...] | None = None) -> Derivation:
    """How the gradients of `program`'s operands `wrt` (all floating tiles if omitted) come about."""
    passed = passed_back(program, wrt)
    names = names_of_all(passed.program)
    arriving = {node: _arriving(names[node], node) for node in passed.cotangents}
    return Derivation(names, tuple(_steps(passed, names, arriving)))


def _arriving(name: str, node: Node) -> Expr:
    return Expr(Read(f"d_{name}", node.axes, node.dtype.compute))


def _steps(passed: BackwardPass, names: dict[Node, str], arriving: dict[Node, Expr]) -> Iterator[Step]:
    reached = {r.node for r in passed.program.results}
    for node in reversed(passed.program.nodes()):
        gives = tuple(passed.pulled_back(node, arriving))
        reached.update(operand for operand, _ in gives)
        if node not in reached or isinstance(node, Read):
            continue
        if node not in arriving:
            if node in passed.active:
                yield Step(names[node], node, vanishes=True)
        elif not (isinstance(node, Cast) and names[node] == names[node.arg]):
            yield Step(names[node], node, tuple((names[operand], back.node) for operand, back in gives))
