"""Indexing moves down to the operands, so that what it indexes is computed where it is needed.

    relu(x).at(h=p)                   → where(inside(p), relu(x.at(h=p)), 0)
    Σ_o (g · k).at(oh=h - r)          → Σ_o g.at(oh=h - r) · k        a contraction again

`At` that stays above anything but an operand means: the kernel before writes that value to memory, this
one reads it at its positions. It stays where moving it would repeat work: above a reduction of which each
value is read more than once, above dear functions under a window, and above a product that would be no
contraction then. And above a jump (`dsl.jumps`) on a sum that others look at as well: at the positions it
would be another kernel's, and added up in another order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tilewright.autograd.inversion import reads_once
from tilewright.autograd.solving import Axes
from tilewright.compiler.contraction import recognise
from tilewright.dsl.axes import fresh, union
from tilewright.dsl.jumps import depends_on_order, jumps
from tilewright.dsl.masks import without_mask
from tilewright.dsl.program import (
    At,
    Cast,
    Index,
    Map,
    Node,
    Program,
    Read,
    Reduce,
    indexed,
    masked,
    rewrite,
    within,
)
from tilewright.dsl.renaming import rename

Positions = Mapping[str, Node]

# Functions that are dearer to repeat for every position of a window than to write to memory once.
DEAR = frozenset({
    "exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "lgamma", "digamma", "sigmoid",
    "softplus", "pow", "fmod",
})  # fmt: skip


def sink(program: Program) -> Program:
    """`program` with its indexing as far down as it pays."""
    axes = Axes.of(program)
    uses = Counter(a for node in program.nodes() for a in node.args)
    uses.update(r.node for r in program.results)
    done: dict[Node, Node] = {}
    for node in program.nodes():
        rebuilt = node.with_args(tuple(done[a] for a in node.args)) if node.args else node
        done[node] = _sunk(rebuilt, uses, axes)
        if done[node] is not node:
            uses[done[node]] += uses[node]  # whoever uses a value uses what it has become
    roots = (done[r.node] for r in program.results)
    return program.with_results(rewrite(roots, _merged_sums))


def _sunk(node: Node, uses: Counter[Node], axes: Axes) -> Node:
    if not isinstance(node, At) or isinstance(node.arg, Read) or not _pays(node, uses, axes):
        return node
    positions = dict(zip(node.along, node.positions, strict=True))
    moved = _Substitution(positions).of(node.arg)
    if _loses_a_contraction(node, moved):
        return node
    inside = {axis: p for axis, p in positions.items() if axis in node.arg.axes}
    return moved if _zero_outside(moved, node.arg, positions) else masked(within(inside), moved)


def _loses_a_contraction(node: At, moved: Node) -> bool:
    """Whether the operand is a contraction, and at the positions none, or one of smaller tiles.

    Tiles get smaller where one axis arrives in place of two that tiles run along: the blocks and the phases
    of a strided convolution's gradient.
    """
    before = recognise(_merged_sums(node.arg))
    if before is None:
        return False
    after = recognise(_merged_sums(moved))
    if after is None:
        return True
    arriving = Counter(a for p in node.positions for a in p.axes)
    return len(node.axes) < len(node.arg.axes) and max(arriving.values(), default=0) > 1


def _pays(node: At, uses: Counter[Node], axes: Axes) -> bool:
    """Whether computing the operand at the positions is no more work than computing it everywhere."""
    window = len(node.axes) > len(node.arg.axes) and not reads_once(node, axes)
    stack, seen = [(node.arg, False, False)], set()
    while stack:
        inner, compared, shared = found = stack.pop()
        if found in seen or not set(inner.axes) & set(node.along):
            continue
        seen.add(found)
        shared = shared or (compared and uses[inner] > 1)
        if shared and depends_on_order(inner):
            return False
        if isinstance(inner, Reduce):
            if window or uses[inner] > 1 or not inner.dtype.is_float or inner.combine != "sum":
                return False
        elif isinstance(inner, Map):
            if window and inner.function in DEAR:
                return False
        elif not isinstance(inner, (Read, Index, Cast, At)):
            return False
        below = inner.args if not isinstance(inner, At) else inner.positions
        stack.extend((arg, compared or jumps(inner), shared) for arg in below)
    return True


class _Substitution:
    """A node as a function of its coordinates, at other coordinates."""

    def __init__(self, positions: Positions):
        self.positions = positions
        self.done: dict[Node, Node] = {}

    def of(self, node: Node) -> Node:
        if node not in self.done:
            self.done[node] = self._moved(node)
        return self.done[node]

    def _moved(self, node: Node) -> Node:
        here = {axis: p for axis, p in self.positions.items() if axis in node.axes}
        if not here:
            return node
        match node:
            case Index():
                return here[node.axis]
            case Map() | Cast():
                return node.with_args(tuple(self.of(a) for a in node.args))
            case Reduce():
                return self._reduction(node)
            case At():
                return self._indexing(node)
        return indexed(node, here)

    def _reduction(self, node: Reduce) -> Node:
        arriving = {*self.positions, *union(*(p.axes for p in self.positions.values()))}
        taken = arriving | set(node.arg.axes)
        names = {}
        for axis in node.over:
            if axis in arriving:
                names[axis] = fresh(axis, taken)
                taken.add(names[axis])
        arg = self.of(rename(node.arg, names))
        return Reduce(node.combine, tuple(names.get(a, a) for a in node.over), arg)

    def _indexing(self, node: At) -> Node:
        """x.at(h=p) at new coordinates: p there, and the axes that p left alone as well."""
        free = {a: p for a, p in self.positions.items() if a in node.arg.axes and a not in node.along}
        moved = {a: self.of(p) for a, p in zip(node.along, node.positions, strict=True)}
        return indexed(node.arg, {**free, **moved})


def _zero_outside(moved: Node, before: Node, positions: Positions) -> bool:
    """Whether the moved value is 0 of itself wherever a position is outside."""
    here = set(before.axes) & set(positions)
    if not here:
        return False
    match before, moved:
        case (Read(), At()):
            return True
        case (At(), At()):
            return here <= set(before.arg.axes) - set(before.along)
        case (Cast(), Cast()):
            return _zero_outside(moved.args[0], before.args[0], positions)
        case (Reduce(), Reduce()):
            return before.combine == "sum" and _zero_outside(moved.arg, before.arg, positions)
        case (Map(), Map()) if before.function == "neg":
            return _zero_outside(moved.operands[0], before.operands[0], positions)
        case (Map(), Map()) if before.function == "mul":
            return _product_is_zero_outside(moved, before, positions)
    return False


def _product_is_zero_outside(moved: Map, before: Map, positions: Positions) -> bool:
    """Where those factors are that depend on a position, and each position has one (0 · log 0 is not 0)."""
    depends = [bool(set(o.axes) & set(positions)) for o in before.operands]
    zero = [_zero_outside(m, b, positions) for m, b in zip(moved.operands, before.operands, strict=True)]
    covered = union(*(o.axes for o, z in zip(before.operands, zero, strict=True) if z))
    return set(covered) >= set(positions) and all(z or not d for z, d in zip(zero, depends, strict=True))


def _merged_sums(node: Node) -> Node:
    """Σ_r where(c, Σ_o u, 0) → Σ_ro where(c, u, 0): one contraction."""
    if not isinstance(node, Reduce) or node.combine != "sum" or not node.dtype.is_float:
        return node
    inner, conditions = node.arg, []
    while (under := without_mask(inner)) is not None:
        condition, inner = under
        conditions.append(condition)
    if not isinstance(inner, Reduce) or inner.combine != "sum":
        return node
    taken = {*union(*(c.axes for c in conditions)), *node.arg.axes, *inner.arg.axes}
    names = {}
    for axis in inner.over:
        if axis in node.arg.axes or any(axis in c.axes for c in conditions):
            names[axis] = fresh(axis, taken)
            taken.add(names[axis])
    value = rename(inner.arg, names)
    for condition in reversed(conditions):
        value = masked(condition, value)
    return Reduce("sum", (*node.over, *(names.get(a, a) for a in inner.over)), value)
