"""Arithmetic, comparisons, logic: operations of one element kind."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder.text import Text
from tilewright.compiler.targets.cpu.builder.values import I1, Operand, Type, Value
from tilewright.errors import InternalError

COMPARE_NAMES = ("eq", "ne", "lt", "le", "gt", "ge")


class Arithmetic(Text):
    """Two numbers to one, and one to one."""

    def _binary(self, a: Operand, b: Operand, float_op: str, int_op: str) -> Value:
        x, y = self.same(a, b)
        op = float_op if x.type.is_float else int_op
        if not op:
            raise InternalError(f"the operation {float_op or int_op} has no meaning for {x.type}")
        return self._pure(x.type, f"{op} {x}, {y} : {x.type}")

    def add(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "arith.addf", "arith.addi")

    def sub(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "arith.subf", "arith.subi")

    def mul(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "arith.mulf", "arith.muli")

    def div(self, a: Operand, b: Operand, signed: bool = True) -> Value:
        """Quotient; integers truncate towards zero and the divisor must not be zero."""
        return self._binary(a, b, "arith.divf", "arith.divsi" if signed else "arith.divui")

    def rem(self, a: Operand, b: Operand, signed: bool = True) -> Value:
        """Integer remainder with the dividend's sign (for floats see vector_math.fmod)."""
        return self._binary(a, b, "", "arith.remsi" if signed else "arith.remui")

    def neg(self, x: Value) -> Value:
        if x.type.is_float:
            return self._pure(x.type, f"arith.negf {x} : {x.type}")
        return self.sub(0, x)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a * b + c with one rounding."""
        x, y, z = self.same(a, b, c)
        return self._pure(x.type, f"math.fma {x}, {y}, {z} : {x.type}")

    def maximum(self, a: Operand, b: Operand, signed: bool = True, zeros: bool = True) -> Value:
        """The larger; NaN if either is NaN; +0 over -0 (`zeros=False`: either, cheaper on x86)."""
        return self._extremum("max", a, b, signed, zeros)

    def minimum(self, a: Operand, b: Operand, signed: bool = True, zeros: bool = True) -> Value:
        """The smaller; NaN if either is NaN; -0 under +0 (`zeros=False`: either, cheaper on x86)."""
        return self._extremum("min", a, b, signed, zeros)

    def _extremum(self, which: str, a: Operand, b: Operand, signed: bool, zeros: bool) -> Value:
        x, y = self.same(a, b)
        if x.type.is_float and not zeros and self.target.is_x86:
            plain = self.select(self.cmp("gt" if which == "max" else "lt", x, y), x, y)  # y where unordered
            return self.select(self.is_nan(x), x, plain)
        return self._binary(x, y, f"arith.{which}imumf", f"arith.{which}{'s' if signed else 'u'}i")

    def max_number(self, a: Operand, b: Operand) -> Value:
        """IEEE maximumNumber: the other operand where one is NaN."""
        return self._binary(a, b, "arith.maxnumf", "arith.maxsi")

    def min_number(self, a: Operand, b: Operand) -> Value:
        """IEEE minimumNumber: the other operand where one is NaN."""
        return self._binary(a, b, "arith.minnumf", "arith.minsi")

    def max_second(self, a: Operand, b: Operand) -> Value:
        """a > b ? a : b, one instruction on x86: gives `b` where either is NaN."""
        x, y = self.same(a, b)
        return self.select(self.cmp("gt", x, y), x, y)

    def min_second(self, a: Operand, b: Operand) -> Value:
        """a < b ? a : b, one instruction on x86: gives `b` where either is NaN."""
        x, y = self.same(a, b)
        return self.select(self.cmp("lt", x, y), x, y)

    # --- logic ------------------------------------------------------------------------------------

    def cmp(self, op: str, a: Operand, b: Operand, signed: bool = True, unordered: bool = False) -> Value:
        """eq ne lt le gt ge. With a NaN a float comparison is false (`ne`: true), or true if `unordered`."""
        if op not in COMPARE_NAMES:
            raise InternalError(f"unknown comparison {op!r}")
        x, y = self.same(a, b)
        result = x.type.of("i1")
        if x.type.kind == "ptr":
            return self._pure(result, f'llvm.icmp "{op}" {x}, {y} : {x.type}')
        if x.type.is_float:
            prefix = "u" if unordered or op == "ne" else "o"
            return self._pure(result, f"arith.cmpf {prefix}{op}, {x}, {y} : {x.type}")
        prefix = "" if op in ("eq", "ne") else "s" if signed else "u"
        return self._pure(result, f"arith.cmpi {prefix}{op}, {x}, {y} : {x.type}")

    def is_nan(self, x: Value) -> Value:
        return self._pure(x.type.of("i1"), f"arith.cmpf uno, {x}, {x} : {x.type}")

    def any(self, mask: Value) -> Value:
        """Whether the mask holds in any lane, as one i1."""
        if not mask.lanes:
            return mask
        word = f"i{mask.lanes}"
        packed = self._pure(Type(word), f"llvm.bitcast {mask} : {mask.type} to {word}")
        zero = self._pure(packed.type, f"llvm.mlir.constant(0 : {word}) : {word}")
        return self._pure(I1, f'llvm.icmp "ne" {packed}, {zero} : {word}')

    def all(self, mask: Value) -> Value:
        """Whether the mask holds in every lane, as one i1."""
        return self.not_(self.any(self.not_(mask)))

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        """`a` where the condition holds, `b` elsewhere; a scalar condition may choose between vectors."""
        x, y = self.same(a, b)
        if condition.lanes and not x.lanes:
            x, y = self.splat(x, condition.lanes), self.splat(y, condition.lanes)
        types = f"{condition.type}, {x.type}" if condition.lanes or x.lanes else f"{x.type}"
        return self._pure(x.type, f"arith.select {condition}, {x}, {y} : {types}")

    def and_(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "", "arith.andi")

    def or_(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "", "arith.ori")

    def xor(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "", "arith.xori")

    def not_(self, x: Value) -> Value:
        return self.xor(x, True if x.type.kind == "i1" else -1)

    def shl(self, a: Operand, b: Operand) -> Value:
        return self._binary(a, b, "", "arith.shli")

    def shr(self, a: Operand, b: Operand, signed: bool) -> Value:
        """Shift right, filling with the sign or with zeros."""
        return self._binary(a, b, "", "arith.shrsi" if signed else "arith.shrui")

    # --- operations of one instruction ------------------------------------------------------------

    def _math(self, name: str, x: Value) -> Value:
        return self._pure(x.type, f"math.{name} {x} : {x.type}")

    def sqrt(self, x: Value) -> Value:
        return self._math("sqrt", x)

    def floor(self, x: Value) -> Value:
        return self._math("floor", x)

    def ceil(self, x: Value) -> Value:
        return self._math("ceil", x)

    def trunc(self, x: Value) -> Value:
        return self._math("trunc", x)

    def round_even(self, x: Value) -> Value:
        return self._math("roundeven", x)

    def abs(self, x: Value) -> Value:
        """Magnitude; the smallest integer stays itself."""
        return self._math("absf" if x.type.is_float else "absi", x)

    def copysign(self, magnitude: Operand, sign: Operand) -> Value:
        x, y = self.same(magnitude, sign)
        return self._pure(x.type, f"math.copysign {x}, {y} : {x.type}")
