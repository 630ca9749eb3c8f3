"""Conversions between element kinds."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder.arithmetic import Arithmetic
from tilewright.compiler.targets.cpu.builder.values import STORAGE_FLOATS, Type, Value


class Conversions(Arithmetic):
    """Values as another kind: the same bits, or the nearest number."""

    def bitcast(self, x: Value, kind: str) -> Value:
        """The same bits as another kind of the same width."""
        if x.type.kind == kind:
            return x
        type = x.type.of(kind)
        return self._op(type, f"arith.bitcast {x} : {x.type} to {type}")

    def bitcast_lanes(self, x: Value, type: Type) -> Value:
        """The same bits as a vector of other lanes."""
        return self._op(type, f"vector.bitcast {x} : {x.type} to {type}")

    def convert(self, x: Value, kind: str, signed: bool = True) -> Value:
        """The nearest value of another kind, ties to even; floats truncate to integers.

        A float outside the integer's range gives an unspecified value.
        `signed` speaks of the integer side. Anything to i1 is `!= 0` (NaN is true).
        """
        source, type = x.type, x.type.of(kind)
        if source == type:
            return x
        if kind == "i1":
            return self.cmp("ne", x, 0)
        if source.is_float and type.is_float:
            return self._convert_float(x, type)
        if source.is_float:
            wide = self.convert(x, "f32") if source.kind in STORAGE_FLOATS else x
            op = "arith.fptosi" if signed else "arith.fptoui"
            return self._op(type, f"{op} {wide} : {wide.type} to {type}")
        if type.is_float:
            return self._integer_to_float(x, type, signed)
        if type.bits < source.bits:
            return self._op(type, f"arith.trunci {x} : {source} to {type}")
        op = "arith.extsi" if signed and source.kind != "i1" else "arith.extui"
        return self._op(type, f"{op} {x} : {source} to {type}")

    def _integer_to_float(self, x: Value, type: Type, signed: bool) -> Value:
        op = "arith.sitofp" if signed and x.type.kind != "i1" else "arith.uitofp"
        if type.kind not in STORAGE_FLOATS:
            return self._op(type, f"{op} {x} : {x.type} to {type}")
        # Through a wide float: exact up to 24 bits in f32, else f64 (i64 beyond 2^53 rounds twice).
        wide = type.of("f32" if x.type.bits <= 16 else "f64")
        return self._convert_float(self._op(wide, f"{op} {x} : {x.type} to {wide}"), type)

    def _convert_float(self, x: Value, type: Type) -> Value:
        source, kind = x.type.kind, type.kind
        if source in STORAGE_FLOATS:
            wide = self._widen_half(x)
            return wide if kind == "f32" else self._convert_float(wide, type)
        if source == "f32" and kind == "f64":
            return self._op(type, f"arith.extf {x} : {x.type} to {type}")
        if source == "f64" and kind == "f32":
            return self._op(type, f"arith.truncf {x} : {x.type} to {type}")
        if source == "f64":
            return self._narrow(self._to_odd(x), type)
        return self._narrow(x, type)

    def _widen_half(self, x: Value) -> Value:
        type = x.type.of("f32")
        if x.type.kind == "f16":
            return self._op(type, f"arith.extf {x} : {x.type} to {type}")
        word = self.convert(self.bitcast(x, "i16"), "i32", signed=False)
        return self.bitcast(self.shl(word, 16), "f32")

    def _narrow(self, x: Value, type: Type) -> Value:
        """f32 to f16 by the instruction; to bf16 by integers: the AVX-512 instruction flushes subnormals."""
        if type.kind == "f16":
            return self._op(type, f"arith.truncf {x} : {x.type} to {type}")
        word = self.bitcast(x, "i32")
        odd = self.and_(self.shr(word, 16, signed=False), 1)
        rounded = self.shr(self.add(self.add(word, 0x7FFF), odd), 16, signed=False)
        quiet = self.or_(self.shr(word, 16, signed=False), 0x40)
        chosen = self.select(self.is_nan(x), quiet, rounded)
        return self.bitcast(self.convert(chosen, "i16"), "bf16")

    def _to_odd(self, x: Value) -> Value:
        """f64 to f32 rounded to odd, so that a second rounding to 16 bits is right."""
        near = self.convert(x, "f32")
        back = self.convert(near, "f64")
        word = self.bitcast(near, "i32")
        even = self.cmp("eq", self.and_(word, 1), 0)
        inexact = self.cmp("ne", back, x)
        step = self.select(self.cmp("lt", self.abs(back), self.abs(x)), self.constant(1, word.type), -1)
        moved = self.select(
            self.and_(self.and_(even, inexact), self.not_(self.is_nan(x))), self.add(word, step), word
        )
        return self.bitcast(moved, "f32")
