"""The text that is being written: functions, constants, operands brought to one type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.compiler.targets.cpu.builder.values import (
    I64,
    PTR,
    Operand,
    Type,
    Value,
    float_bits,
    wrap,
)
from tilewright.errors import InternalError
from tilewright.runtime.precision import EXACT

if TYPE_CHECKING:
    from tilewright.compiler.targets.cpu.toolchain import CpuTarget


@dataclass
class _Function:
    """Lines of the function in progress; constants and allocas go to its head."""

    header: str
    head: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    constants: dict[str, Value] = field(default_factory=dict)
    known: dict[str, Value] = field(default_factory=dict)  # what pure operations gave, in the open regions
    regions: list[list[str]] = field(default_factory=lambda: [[]])  # the operations that each made known
    returned: bool = False

    def enter(self) -> None:
        self.regions.append([])

    def leave(self) -> None:
        """What was made known in a region is not there behind it."""
        for text in self.regions.pop():
            del self.known[text]


def _literal(pattern: int, type: Type) -> str:
    """The number with these bits, as MLIR has it."""
    if type.is_float and not type.is_bits:
        return f"0x{pattern:0{type.bits // 4}X}"
    return str(wrap(pattern, type.bits))


def typed_list(values: Sequence[Value]) -> str:
    if not values:
        return ""
    return f" {', '.join(map(str, values))} : {', '.join(str(v.type) for v in values)}"


class Text:
    """One MLIR module in the making. `accuracy` is that of elementary functions (`vector_math`)."""

    def __init__(self, target: CpuTarget, accuracy: str = EXACT):
        self.target = target
        self.accuracy = accuracy
        self._functions: list[str] = []
        self._declared: dict[str, str] = {}
        self._defined: set[str] = set()
        self._open: _Function | None = None
        self._depth = 0
        self._counter = 0

    # --- functions --------------------------------------------------------------------------------

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
        self._function.enter()

    def _dedent(self, line: str) -> None:
        self._depth -= 1
        self._function.leave()
        self._emit(line)

    def _fresh(self, type: Type, stem: str = "v") -> Value:
        self._counter += 1
        return Value(f"%{stem}{self._counter}", type)

    def _op(self, type: Type, text: str) -> Value:
        """An operation, written wherever it is asked for: it reads memory or does something."""
        value = self._fresh(type)
        self._emit(f"{value} = {text}")
        return value

    def _pure(self, type: Type, text: str) -> Value:
        """An operation that depends on its operands alone: written once where its value is still there.

        LLVM would find out as well, but only after the text has been read and lowered: addresses, which every
        load computes anew, are two thirds of it.
        """
        function = self._function
        if text not in function.known:
            function.known[text] = self._op(type, text)
            function.regions[-1].append(text)
        return Value(function.known[text].name, type)  # the same text may be of another kind

    def _yield(self, results: Sequence[Value], values: Sequence[Operand]) -> None:
        if len(values) != len(results):
            raise InternalError(f"{len(values)} values were yielded where {len(results)} are carried")
        ready = [self._as(v, r.type) for v, r in zip(values, results, strict=True)]
        if ready:
            self._emit(f"scf.yield{typed_list(ready)}")

    # --- constants and operands -------------------------------------------------------------------

    def constant(self, x: int | float | bool, type: Type) -> Value:
        """`x` in every lane; floats are rounded to the type, NaN, infinities and -0.0 kept."""
        if type.kind == "ptr":
            raise InternalError("a pointer constant has no meaning; use null()")
        if type.is_float:
            return self.bits(float_bits(float(x), type.kind), type)
        if type.kind == "i1":
            literal = "true" if x else "false"
        else:
            literal = str(wrap(int(x), type.bits))
        return self._constant(literal, type)

    def bits(self, pattern: int, type: Type) -> Value:
        """The constant with this bit pattern in every lane."""
        return self._constant(_literal(pattern, type), type)

    def iota(self, type: Type) -> Value:
        """0, 1, 2, … along the lanes."""
        return self.lane_constant(range(type.lanes), type)

    def lane_constant(self, xs: Sequence[int | float | bool], type: Type) -> Value:
        """One constant a lane."""
        if type.is_float:
            items = [_literal(float_bits(float(x), type.kind), type) for x in xs]
        elif type.kind == "i1":
            items = ["true" if x else "false" for x in xs]
        else:
            items = [str(wrap(int(x), type.bits)) for x in xs]
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
        return Value(function.constants[key].name, type)  # the same text may be of another kind

    def null(self) -> Value:
        """The null pointer."""
        return self._pure(PTR, "llvm.mlir.zero : !llvm.ptr")

    def undef(self, type: Type) -> Value:
        """A value nobody may look at (to be filled by `insert`)."""
        return self._pure(type, f"llvm.mlir.undef : {type}")

    def splat(self, value: Value, lanes: int) -> Value:
        """The scalar in every lane; a vector that has these lanes already is left as it is."""
        if value.lanes == lanes:
            return value
        if value.lanes:
            raise InternalError(f"splat of {value.type} to {lanes} lanes")
        type = value.type.vector(lanes)
        if value.type.kind != "ptr":
            return self._pure(type, f"vector.broadcast {value} : {value.type} to {type}")
        result = self.undef(type)
        for lane in range(lanes):
            result = self.insert(result, value, lane)
        return result

    def insert(self, x: Value, scalar: Operand, lane: int) -> Value:
        y = self._as(scalar, x.type.scalar)
        if x.type.kind == "ptr":
            at = self.constant(lane, I64)
            return self._pure(x.type, f"llvm.insertelement {y}, {x}[{at} : i64] : {x.type}")
        return self._pure(x.type, f"vector.insert {y}, {x}[{lane}] : {y.type} into {x.type}")

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
