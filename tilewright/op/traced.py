"""Ops that a function defines: traced once for each combination of dtypes, batch axes and constants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tilewright.dsl.dtypes import DType, float32, promote
from tilewright.dsl.program import Program
from tilewright.dsl.trace import Operand, Signature, inline, read_signature, trace
from tilewright.dsl.units import without_unit_axes
from tilewright.op.binding import Binding
from tilewright.op.direct import DirectOp
from tilewright.op.op import MAX_PROGRAMS, Arguments, Op, constants_key
from tilewright.op.pairs import signature_with_pairs
from tilewright.runtime.recent import Recent


class TracedOp(DirectOp):
    """An op that a user's function defines."""

    def __init__(self, function: Callable[..., Any], signature: Signature | None = None):
        super().__init__()
        self.signature: Signature = signature or read_signature(function)
        self._on_complex: dict[frozenset[str], TracedOp] = {}
        self.name = self.signature.name
        self.tiles = self.signature.tiles
        self.results = self.signature.results or ()
        self.scalars = self.signature.scalars
        self.constants = self.signature.constants
        self.scalar_dtypes = self.signature.scalar_dtypes
        self._programs: Recent[Any, Program] = Recent(MAX_PROGRAMS)
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        key = (binding.key, constants_key(constants))
        found = self._programs.get(key)
        if found is None:
            operands = {
                name: None if o is None else Operand(o.dtype, len(o.batch), o.batch)
                for name, o in binding.operands.items()
            }
            scalar_dtypes = {**dict.fromkeys(self.scalars, _scalar_dtype(binding)), **self.scalar_dtypes}
            whole = trace(self.signature, operands, scalar_dtypes, constants)
            found = without_unit_axes(whole, binding.units)
            self._programs[key] = found
        return found

    def with_pairs(self, names: frozenset[str]) -> Op:
        names &= {t.name for t in self.tiles}
        if names not in self._on_complex:
            signature = signature_with_pairs(self.signature, names)
            self._on_complex[names] = TracedOp(signature.function, signature)
        return self._on_complex[names]

    def inline(self, arguments: Arguments) -> Any:
        return inline(
            self.signature, tuple(arguments.tiles.values()), {**arguments.scalars, **arguments.constants}
        )  # fmt: skip


def _scalar_dtype(binding: Binding) -> DType:
    """Run-time numbers take the dtype that the op's floating-point operands compute in."""
    result = float32
    for operand in binding.operands.values():
        if operand is not None and operand.dtype.is_float:
            result = promote(result, operand.dtype).compute
    return result


def op(function: Callable[..., Any]) -> TracedOp:
    """Make an op of a function whose operands are annotated `tw.Tile["..."]`.

    Raises `LanguageError` or `AxisError` where the annotations are not an op's.
    """
    return TracedOp(function)
