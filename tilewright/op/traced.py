"""Ops that a function defines: traced once for each combination of dtypes, batch axes and constants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tilewright.dsl.axes import TileSpec
from tilewright.dsl.dtypes import DType, float32, promote
from tilewright.dsl.program import Cast, Node, Param, Program, Read
from tilewright.dsl.program import replace as replace_nodes
from tilewright.dsl.trace import Operand, Signature, TileParameter, inline, read_signature, trace
from tilewright.dsl.units import without_unit_axes
from tilewright.errors import DTypeError
from tilewright.op.binding import Binding, BoundOperand, where
from tilewright.op.direct import DirectOp
from tilewright.op.op import MAX_PROGRAMS, Arguments, Op, constants_key
from tilewright.op.pairs import signature_with_pairs
from tilewright.runtime.recent import Recent


class TracedOp(DirectOp):
    """An op that a user's function defines. Its scalars `given` are operands without axes, the last ones."""

    def __init__(
        self, function: Callable[..., Any], signature: Signature | None = None,
        given: frozenset[str] = frozenset(),
    ):  # fmt: skip
        super().__init__()
        self.signature: Signature = signature or read_signature(function)
        self._on_complex: dict[frozenset[str], TracedOp] = {}
        self._with_operands: dict[frozenset[str], TracedOp] = {}
        self.name = self.signature.name
        self.given = tuple(name for name in self.signature.scalars if name in given)
        numbers = tuple(TileParameter(name, TileSpec((), False), optional=False) for name in self.given)
        self.tiles = self.signature.tiles + numbers
        self.results = self.signature.results or ()
        self.scalars = {n: v for n, v in self.signature.scalars.items() if n not in given}
        self.constants = self.signature.constants
        self.scalar_dtypes = self.signature.scalar_dtypes
        self._programs: Recent[Any, Program] = Recent(MAX_PROGRAMS)
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        key = (binding.key, constants_key(constants))
        found = self._programs.get(key)
        if found is None:
            bound = {name: o for name, o in binding.operands.items() if name not in self.given}
            operands = {
                name: None if o is None else Operand(o.dtype, len(o.batch), o.batch)
                for name, o in bound.items()
            }
            common = _scalar_dtype(bound)
            scalar_dtypes = {**dict.fromkeys(self.signature.scalars, common), **self.scalar_dtypes}
            whole = trace(self.signature, operands, scalar_dtypes, constants)
            given = {n: o.dtype for n in self.given if (o := binding.operands[n]) is not None}
            found = without_unit_axes(self._with_given(whole, given), binding.units)
            self._programs[key] = found
        return found

    def with_pairs(self, names: frozenset[str]) -> Op:
        names &= {t.name for t in self.tiles}
        if names not in self._on_complex:
            signature = signature_with_pairs(self.signature, names)
            self._on_complex[names] = TracedOp(signature.function, signature)
        return self._on_complex[names]

    def with_operands(self, names: frozenset[str]) -> Op:
        if names not in self._with_operands:
            self._with_operands[names] = TracedOp(self.signature.function, self.signature, names)
        return self._with_operands[names]

    def _with_given(self, program: Program, dtypes: Mapping[str, DType]) -> Program:
        """The Program with some of its scalars read from operands of these dtypes, converted to their own."""
        table: dict[Node, Node] = {}
        params = {p.name: p for p in program.params}
        for name, dtype in dtypes.items():
            own = params[name].dtype
            if own.is_integer and dtype.is_float:
                raise DTypeError(
                    f"{where(self.name)}: {name!r} is a whole number of {own.name}, and is given a Tensor of "
                    f"{dtype.name}; convert it, .astype({own.name!r})"
                )
            read = Read(name, (), dtype)
            table[Read(name, (), own)] = read if dtype == own else Cast(read, own)
            del params[name]
            params[name] = Param(name, (), dtype)
        if not table:
            return program
        nodes = [replace_nodes(result.node, table) for result in program.results]
        return replace(program.with_results(nodes), params=tuple(params.values()))

    def inline(self, arguments: Arguments) -> Any:
        return inline(
            self.signature, tuple(arguments.tiles.values()), {**arguments.scalars, **arguments.constants}
        )  # fmt: skip


def _scalar_dtype(operands: Mapping[str, BoundOperand | None]) -> DType:
    """Run-time numbers take the dtype that the op's floating-point operands compute in."""
    result = float32
    for operand in operands.values():
        if operand is not None and operand.dtype.is_float:
            result = promote(result, operand.dtype).compute
    return result


def op(function: Callable[..., Any]) -> TracedOp:
    """Make an op of a function whose operands are annotated `tw.Tile["..."]`.

    Raises `LanguageError` or `AxisError` where the annotations are not an op's.
    """
    return TracedOp(function)
