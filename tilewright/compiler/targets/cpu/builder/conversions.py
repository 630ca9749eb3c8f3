"""Conversions between element kinds."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder.arithmetic import Arithmetic
from tilewright.compiler.targets.cpu.builder.values import FLOAT8, STORAGE_FLOATS, Type, Value, float_bits
from tilewright.dsl.float8 import E4M3FN_NAN, FORMATS


class Conversions(Arithmetic):
    """Values as another kind: the same bits, or the nearest number."""

    def bitcast(self, x: Value, kind: str) -> Value:
        """The same bits as another kind of the same width."""
        if x.type.kind == kind:
            return x
        type = x.type.of(kind)
        if type.element == x.type.element:
            return Value(x.name, type)
        return self._pure(type, f"arith.bitcast {x} : {x.type} to {type}")

    def bitcast_lanes(self, x: Value, type: Type) -> Value:
        """The same bits as a vector of other lanes."""
        return self._pure(type, f"vector.bitcast {x} : {x.type} to {type}")

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
            return self._pure(type, f"{op} {wide} : {wide.type} to {type}")
        if type.is_float:
            return self._integer_to_float(x, type, signed)
        if type.bits < source.bits:
            return self._pure(type, f"arith.trunci {x} : {source} to {type}")
        op = "arith.extsi" if signed and source.kind != "i1" else "arith.extui"
        return self._pure(type, f"{op} {x} : {source} to {type}")

    def _integer_to_float(self, x: Value, type: Type, signed: bool) -> Value:
        op = "arith.sitofp" if signed and x.type.kind != "i1" else "arith.uitofp"
        if type.kind not in STORAGE_FLOATS:
            return self._pure(type, f"{op} {x} : {x.type} to {type}")
        # Through a wide float: exact up to 24 bits in f32, else f64 (i64 beyond 2^53 rounds twice).
        wide = type.of("f32" if x.type.bits <= 16 else "f64")
        return self._convert_float(self._pure(wide, f"{op} {x} : {x.type} to {wide}"), type)

    def _convert_float(self, x: Value, type: Type) -> Value:
        source, kind = x.type.kind, type.kind
        if source in STORAGE_FLOATS:
            wide = self._widen(x)
            return wide if kind == "f32" else self._convert_float(wide, type)
        if source == "f32" and kind == "f64":
            return self._pure(type, f"arith.extf {x} : {x.type} to {type}")
        if source == "f64" and kind == "f32":
            return self._pure(type, f"arith.truncf {x} : {x.type} to {type}")
        if source == "f64":
            return self._narrow(self._to_odd(x), type)
        return self._narrow(x, type)

    def _widen(self, x: Value) -> Value:
        type = x.type.of("f32")
        if x.type.kind in FLOAT8:
            return self._widen_float8(x)
        if x.type.kind == "f16":
            return self._pure(type, f"arith.extf {x} : {x.type} to {type}")
        word = self.convert(self.bitcast(x, "i16"), "i32", signed=False)
        return self.bitcast(self.shl(word, 16), "f32")

    def _narrow(self, x: Value, type: Type) -> Value:
        """f32 to f16 by the instruction; to bf16 by integers: the AVX-512 instruction flushes subnormals."""
        if type.kind == "f16":
            return self._pure(type, f"arith.truncf {x} : {x.type} to {type}")
        if type.kind in FLOAT8:
            return self._narrow_float8(x, type)
        word = self.bitcast(x, "i32")
        odd = self.and_(self.shr(word, 16, signed=False), 1)
        rounded = self.shr(self.add(self.add(word, 0x7FFF), odd), 16, signed=False)
        quiet = self.or_(self.shr(word, 16, signed=False), 0x40)
        chosen = self.select(self.is_nan(x), quiet, rounded)
        return self.bitcast(self.convert(chosen, "i16"), "bf16")

    def _widen_float8(self, x: Value) -> Value:
        """By way of f16, which has the exponents of e5m2, and those of e4m3fn 8 higher."""
        signed = self.convert(self.bitcast(x, "i8"), "i16")
        if x.type.kind == "f8e5m2":
            return self.convert(self.bitcast(self.shl(signed, 8), "f16"), "f32")
        word = self.and_(self.shl(signed, 7), ~0x4000)
        number = self.mul(self.convert(self.bitcast(word, "f16"), "f32"), 256.0)
        return self.select(self.cmp("eq", self.abs(number), E4M3FN_NAN), float("nan"), number)

    def _narrow_float8(self, x: Value, type: Type) -> Value:
        """f32 to 8 bits. Beyond the largest number is inf in e5m2, and NaN in e4m3fn, which has no inf."""
        form = FORMATS[type.kind]
        word = self.bitcast(x, "i32")
        size = self.and_(word, 0x7FFFFFFF)
        odd = self.and_(self.shr(size, form.shift, signed=False), 1)
        up = self.add(self.add(size, (1 << form.shift - 1) - 1), odd)
        near = self.sub(self.shr(up, form.shift, signed=False), form.rebias)
        raised = self.bitcast(self.add(self.abs(x), form.raising), "i32")
        subnormal = self.sub(raised, float_bits(form.raising, "f32"))
        small = self.cmp("lt", size, float_bits(form.smallest_normal, "f32"))
        found = self.select(small, subnormal, self.minimum(near, form.beyond))
        if form.nan != form.beyond:
            found = self.select(self.is_nan(x), form.nan, found)
        sign = self.and_(self.shr(word, 24, signed=False), 0x80)
        return self.bitcast(self.convert(self.or_(found, sign), "i8"), type.kind)

    def _to_odd(self, x: Value) -> Value:
        """f64 to f32 rounded to odd, so that a second rounding to 8 or 16 bits is right."""
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
