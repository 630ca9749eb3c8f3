"""Values that a kernel writes where they belong, instead of a copy behind it that brings them there.

    t[n, b, p] = …;  y[n, h] = t[n, h // 2, h % 2]        y[n, 2·b + p] = …, where that is below size(h)

The gradient of what has a stride is computed along blocks and phases; its result is written once. What a
last block has beyond the end of the result is not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.compiler.nest import Buffer, Kernel, Plan
from tilewright.compiler.phases import write_phases
from tilewright.dsl.affine import affine, shortest
from tilewright.dsl.bounds import stays_inside
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import At, Const, Index, Map, Node, Read


@dataclass(frozen=True)
class Places:
    """Where a kernel writes a value: the result, and the position along each of its axes."""

    buffer: Buffer
    positions: tuple[Node, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """The axes of the value in the order in which the result has them: a block, and then its phases."""
        forms = ((affine(position), position.axes) for position in self.positions)
        return tuple(
            axis for form, axes in forms for axis in sorted(axes, key=lambda a: -(form.step(a) or 0))
        )


@dataclass(frozen=True)
class _Split:
    """`whole // size + beside` or `whole % size`: a position along blocks, or along phases."""

    whole: Node
    size: int
    beside: Node


def placed(plan: Plan, extents: Mapping[str, int]) -> dict[str, Places]:
    """The intermediates that are only read to be copied to a result, and where each belongs there."""
    between = {buffer.name: buffer for buffer in plan.intermediates}
    readers = Counter(param.name for kernel in plan.kernels for param in kernel.tiles)
    found: dict[str, Places] = {}
    for kernel in plan.kernels:
        node = _copied(kernel)
        source = between.get(node.arg.param) if node and isinstance(node.arg, Read) else None
        buffer = kernel.outputs[0].buffer
        if node is None or source is None or readers[source.name] > 1 or buffer not in plan.results:
            continue
        positions = _positions(node, source, extents)
        if positions is not None and set(positions) == set(buffer.axes):
            found[source.name] = Places(buffer, tuple(positions[axis] for axis in buffer.axes))
    return found


def written_in_place(kernel: Kernel, found: Mapping[str, Places]) -> Kernel:
    """The kernel, writing what it writes to those intermediates to the results that they belong to."""
    if not any(output.buffer.name in found for output in kernel.outputs):
        return kernel
    outputs = []
    for output in kernel.outputs:
        there = found.get(output.buffer.name)
        if there is not None:
            output = replace(output, buffer=there.buffer, places=there.positions)
        outputs.append(output)
    phases = () if kernel.contraction else write_phases(outputs, kernel.row)
    return replace(kernel, outputs=tuple(outputs), phases=phases)


def _copied(kernel: Kernel) -> At | None:
    """What a kernel reads at computed positions, if it does nothing else but write it as it is."""
    if kernel.kind != "pointwise" or kernel.split or len(kernel.outputs) != 1:
        return None
    buffer, node = kernel.outputs[0].buffer, kernel.outputs[0].node
    if not isinstance(node, At) or not isinstance(node.arg, Read) or node.dtype != buffer.dtype:
        return None
    return node if len(set(buffer.axes)) == len(buffer.axes) else None


def _positions(node: At, source: Buffer, extents: Mapping[str, int]) -> dict[str, Node] | None:
    """For each axis of the copy, where along it an element of the source belongs; None if it has no place, or
    some of the copy comes from nowhere.
    """
    assert isinstance(node.arg, Read)
    if not all(stays_inside(node, axis, extents) for axis in node.along):
        return None
    read = dict(zip(node.along, node.positions, strict=True))
    found: dict[str, Node] = {}
    blocks: dict[str, tuple[Node, _Split]] = {}
    phases: dict[str, tuple[Node, _Split]] = {}
    for name, axis in zip(node.arg.names, source.axes, strict=True):
        position = read.get(name) or Index(name)
        if len(position.axes) != 1 or position.axes[0] in found:
            return None
        if isinstance(position, Index):
            found[position.axis] = Index(axis)
            continue
        for function, parts in (("floordiv", blocks), ("mod", phases)):
            split = _split(position, function)
            if split is not None:
                parts[position.axes[0]] = Index(axis), split
    if len(found) + len(blocks) + len(phases) != len(source.axes) or set(blocks) != set(phases) or not blocks:
        return None
    for axis, (block, one) in blocks.items():
        phase, other = phases[axis]
        if axis in found or (one.whole, one.size) != (other.whole, other.size):
            return None
        if affine(one.whole).step(axis) != 1 or affine(other.beside).terms or affine(other.beside).constant:
            return None
        first = Map("mul", (Map("sub", (block, one.beside)), Const(one.size, int64)))
        before = Map("sub", (one.whole, Index(axis)))
        found[axis] = shortest(Map("sub", (Map("add", (first, phase)), before)))
    return found


def _split(position: Node, function: str) -> _Split | None:
    """A position as one quotient, or one remainder, by a constant and what does not depend on any axis."""
    form = affine(position)
    terms = [term for term in form.terms if term.axes]
    if len(terms) != 1 or form.terms[terms[0]] != 1:
        return None
    (term,) = terms
    size = term.operands[1] if isinstance(term, Map) and term.function == function else None
    if not isinstance(term, Map) or not isinstance(size, Const):
        return None
    return _Split(term.operands[0], int(size.value), shortest(Map("sub", (position, term))))
