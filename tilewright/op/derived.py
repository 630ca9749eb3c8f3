"""Derivative ops: ops whose Programs are derived from the Programs of another op."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tilewright.autograd.derive import Derivative, jvp
from tilewright.autograd.derive import vjp as derive_vjp
from tilewright.dsl.axes import is_batch_axis
from tilewright.dsl.expression import constant
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program, Read, rename, rewrite
from tilewright.errors import ArgumentError, ShapeError
from tilewright.op.binding import Binding, BoundOperand, where
from tilewright.op.op import Arguments, Call, Op, constants_key

vjp = functools.lru_cache(maxsize=512)(derive_vjp)


class DerivedOp(Op):
    """An op over the operands of `of` and further ones (cotangents or tangents) that the derivative adds."""

    suffix: str

    def __init__(self, of: Op):
        super().__init__()
        self.of = of
        self.name = f"{of.name}.{self.suffix}"
        self.scalars = of.scalars
        self.constants = of.constants
        self.tiles = of.tiles

    @abstractmethod
    def derive(self, program: Program) -> Program:
        """The derivative's Program, from the op's."""

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        key = (binding.key, constants_key(constants))
        found = self._specialised.programs.get(key)
        if found is None:
            base = self.of.program(self._base_binding(binding), constants)
            found = self._specialised.programs[key] = self.derive(base)
        return found

    def _base_binding(self, binding: Binding) -> Binding:
        names = {t.name for t in self.of.tiles}
        return Binding({n: o for n, o in binding.operands.items() if n in names}, binding.groups)


def without_saved(derivative: Derivative) -> Program:
    """The backward as a Program of the operands and cotangents alone: saved values are computed again."""
    forward = {r.name: r for r in derivative.forward.results}
    saved = set(derivative.saved)

    def again(node: Any) -> Any:
        if not isinstance(node, Read) or node.param not in saved:
            return node
        result = forward[node.param]
        return rename(result.node, dict(zip(result.axes, node.names, strict=True)))

    backward = derivative.backward
    nodes = rewrite((r.node for r in backward.results), again)
    given = {p.name: p for p in (*derivative.forward.params, *backward.params) if p.name not in saved}
    return Program(backward.name, tuple(given.values()), backward.with_results(nodes).results)


class GradOp(DerivedOp):
    """operands ↦ gradients of the sum of the results."""

    suffix = "grad"

    def bind(self, arguments: Arguments) -> Call:
        call = super().bind(arguments)
        operands = {n: np.shape(v) for n, v in arguments.tiles.items() if v is not None}
        base = self.of.program(self._base_binding(call.binding), arguments.constants)
        gradients = vjp(base).gradients
        return replace(call, shapes={result: operands[operand] for operand, result in gradients})

    def derive(self, program: Program) -> Program:
        derivative = vjp(program)
        cotangents = {name for _, name in derivative.cotangents}

        def one(node: Any) -> Any:
            is_cotangent = isinstance(node, Read) and node.param in cotangents
            return constant(1, node.dtype).node if is_cotangent else node

        closed = without_saved(derivative)
        nodes = rewrite((r.node for r in closed.results), one)
        params = tuple(p for p in closed.params if p.name not in cotangents)
        return Program(f"{program.name}_grad", params, closed.with_results(nodes).results)


class ExtendedOp(DerivedOp):
    """A derivative that takes one more operand for each floating result or operand."""

    def arguments(self, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
        """The operands of the op first, the others by position after them or by name."""
        count = len(self.of.tiles)
        known = {t.name for t in self.of.tiles} | set(self.scalars) | set(self.constants)
        named = {n: v for n, v in keywords.items() if n not in known}
        base = self.of.arguments(tiles[:count], {n: v for n, v in keywords.items() if n in known})
        extra = {f"#{position}": value for position, value in enumerate(tiles[count:])}
        return Arguments({**base.tiles, **extra, **named}, base.scalars, base.constants)

    @abstractmethod
    def extra(self, program: Program) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Names and axes of the operands that the derivative adds, from the op's Program."""

    def like(self, program: Program) -> dict[str, str]:
        """The operands or results of the derivative that have the shape of an operand of the op."""
        return {}

    def bind(self, arguments: Arguments) -> Call:
        names = {t.name for t in self.of.tiles}
        base_arguments = Arguments(
            {n: v for n, v in arguments.tiles.items() if n in names}, arguments.scalars, arguments.constants
        )
        call = self.of.bind(base_arguments)
        expected = self.extra(call.program)
        given = self._match(arguments, names, expected)
        extents = bind_extents(call.program, {p.name: call.arrays[p.name].shape for p in call.program.tiles})
        operands = dict(call.binding.operands)
        arrays = dict(call.arrays)
        like = self.like(call.program)
        for (name, axes), array in zip(expected, given, strict=True):
            shape = tuple(extents[a] for a in axes)
            operand = base_arguments.tiles.get(like.get(name, ""))
            user = call.binding.user_shape(axes, shape) if operand is None else np.shape(operand)
            arrays[name] = self._shaped(name, array, user, shape)
            dtype = as_dtype_of(arrays[name])
            operands[name] = BoundOperand(dtype, tuple(a for a in axes if is_batch_axis(a)), shape)
        binding = Binding(operands, call.binding.groups)
        program = self.program(binding, arguments.constants)
        views = {p.name: arrays[p.name].astype(p.dtype.numpy, copy=False) for p in program.tiles}
        shapes = {
            result: np.shape(base_arguments.tiles[operand])
            for result, operand in like.items()
            if operand in names
        }
        return Call(program, views, call.scalars, binding, shapes)

    def _match(self, arguments: Arguments, names: set[str], expected: Any) -> list[Any]:
        wanted = [name for name, _ in expected]
        given: dict[str, Any] = {}
        for name, value in arguments.tiles.items():
            if name.startswith("#"):
                position = int(name[1:])
                if position >= len(wanted):
                    raise ArgumentError(
                        f"{where(self.name)} takes {', '.join(wanted)} after the op's own operands"
                    )
                given[wanted[position]] = value
            elif name not in names:
                given[name] = value
        for name in wanted:
            if given.get(name) is None:
                raise ArgumentError(
                    f"{where(self.name)} needs the operand {name!r}, with the axes of what it belongs to"
                )
        unknown = sorted(set(given) - set(wanted))
        if unknown:
            raise ArgumentError(
                f"{where(self.name)} has no argument {unknown[0]!r}; it takes {', '.join(wanted)}"
            )
        return [given[name] for name in wanted]

    def _shaped(self, name: str, value: Any, user: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
        from tilewright.op.binding import as_operand

        array = as_operand(value, name, self.name)
        try:
            array = np.broadcast_to(array, user) if array.shape != user else array
        except ValueError:
            raise ShapeError(
                f"{where(self.name)}: {name} has shape {array.shape}, but {user} is needed"
            ) from None
        return array if user == shape else array.reshape(shape)


def as_dtype_of(array: np.ndarray) -> Any:
    from tilewright.dsl.dtypes import as_dtype

    return as_dtype(array.dtype)


class VjpOp(ExtendedOp):
    """(operands, cotangents of the results) ↦ gradients of the floating-point operands."""

    suffix = "vjp"

    def derive(self, program: Program) -> Program:
        return without_saved(vjp(program))

    def extra(self, program: Program) -> tuple[tuple[str, tuple[str, ...]], ...]:
        axes = {r.name: r.axes for r in program.results}
        return tuple((name, axes[result]) for result, name in vjp(program).cotangents)

    def like(self, program: Program) -> dict[str, str]:
        return {gradient: operand for operand, gradient in vjp(program).gradients}


class JvpOp(ExtendedOp):
    """(operands, tangents of the floating-point operands) ↦ tangents of the results."""

    suffix = "jvp"

    def derive(self, program: Program) -> Program:
        return jvp(program)

    def extra(self, program: Program) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((f"t_{p.name}", p.axes) for p in program.tiles if p.dtype.is_float)

    def like(self, program: Program) -> dict[str, str]:
        return {f"t_{p.name}": p.name for p in program.tiles if p.dtype.is_float}
