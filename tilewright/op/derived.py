"""Derivative ops: ops whose Programs are derived from the Programs of another op.

Derivative ops stack: `op.vjp.vjp` takes the operands of `op`, then the cotangents of its results, then
those of the gradients. Each level binds the one below, takes the operands that it adds from those that
are left, and derives.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tilewright.autograd.derivative import Derivative
from tilewright.dsl.axes import PAIR
from tilewright.dsl.axes import base as root_axis
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.expression import constant
from tilewright.dsl.extents import bind_extents, with_extents_of
from tilewright.dsl.program import Cast, Node, Program, Read, rewrite
from tilewright.dsl.program import replace as replace_nodes
from tilewright.dsl.renaming import rename
from tilewright.errors import ArgumentError, DerivativeError, ShapeError
from tilewright.op.binding import as_operand, where
from tilewright.op.derivatives import jvp, vjp
from tilewright.op.op import MAX_PROGRAMS, Arguments, Call, Op
from tilewright.op.seen import Seen
from tilewright.runtime.recent import Recent

Extra = tuple[tuple[str, tuple[str, ...]], ...]


class DerivedOp(Op):
    """An op over the operands of `of` and further ones (cotangents or tangents) that the derivative adds."""

    suffix: str
    direct = False

    def __init__(self, of: Op):
        super().__init__()
        self.of = of
        self.root: Op = of.root if isinstance(of, DerivedOp) else of
        self.name = f"{of.name}.{self.suffix}"
        self.scalars = of.scalars
        self.constants = of.constants
        self.tiles = self.root.tiles
        self._derived: Recent[Program, Program] = Recent(MAX_PROGRAMS)
        self._on_complex: dict[frozenset[str], Op] = {}

    @abstractmethod
    def derive(self, program: Program) -> Program:
        """The derivative's Program, from the op's."""

    def extra(self, program: Program) -> Extra:
        """Names and axes of the operands that the derivative adds, from the op's Program."""
        return ()

    def like(self, program: Program) -> dict[str, str]:
        """The operands and results of the derivative that have the shape of an operand of the op."""
        return {}

    def like_results(self, program: Program) -> dict[str, str]:
        """The operands and results of the derivative that have the shape of a result of the op."""
        return {}

    def with_pairs(self, names: frozenset[str]) -> Op:
        if names not in self._on_complex:
            self._on_complex[names] = type(self)(self.of.with_pairs(names))
        return self._on_complex[names]

    def arguments(self, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
        """The operands of the op first, the others by position after them or by name."""
        count = len(self.tiles)
        known = {t.name for t in self.tiles} | set(self.scalars) | set(self.constants)
        named = {n: v for n, v in keywords.items() if n not in known}
        base = self.root.arguments(tiles[:count], {n: v for n, v in keywords.items() if n in known})
        extra = {f"#{position}": value for position, value in enumerate(tiles[count:])}
        return Arguments({**base.tiles, **extra, **named}, base.scalars, base.constants)

    def _bind(self, arguments: Arguments, further: dict[str, Any]) -> Call:
        """This level's call; what it takes from `further` is removed there."""
        base = self.of._bind(arguments, further)
        extents = bind_extents(base.program, {p.name: base.arrays[p.name].shape for p in base.program.tiles})
        of_base = without_empty_axes(base.program, extents)
        known = self._known(base, of_base, extents)
        arrays, given, owners = dict(base.arrays), dict(base.given), dict(base.owners)
        for name, axes in self.extra(of_base):
            key = self._take(name, further)
            shape = tuple(extents[a] for a in axes)
            arrays[name] = self._shaped(name, further.pop(key), known[name], shape)
            given[name], owners[name] = known[name], key
        program = self._derived.get(of_base)
        if program is None:
            program = self._derived[of_base] = self.derive(of_base)
        views = {p.name: arrays[p.name].astype(p.dtype.numpy, copy=False) for p in program.tiles}
        decided = {r.name: known[r.name] for r in program.results}
        return Call(program, views, base.scalars, base.binding, given, owners, decided)

    def _known(self, base: Call, program: Program, extents: Mapping[str, int]) -> dict[str, Seen]:
        """What the derivative adds as the user has it: like the operand or result that it belongs to."""
        results = {
            r.name: base.seen(n, tuple(extents[root_axis(a)] for a in r.axes))
            for n, r in enumerate(base.program.results)
        }
        likes = {name: base.given[operand] for name, operand in self.like(program).items()}
        return likes | {name: results[result] for name, result in self.like_results(program).items()}

    def _take(self, name: str, further: Mapping[str, Any]) -> str:
        """The argument that is the operand `name`: the one of that name, else the next by position."""
        key = name if name in further else next((n for n in further if n.startswith("#")), None)
        if key is None or further[key] is None:
            raise ArgumentError(
                f"{where(self.name)} needs the operand {name!r}, with the axes of what it belongs to"
            )
        return key

    def _shaped(self, name: str, value: Any, seen: Seen, shape: tuple[int, ...]) -> np.ndarray:
        array = as_operand(value, name, self.name)
        try:
            array = np.broadcast_to(array, seen.shape) if array.shape != seen.shape else array
        except ValueError:
            raise ShapeError(
                f"{where(self.name)}: {name} has shape {array.shape}, but {seen.shape} is needed"
            ) from None
        front = seen.to_front(array)
        return front if front.shape == shape else front.reshape(shape)


def without_saved(derivative: Derivative) -> Program:
    """The backward as a Program of the operands and cotangents alone: saved values are computed again.

    What was narrowed to be saved and is widened to be used is neither.
    """
    forward = {r.name: r for r in derivative.forward.results}
    saved = set(derivative.saved)
    backward = derivative.backward
    table: dict[Node, Node] = {}
    for node in backward.nodes():
        read = node.arg if isinstance(node, Cast) else node
        if not isinstance(read, Read) or read.param not in saved:
            continue
        result = forward[read.param]
        value = result.node
        if node is not read:
            wide = isinstance(value, Cast) and value.arg.dtype == node.dtype
            value = value.args[0] if wide else Cast(value, node.dtype)
        table[node] = rename(value, dict(zip(result.axes, read.names, strict=True)))
    nodes = tuple(replace_nodes(r.node, table) for r in backward.results)
    given = {p.name: p for p in (*derivative.forward.params, *backward.params) if p.name not in saved}
    whole = replace(backward.with_results(nodes), params=tuple(given.values()))
    return with_extents_of(derivative.forward, whole)


class GradOp(DerivedOp):
    """operands ↦ gradients of the sum of the results."""

    suffix = "grad"

    def derive(self, program: Program) -> Program:
        if any(PAIR in r.axes for r in program.results):
            raise DerivativeError(
                f"{where(self.name)}: a gradient is that of a real result; take tw.real, tw.imag or tw.abs "
                f"of it, or {self.of.name}.vjp with a complex cotangent"
            )
        derivative = vjp(program)
        cotangents = {name for _, name in derivative.cotangents}

        def one(node: Any) -> Any:
            is_cotangent = isinstance(node, Read) and node.param in cotangents
            return constant(1, node.dtype).node if is_cotangent else node

        closed = without_saved(derivative)
        nodes = rewrite((r.node for r in closed.results), one)
        params = tuple(p for p in closed.params if p.name not in cotangents)
        return replace(closed.with_results(nodes), name=f"{program.name}_grad", params=params)

    def like(self, program: Program) -> dict[str, str]:
        return {gradient: operand for operand, gradient in vjp(program).gradients}


class VjpOp(DerivedOp):
    """(operands, cotangents of the results) ↦ gradients of the floating-point operands."""

    suffix = "vjp"

    def derive(self, program: Program) -> Program:
        return without_saved(vjp(program))

    def extra(self, program: Program) -> Extra:
        axes = {r.name: r.axes for r in program.results}
        return tuple((name, axes[result]) for result, name in vjp(program).cotangents)

    def like_results(self, program: Program) -> dict[str, str]:
        return {cotangent: result for result, cotangent in vjp(program).cotangents}

    def like(self, program: Program) -> dict[str, str]:
        return {gradient: operand for operand, gradient in vjp(program).gradients}


class JvpOp(DerivedOp):
    """(operands, tangents of the floating-point operands) ↦ tangents of the results."""

    suffix = "jvp"

    def derive(self, program: Program) -> Program:
        return jvp(program)

    def extra(self, program: Program) -> Extra:
        axes = {p.name: p.axes for p in program.tiles}
        return tuple((tangent, axes[operand]) for tangent, operand in self.like(program).items())

    def like(self, program: Program) -> dict[str, str]:
        from tilewright.autograd.derive import tangent_names

        return {tangent: operand for operand, tangent in tangent_names(program).items()}

    def like_results(self, program: Program) -> dict[str, str]:
        floats = (r for r in program.results if r.dtype.is_float)
        return {tangent.name: r.name for r, tangent in zip(floats, jvp(program).results, strict=True)}
