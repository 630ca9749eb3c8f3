"""A small writer of MLIR text: typed values, one operation a line.

    b = Builder(target)                               # target.lanes("f32") says how wide a vector is
    with b.function("scale", args=[("frame", PTR)]) as (frame,):
        x = b.load(frame, PTR)                        # pointers are opaque; offsets are i64 *bytes*
        with b.loop(0, 1024, 16) as loop:             # bounds: int or i64 Value; loop.index is an i64 Value
            at = b.offset(x, b.mul(loop.index, 4))
            b.store(b.mul(b.load(at, F32.vector(16)), 2.0), at)
    text = b.module()                                 # feed to toolchain.compile_object / assembly

A `Value` is a name and a `Type(kind, lanes)`; lanes 0 is a scalar, n is `vector<n x kind>`. Integers are
signless: operations that differ take `signed=`. In every two-operand operation a Python number becomes a
constant of the other operand's type, and a scalar is broadcast against a vector. Nothing is ever contracted:
`fma` is fused, `add(mul(a, b), c)` is not. Constants are gathered, once each, at the head of their function.

    constants    constant(x, type) iota(type) undef(type) splat(v, lanes) bits(int, type)
    arithmetic   add sub mul div rem neg fma
                 minimum maximum (NaN wins, -0 < +0)  min_number max_number (NaN loses)
                 min_second max_second (one instruction)
    logic        cmp(op, a, b) is_nan any select and_ or_ xor not_ shl shr
    conversion   convert(v, kind, signed=) bitcast(v, kind)
    single ops   sqrt floor ceil trunc round_even abs copysign
    memory       offset integer load store load_masked store_masked gather scatter prefetch
                 alloca call intrinsic address_of
    lanes        extract insert shuffle slice concat transpose reduce(op, v)
    control      function loop if_ while_  (context managers; see each)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.errors import InternalError

if TYPE_CHECKING:
    from tilewright.compiler.targets.cpu.toolchain import CpuTarget

FLOAT_BITS = {"f64": 64, "f32": 32, "f16": 16, "bf16": 16}
INTEGER_BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
STORAGE_FLOATS = ("f16", "bf16")  # loaded and stored, never computed in


@dataclass(frozen=True, slots=True)
class Type:
    """An element kind (f64 f32 f16 bf16 i1 i8 i16 i32 i64 ptr) and a number of lanes (0: scalar)."""

    kind: str
    lanes: int = 0

    @property
    def element(self) -> str:
        return "!llvm.ptr" if self.kind == "ptr" else self.kind

    def __str__(self) -> str:
        return f"vector<{self.lanes}x{self.element}>" if self.lanes else self.element

    @property
    def bits(self) -> int:
        """Width of one element."""
        return FLOAT_BITS.get(self.kind) or INTEGER_BITS.get(self.kind) or 64

    @property
    def bytes(self) -> int:
        """Size of one element in memory."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind in FLOAT_BITS

    @property
    def scalar(self) -> Type:
        return Type(self.kind)

    def vector(self, lanes: int) -> Type:
        """The same kind with this many lanes (0: scalar)."""
        return Type(self.kind, lanes)

    def of(self, kind: str) -> Type:
        """The same lanes of another kind."""
        return Type(kind, self.lanes)

    @property
    def integer(self) -> Type:
        """The integer type with the same bits."""
        return Type(f"i{self.bits}", self.lanes)


