"""What kernels move and compute, as formulas over axis names and as numbers, and the fewest bytes possible.

A kernel is charged for every operand once and every result once: rows that are walked several times stay in
the cache, and so do the panels of a contraction. Of an operand that is read only where another one says (a
table at ids), what is read counts. The fewest bytes of an op are its operands and its results, each once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tilewright.compiler.chunks import chunk_extent, is_chunk_axis
from tilewright.compiler.nest import Kernel, Plan, evaluated
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import At, Map, Node, Param, Program, Read, Reduce, Scan, topological

Extents = Mapping[str, int]
Terms = Counter[tuple[str, ...]]

# Functions that choose, move or rename a value are no arithmetic.
NO_ARITHMETIC = frozenset(
    {"where", "stop_gradient", "and", "or", "not", "xor", "eq", "ne", "lt", "le", "gt", "ge"}
)


@dataclass(frozen=True)
class Amount:
    """A sum of products of extents: `4·m·k + 4·k·n`."""

    terms: Mapping[tuple[str, ...], int]

    @staticmethod
    def of(parts: Iterable[tuple[int, tuple[str, ...]]]) -> Amount:
        total: Terms = Counter()
        for factor, axes in parts:
            total[tuple(base(a) for a in axes)] += factor
        return Amount(dict(total))

    def number(self, extents: Extents) -> int:
        return sum(factor * math.prod(extents[a] for a in axes) for axes, factor in self.terms.items())

    def __str__(self) -> str:
        shown = [
            "·".join([str(factor)] * (factor != 1 or not axes) + [axis_label(a) for a in axes])
            for axes, factor in self.terms.items()
            if factor
        ]
        return " + ".join(shown) or "0"

    def __add__(self, other: Amount) -> Amount:
        return Amount(dict(Counter(self.terms) + Counter(other.terms)))


def axis_label(axis: str) -> str:
    """An axis as people write it: chunk axes by what they count."""
    if is_chunk_axis(axis):
        kind, over = axis[1:].split(":")
        return (
            f"{'row groups' if kind == 'rows' else 'chunks'} of {' '.join(map(axis_label, over.split(',')))}"
        )
    return axis


def extents_of(plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The extent of every axis of a plan's kernels, chunk axes included, for operands of these shapes."""
    extents = bind_extents(plan.program, {p.name: tuple(shapes[p.name]) for p in plan.program.tiles})
    for kernel in plan.kernels:
        for axis in kernel.axes():
            if is_chunk_axis(axis):
                extents[axis] = chunk_extent(axis, extents)
    return extents


def extents_of_program(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The extent of every axis of a Program for operands of these shapes."""
    return bind_extents(program, {p.name: tuple(shapes[p.name]) for p in program.tiles})


def _tile(axes: tuple[str, ...], dtype: DType) -> tuple[int, tuple[str, ...]]:
    return dtype.itemsize, axes


def bytes_read(kernel: Kernel) -> Amount:
    return Amount.of(_read(kernel.tiles, kernel.leading))


def _read(tiles: Iterable[Param], roots: Iterable[Node]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every operand once; one that is read only where other operands say, as often as it is read."""
    whole: set[str] = set()
    chosen: dict[str, dict[tuple[str, ...], None]] = {}
    for node in evaluated(roots):
        if isinstance(node, Read):
            whole.add(node.param)
        elif isinstance(node, At) and isinstance(node.arg, Read):
            chosen.setdefault(node.arg.param, {})[node.axes] = None
            if not any(isinstance(part, Read) for part in topological(node.positions)):
                whole.add(node.arg.param)
    for param in tiles:
        places = (param.axes,) if param.name in whole else chosen.get(param.name, ())
        yield from (_tile(axes, param.dtype) for axes in places)


def bytes_written(kernel: Kernel) -> Amount:
    return Amount.of(_tile(o.buffer.axes, o.buffer.dtype) for o in kernel.outputs)


def bytes_moved(kernel: Kernel) -> Amount:
    return bytes_read(kernel) + bytes_written(kernel)


def fewest_bytes(program: Program) -> Amount:
    """Every operand, as far as it is read, once, and every result, once."""
    read = _read(program.tiles, (r.node for r in program.results))
    return Amount.of([*read, *(_tile(r.axes, r.dtype) for r in program.results)])


def operations(kernel: Kernel) -> Amount:
    """Arithmetic on floating-point numbers; a product with its sum counts 2, any function of a number 1."""
    parts: list[tuple[int, tuple[str, ...]]] = []
    if kernel.contraction:
        groups = kernel.contraction
        parts.append((2, (*groups.batch, *groups.m, *groups.n, *groups.k)))
    if kernel.scatter:
        axes = dict.fromkeys((*kernel.row, *kernel.parallel))
        parts.append((1, tuple(axes)))
    walked: set[tuple] = set()
    for node in topological([*kernel.roots, *_sides(kernel)]):
        if isinstance(node, Reduce):
            parts.append((1, node.arg.axes))
        elif isinstance(node, Scan) and node.loop not in walked:
            walked.add(node.loop)
            parts.append((sum(map(_is_arithmetic, topological(node.body))), node.axes))
        elif _is_arithmetic(node):
            parts.append((1, node.axes))
    return Amount.of((f, a) for f, a in parts if a)


def _is_arithmetic(node: Node) -> bool:
    return isinstance(node, Map) and node.dtype.is_float and node.function not in NO_ARITHMETIC


def _sides(kernel: Kernel) -> tuple:
    return (kernel.contraction.left, kernel.contraction.right) if kernel.contraction else ()


@dataclass(frozen=True)
class Totals:
    """What a plan costs at some extents."""

    moved: int
    fewest: int
    operations: int


def totals(plan: Plan, extents: Extents) -> Totals:
    return Totals(
        sum(bytes_moved(k).number(extents) for k in plan.kernels),
        fewest_bytes(plan.program).number(extents),
        sum(operations(k).number(extents) for k in plan.kernels),
    )


def quantity(number: float, unit: str) -> str:
    """`12_300_000, "B"` → `"12.3 MB"`; powers of 1000."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 1000 or prefix == "T":
            break
        number /= 1000
    text = f"{number:.0f}" if prefix == "" else f"{number:.3g}" if number < 100 else f"{number:.0f}"
    return f"{text} {prefix}{unit}"


__all__ = [
    "Amount", "Totals", "axis_label", "bytes_moved", "bytes_read", "bytes_written", "extents_of",
    "fewest_bytes", "operations", "quantity", "totals",
]  # fmt: skip