F64, F32, F16, BF16 = Type("f64"), Type("f32"), Type("f16"), Type("bf16")
I1, I8, I16, I32, I64 = Type("i1"), Type("i8"), Type("i16"), Type("i32"), Type("i64")
PTR = Type("ptr")


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value of the function that is being written."""

    name: str
    type: Type

    def __str__(self) -> str:
        return self.name

    @property
    def lanes(self) -> int:
        return self.type.lanes


Operand = Value | int | float | bool


def float_bits(x: float, kind: str) -> int:
    """The bits of `x` rounded to nearest even in `kind`."""
    if kind == "f64":
        return struct.unpack("<Q", struct.pack("<d", x))[0]
    if kind == "f16":
        try:
            return struct.unpack("<H", struct.pack("<e", x))[0]
        except OverflowError:
            return 0x7C00 if x > 0 else 0xFC00
    try:
        single = struct.unpack("<I", struct.pack("<f", x))[0]
    except OverflowError:
        single = 0x7F800000 if x > 0 else 0xFF800000
    if kind == "f32":
        return single
    if math.isnan(x):
        return single >> 16 | 0x40
    return (single + 0x7FFF + ((single >> 16) & 1)) >> 16


@dataclass
class _Function:
    """Lines of the function in progress; constants and allocas go to its head."""

    header: str
    head: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    constants: dict[str, Value] = field(default_factory=dict)
    returned: bool = False


class Loop:
    """An open `scf.for`: `index`, `carried` inside; `yield_` once, last; `results` after it is closed."""

    def __init__(self, builder: Builder, index: Value, carried: list[Value], results: list[Value]):
        self.builder, self.index, self.carried, self.results = builder, index, carried, results
        self.yielded = False

    def yield_(self, *values: Operand) -> None:
        """The carried values of the next iteration."""
        self.builder._yield(self.results, values)
        self.yielded = True


class Choice:
    """An open `scf.if`: fill the first branch, `otherwise()`, fill the second; each ends in `yield_`."""

    def __init__(self, builder: Builder, results: list[Value]):
        self.builder, self.results = builder, results
        self.has_otherwise = False

    def yield_(self, *values: Operand) -> None:
        """What this branch gives."""
        self.builder._yield(self.results, values)

    def otherwise(self) -> None:
        """Starts the branch that is taken when the condition is false."""
        self.builder._dedent("} else {")
        self.builder._indent()
        self.has_otherwise = True


class While:
    """An open `scf.while`: compute a condition, `go_on_if(condition)`, compute the body, `yield_(*next)`."""

    def __init__(self, builder: Builder, carried: list[Value], inner: list[Value], results: list[Value]):
        self.builder, self.carried, self.inner, self.results = builder, carried, inner, results

    def go_on_if(self, condition: Value) -> list[Value]:
        """Ends the test; returns the carried values as seen by the body."""
        b = self.builder
        b._emit(f"scf.condition({condition}){_typed_list(self.carried)}")
        b._dedent("} do {")
        b._indent()
        if self.inner:
            b._emit(f"^bb0({', '.join(f'{v}: {v.type}' for v in self.inner)}):")
        return self.inner

    def yield_(self, *values: Operand) -> None:
        """The carried values of the next test."""
        self.builder._yield(self.results, values)


def _typed_list(values: Sequence[Value]) -> str:
    if not values:
        return ""
    return f" {', '.join(map(str, values))} : {', '.join(str(v.type) for v in values)}"


ONCE = "#llvm.loop_annotation<unroll = <disable = true>>"
FLOAT_REDUCE = {"add": "add", "mul": "mul", "min": "minimum", "max": "maximum"}
COMPARE_NAMES = ("eq", "ne", "lt", "le", "gt", "ge")


class Builder:
    """Writes one MLIR module; see the module's docstring for the list of operations."""

    def __init__(self, target: CpuTarget):
        self.target = target
        self._functions: list[str] = []
        self._declared: dict[str, str] = {}
        self._defined: set[str] = set()
        self._open: _Function | None = None
        self._depth = 0
        self._counter = 0

    # ---- the text ----------------------------------------

    def module(self) -> str:
        """The text of the whole module."""
        if self._open:
            raise InternalError("the module was asked for while a function is open")
        outside = [text for name, text in self._declared.items() if name not in self._defined]
        return "\n".join(["module {", *self._functions, *outside, "}", ""])

    def comment(self, text: str) -> None:
        """A line for the reader of the generated text."""
        self._emit(f"// {text}")

    @contextmanager
    def function(
        self, name: str, args: Sequence[tuple[str, Type]], result: Type | None = None, private: bool = False
    ) -> Iterator[tuple[Value, ...]]:
        """A function `result name(args...)` of the C ABI; without `result`, falling off the end returns."""
        if self._open:
            raise InternalError(f"function {name!r} was opened inside another")
        values = tuple(Value(f"%{arg}", type) for arg, type in args)
        signature = ", ".join(f"{v}: {v.type}" for v in values)
        linkage = "internal " if private else ""
        gives = f" -> {result}" if result else ""
        header = f"  llvm.func {linkage}@{name}({signature}){gives} attributes {self._attributes()} {{"
        self._open, self._depth, self._counter = _Function(header), 2, 0
        yield values
        if result is None:
            self._emit("llvm.return")
        elif not self._open.returned:
            raise InternalError(f"function {name!r} has a result and no `return_`")
        self._functions.append("\n".join([header, *self._open.head, *self._open.body, "  }"]))
        self._defined.add(name)
        self._open = None

    def return_(self, value: Value) -> None:
        """Returns from a function that has a result; its last operation."""
        self._emit(f"llvm.return {value} : {value.type}")
        self._function.returned = True

    def _attributes(self) -> str:
        pairs = self.target.function_attributes()
        entries = ", ".join(f'["{key}", "{value}"]' if value else f'"{key}"' for key, value in pairs)
        return f"{{passthrough = [{entries}]}}"

    @property
    def _function(self) -> _Function:
        if not self._open:
            raise InternalError("an operation was written outside a function")
        return self._open

    def _emit(self, line: str) -> None:
        self._function.body.append("  " * self._depth + line)

    def _indent(self) -> None:
        self._depth += 1

    def _dedent(self, line: str) -> None:
        self._depth -= 1
        self._emit(line)

    def _fresh(self, type: Type, stem: str = "v") -> Value:
        self._counter += 1
        return Value(f"%{stem}{self._counter}", type)

    def _op(self, type: Type, text: str) -> Value:
        value = self._fresh(type)
        self._emit(f"{value} = {text}")
        return value

    def _yield(self, results: Sequence[Value], values: Sequence[Operand]) -> None:
        if len(values) != len(results):
            raise InternalError(f"{len(values)} values were yielded where {len(results)} are carried")
        ready = [self._as(v, r.type) for v, r in zip(values, results, strict=True)]
        if ready:
            self._emit(f"scf.yield{_typed_list(ready)}")

    # ---- constants and operands ----------------------------------------

    def constant(self, x: int | float | bool, type: Type) -> Value:
        """`x` in every lane; floats are rounded to the type, NaN, infinities and -0.0 kept."""
        if type.kind == "ptr":
            raise InternalError("a pointer constant has no meaning; use null()")
        if type.is_float:
            return self.bits(float_bits(float(x), type.kind), type)
        if type.kind == "i1":
            literal = "true" if x else "false"
        else:
            literal = str(_wrap(int(x), type.bits))
        return self._constant(literal, type)

    def bits(self, pattern: int, type: Type) -> Value:
        """The constant with this bit pattern in every lane."""
        if type.is_float:
            return self._constant(f"0x{pattern:0{type.bits // 4}X}", type)
        return self._constant(str(_wrap(pattern, type.bits)), type)

    def iota(self, type: Type) -> Value:
        """0, 1, 2, … along the lanes."""
        return self.lane_constant(range(type.lanes), type)

    def lane_constant(self, xs: Sequence[int | float | bool], type: Type) -> Value:
        """One constant a lane."""
        if type.is_float:
            items = [f"0x{float_bits(float(x), type.kind):0{type.bits // 4}X}" for x in xs]
        elif type.kind == "i1":
            items = ["true" if x else "false" for x in xs]
        else:
            items = [str(_wrap(int(x), type.bits)) for x in xs]
        return self._constant(f"[{', '.join(items)}]", type)

    def _constant(self, literal: str, type: Type) -> Value:
        function = self._function
        key = f"{literal} : {type}"
        if key not in function.constants:
            value = self._fresh(type, "c")
            scalar = literal if type.kind == "i1" else key  # a bare `true` has its type already
            text = f"dense<{literal}> : {type}" if type.lanes else scalar
            function.head.append(f"    {value} = arith.constant {text}")
            function.constants[key] = value
        return function.constants[key]

    def null(self) -> Value:
        """The null pointer."""
        return self._op(PTR, "llvm.mlir.zero : !llvm.ptr")

    def undef(self, type: Type) -> Value:
        """A value nobody may look at (to be filled by `insert`)."""
        return self._op(type, f"llvm.mlir.undef : {type}")

    def splat(self, value: Value, lanes: int) -> Value:
        """The scalar in every lane; a vector that has these lanes already is left as it is."""
        if value.lanes == lanes:
            return value
        if value.lanes:
            raise InternalError(f"splat of {value.type} to {lanes} lanes")
        type = value.type.vector(lanes)
        if value.type.kind != "ptr":
            return self._op(type, f"vector.broadcast {value} : {value.type} to {type}")
        result = self.undef(type)
        for lane in range(lanes):
            result = self.insert(result, value, lane)
        return result

    def _as(self, x: Operand, type: Type) -> Value:
        """`x` as a value of exactly this type: a number becomes a constant, a scalar is broadcast."""
        if not isinstance(x, Value):
            return self.constant(x, type)
        if x.type == type:
            return x
        if x.type == type.scalar:
            return self.splat(x, type.lanes)
        raise InternalError(f"a {x.type} was given where {type} is needed")

    def same(self, *xs: Operand) -> list[Value]:
        """The operands brought to one type."""
        values = [x for x in xs if isinstance(x, Value)]
        if not values:
            raise InternalError("an operation needs at least one typed operand")
        widest = max(values, key=lambda v: v.lanes).type
        return [self._as(x, widest) for x in xs]

    # ---- arithmetic ----------------------------------------

    def _binary(self, a: Operand, b: Operand, float_op: str, int_op: str) -> Value:
        x, y = self.same(a, b)
        op = float_op if x.type.is_float else int_op
        if not op:
            raise InternalError(f"the operation {float_op or int_op} has no meaning for {x.type}")
        return self._op(x.type, f"{op} {x}, {y} : {x.type}")

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
            return self._op(x.type, f"arith.negf {x} : {x.type}")
        return self.sub(0, x)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Value:
        """a * b + c with one rounding."""
        x, y, z = self.same(a, b, c)
        return self._op(x.type, f"math.fma {x}, {y}, {z} : {x.type}")

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

    # ---- logic ----------------------------------------

    def cmp(self, op: str, a: Operand, b: Operand, signed: bool = True, unordered: bool = False) -> Value:
        """eq ne lt le gt ge. With a NaN a float comparison is false (`ne`: true), or true if `unordered`."""
        if op not in COMPARE_NAMES:
            raise InternalError(f"unknown comparison {op!r}")
        x, y = self.same(a, b)
        result = x.type.of("i1")
        if x.type.kind == "ptr":
            return self._op(result, f'llvm.icmp "{op}" {x}, {y} : {x.type}')
        if x.type.is_float:
            prefix = "u" if unordered or op == "ne" else "o"
            return self._op(result, f"arith.cmpf {prefix}{op}, {x}, {y} : {x.type}")
        prefix = "" if op in ("eq", "ne") else "s" if signed else "u"
        return self._op(result, f"arith.cmpi {prefix}{op}, {x}, {y} : {x.type}")

    def is_nan(self, x: Value) -> Value:
        return self._op(x.type.of("i1"), f"arith.cmpf uno, {x}, {x} : {x.type}")

    def any(self, mask: Value) -> Value:
        """Whether the mask holds in any lane, as one i1."""
        if not mask.lanes:
            return mask
        word = f"i{mask.lanes}"
        packed = self._op(Type(word), f"llvm.bitcast {mask} : {mask.type} to {word}")
        zero = self._op(packed.type, f"llvm.mlir.constant(0 : {word}) : {word}")
        return self._op(I1, f'llvm.icmp "ne" {packed}, {zero} : {word}')

    def select(self, condition: Value, a: Operand, b: Operand) -> Value:
        """`a` where the condition holds, `b` elsewhere; a scalar condition may choose between vectors."""
        x, y = self.same(a, b)
        if condition.lanes and not x.lanes:
            x, y = self.splat(x, condition.lanes), self.splat(y, condition.lanes)
        types = f"{condition.type}, {x.type}" if condition.lanes or x.lanes else f"{x.type}"
        return self._op(x.type, f"arith.select {condition}, {x}, {y} : {types}")

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

    # ---- conversions ----------------------------------------

    def bitcast(self, x: Value, kind: str) -> Value:
        """The same bits as another kind of the same width."""
        if x.type.kind == kind:
            return x
        type = x.type.of(kind)
        return self._op(type, f"arith.bitcast {x} : {x.type} to {type}")

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

    # ---- operations of one instruction ----------------------------------------

    def _math(self, name: str, x: Value) -> Value:
        return self._op(x.type, f"math.{name} {x} : {x.type}")

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
        return self._op(x.type, f"math.copysign {x}, {y} : {x.type}")

    # ---- memory ----------------------------------------

    def offset(self, pointer: Value, byte_offset: Operand) -> Value:
        """pointer + bytes; a vector of offsets (i32 or i64, signed) gives a vector of pointers."""
        if isinstance(byte_offset, int):
            if byte_offset == 0:
                return pointer
            byte_offset = self.constant(byte_offset, I64)
        assert isinstance(byte_offset, Value)
        index = byte_offset.type
        result = PTR.vector(max(index.lanes, pointer.lanes))
        return self._op(
            result, f"llvm.getelementptr {pointer}[{byte_offset}] : ({pointer.type}, {index}) -> {result}, i8"
        )

    def integer(self, pointer: Value) -> Value:
        """The address as an i64."""
        return self._op(I64, f"llvm.ptrtoint {pointer} : !llvm.ptr to i64")

    def load(self, pointer: Value, type: Type, align: int | None = None) -> Value:
        """A scalar or a contiguous vector; `align` in bytes, the element's size unless told."""
        return self._op(
            type, f"llvm.load {pointer} {{alignment = {align or type.bytes} : i64}} : !llvm.ptr -> {type}"
        )

    def store(
        self, value: Value, pointer: Value, align: int | None = None, nontemporal: bool = False
    ) -> None:
        """Stores a scalar or a contiguous vector; `nontemporal` goes past the caches (fully aligned)."""
        type = value.type
        if nontemporal:
            align = max(1, type.lanes) * type.bytes
        flags = f"alignment = {align or type.bytes} : i64{', nontemporal' if nontemporal else ''}"
        self._emit(f"llvm.store {value}, {pointer} {{{flags}}} : {type}, !llvm.ptr")

    def load_masked(self, pointer: Value, mask: Value, other: Operand, type: Type) -> Value:
        """Contiguous lanes where the mask holds, `other` elsewhere; masked-off addresses are not touched."""
        rest = self._as(other, type)
        signature = f"(!llvm.ptr, {mask.type}, {type}) -> {type}"
        align = f"{{alignment = {type.bytes} : i32}}"
        return self._op(
            type,
            f"llvm.intr.masked.load {pointer}, {mask}, {rest} {align} : {signature}",
        )

    def store_masked(self, value: Value, pointer: Value, mask: Value) -> None:
        """Stores the lanes where the mask holds."""
        signature = f"{value.type}, {mask.type} into !llvm.ptr"
        align = f"{{alignment = {value.type.bytes} : i32}}"
        self._emit(f"llvm.intr.masked.store {value}, {pointer}, {mask} {align} : {signature}")

    def gather(
        self, base: Value, byte_offsets: Value, type: Type, mask: Value | None = None, other: Operand = 0
    ) -> Value:
        """Lane i from base + byte_offsets[i] where the mask holds, `other` elsewhere."""
        pointers = self.offset(base, byte_offsets)
        mask = mask or self.constant(True, I1.vector(type.lanes))
        rest = self._as(other, type)
        signature = f"({pointers.type}, {mask.type}, {type}) -> {type}"
        align = f"{{alignment = {type.bytes} : i32}}"
        return self._op(
            type,
            f"llvm.intr.masked.gather {pointers}, {mask}, {rest} {align} : {signature}",
        )

    def scatter(self, value: Value, base: Value, byte_offsets: Value, mask: Value | None = None) -> None:
        """Lane i to base + byte_offsets[i], in lane order, where the mask holds."""
        pointers = self.offset(base, byte_offsets)
        mask = mask or self.constant(True, I1.vector(value.lanes))
        signature = f"{value.type}, {mask.type} into {pointers.type}"
        align = f"{{alignment = {value.type.bytes} : i32}}"
        self._emit(f"llvm.intr.masked.scatter {value}, {pointers}, {mask} {align} : {signature}")

    def intrinsic(self, name: str, args: Sequence[Value], result: Type) -> Value:
        """A call of an LLVM intrinsic, for what no dialect spells."""
        types = ", ".join(str(v.type) for v in args)
        return self._op(
            result, f'llvm.call_intrinsic "{name}"({", ".join(map(str, args))}) : ({types}) -> {result}'
        )

    def prefetch(self, pointer: Value, write: bool = False, locality: int = 3) -> None:
        """Asks for a cache line; locality 3 keeps it in every level, 0 passes it by."""
        properties = f"<{{rw = {int(write)} : i32, hint = {locality} : i32, cache = 1 : i32}}>"
        self._emit(f'"llvm.intr.prefetch"({pointer}) {properties} : (!llvm.ptr) -> ()')

    def fence(self) -> None:
        """Orders nontemporal stores before everything that follows."""
        self._emit("llvm.fence seq_cst")

    def alloca(self, size: int, align: int = 64) -> Value:
        """A block of bytes on the stack of the function, reserved once wherever this is called."""
        count = self.constant(size, I64)
        value = self._fresh(PTR, "stack")
        self._function.head.append(
            f"    {value} = llvm.alloca {count} x i8 {{alignment = {align} : i64}} : (i64) -> !llvm.ptr"
        )
        return value

    # ---- lanes ----------------------------------------

    def extract(self, x: Value, lane: int) -> Value:
        if x.type.kind == "ptr":
            at = self.constant(lane, I64)
            return self._op(PTR, f"llvm.extractelement {x}[{at} : i64] : {x.type}")
        return self._op(x.type.scalar, f"vector.extract {x}[{lane}] : {x.type.scalar} from {x.type}")

    def insert(self, x: Value, scalar: Operand, lane: int) -> Value:
        y = self._as(scalar, x.type.scalar)
        if x.type.kind == "ptr":
            at = self.constant(lane, I64)
            return self._op(x.type, f"llvm.insertelement {y}, {x}[{at} : i64] : {x.type}")
        return self._op(x.type, f"vector.insert {y}, {x}[{lane}] : {y.type} into {x.type}")

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lane i is lane lanes[i] of a followed by b."""
        result = a.type.vector(len(lanes))
        order = ", ".join(map(str, lanes))
        return self._op(result, f"vector.shuffle {a}, {b} [{order}] : {a.type}, {b.type}")

    def slice(self, x: Value, start: int, lanes: int) -> Value:
        """`lanes` lanes from `start`; one lane gives a vector of one lane."""
        return self.shuffle(x, x, range(start, start + lanes))

    def concat(self, a: Value, b: Value) -> Value:
        """The lanes of a, then those of b."""
        return self.shuffle(a, b, range(a.lanes + b.lanes))

    def reduce(self, op: str, x: Value, signed: bool = True) -> Value:
        """add mul min max and or xor over the lanes: (lower half) op (upper half), down to one lane.

        The order is fixed, so sums are the same on every run; float min and max give NaN if a lane is NaN.
        """
        if x.lanes & (x.lanes - 1):
            raise InternalError(f"a reduction needs a power of two of lanes, not {x.lanes}")
        if not x.lanes:
            return x
        while x.lanes > 1:
            half = x.lanes // 2
            x = self.combine(op, self.slice(x, 0, half), self.slice(x, half, half), signed)
        return self.extract(x, 0)

    def combine(self, op: str, a: Operand, b: Operand, signed: bool = True) -> Value:
        """One step of a reduction by name."""
        if op in ("min", "max"):
            return self._extremum(op, a, b, signed, zeros=True)
        steps = {"add": self.add, "mul": self.mul, "and": self.and_, "or": self.or_, "xor": self.xor}
        return steps[op](a, b)

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """n vectors of n lanes, n a power of two, transposed in registers by log2(n) rounds of interleaving.

        Round k swaps the off-diagonal blocks of size k of every 2k × 2k block.
        """
        size = len(rows)
        if size & (size - 1) or any(row.lanes != size for row in rows):
            raise InternalError("transpose needs n vectors of n lanes, n a power of two")
        rows = list(rows)
        block = 1
        while block < size:
            low = [i if not i & block else i - block + size for i in range(size)]
            high = [i + block if not i & block else i + size for i in range(size)]
            for first in (i for i in range(size) if not i & block):
                a, b = rows[first], rows[first + block]
                rows[first], rows[first + block] = self.shuffle(a, b, low), self.shuffle(a, b, high)
            block *= 2
        return rows

    # ---- control ----------------------------------------

    @contextmanager
    def loop(
        self,
        lower: Operand,
        upper: Operand,
        step: Operand = 1,
        carried: Sequence[Value] = (),
        unroll: bool = True,
    ) -> Iterator[Loop]:
        """for index in range(lower, upper, step), step > 0; carried values move on by `yield_`.

        LLVM may unroll the loop unless told not to: where its body fills the registers.
        """
        low, high, stride = (self._as(x, I64) for x in (lower, upper, step))
        index = self._fresh(I64, "i")
        inner = [self._fresh(v.type, "a") for v in carried]
        results, left = self._results([v.type for v in carried])
        pairs = ", ".join(f"{a} = {v}" for a, v in zip(inner, carried, strict=True))
        types = ", ".join(str(v.type) for v in carried)
        tail = f" iter_args({pairs}) -> ({types})" if carried else ""
        self._emit(f"{left}scf.for {index} = {low} to {high} step {stride}{tail} : i64 {{")
        self._indent()
        loop = Loop(self, index, inner, results)
        yield loop
        if carried and not loop.yielded:
            raise InternalError("a loop that carries values ended without `yield_`")
        self._dedent("}" if unroll else f"}} {{loop_annotation = {ONCE}}}")

    @contextmanager
    def if_(self, condition: Value, results: Sequence[Type] = ()) -> Iterator[Choice]:
        """if (condition) {...} `otherwise()` {...}; with results both branches must `yield_` them."""
        values, left = self._results(results)
        types = f" -> ({', '.join(map(str, results))})" if results else ""
        self._emit(f"{left}scf.if {condition}{types} {{")
        self._indent()
        choice = Choice(self, values)
        yield choice
        if results and not choice.has_otherwise:
            raise InternalError("an if with results needs `otherwise`")
        self._dedent("}")

    @contextmanager
    def while_(self, carried: Sequence[Value]) -> Iterator[While]:
        """while: the test reads `.carried`; `go_on_if(c)` opens the body and gives its carried values."""
        before = [self._fresh(v.type, "a") for v in carried]
        after = [self._fresh(v.type, "a") for v in carried]
        results, left = self._results([v.type for v in carried])
        pairs = ", ".join(f"{a} = {v}" for a, v in zip(before, carried, strict=True))
        types = ", ".join(str(v.type) for v in carried)
        self._emit(f"{left}scf.while ({pairs}) : ({types}) -> ({types}) {{")
        self._indent()
        yield While(self, before, after, results)
        self._dedent("}")

    def _results(self, types: Sequence[Type]) -> tuple[list[Value], str]:
        """Names for the results of a region, and the left side of its line."""
        if not types:
            return [], ""
        stem = self._fresh(types[0], "r").name
        if len(types) == 1:
            return [Value(stem, types[0])], f"{stem} = "
        return [Value(f"{stem}#{n}", type) for n, type in enumerate(types)], f"{stem}:{len(types)} = "

    def call(self, name: str, args: Sequence[Value], result: Type | None = None) -> Value | None:
        """Calls a function of this module or of the process; declares it where it is not defined here."""
        types = ", ".join(str(v.type) for v in args)
        gives = f" -> {result}" if result else ""
        self._declared.setdefault(name, f"  llvm.func @{name}({types}){gives}")
        signature = f"({types}) -> {result or '()'}"
        text = f"llvm.call @{name}({', '.join(map(str, args))}) : {signature}"
        if result:
            return self._op(result, text)
        self._emit(text)
        return None

    def address_of(self, name: str) -> Value:
        """The address of a function that this module defines (now or later)."""
        return self._op(PTR, f"llvm.mlir.addressof @{name} : !llvm.ptr")


def _wrap(x: int, bits: int) -> int:
    """`x` modulo 2^bits as a signed number, which is how MLIR prints signless constants."""
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x
