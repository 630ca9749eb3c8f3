"""Loops, choices and calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tilewright.compiler.targets.cpu.builder.text import Text, typed_list
from tilewright.compiler.targets.cpu.builder.values import I64, PTR, Operand, Type, Value
from tilewright.errors import InternalError

ONCE = "#llvm.loop_annotation<unroll = <disable = true>>"


class Loop:
    """An open `scf.for`: `index`, `carried` inside; `yield_` once, last; `results` after it is closed."""

    def __init__(self, builder: Control, index: Value, carried: list[Value], results: list[Value]):
        self.builder, self.index, self.carried, self.results = builder, index, carried, results
        self.yielded = False

    def yield_(self, *values: Operand) -> None:
        """The carried values of the next iteration."""
        self.builder._yield(self.results, values)
        self.yielded = True


class Choice:
    """An open `scf.if`: fill the first branch, `otherwise()`, fill the second; each ends in `yield_`."""

    def __init__(self, builder: Control, results: list[Value]):
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

    def __init__(self, builder: Control, carried: list[Value], inner: list[Value], results: list[Value]):
        self.builder, self.carried, self.inner, self.results = builder, carried, inner, results

    def go_on_if(self, condition: Value) -> list[Value]:
        """Ends the test; returns the carried values as seen by the body."""
        b = self.builder
        b._emit(f"scf.condition({condition}){typed_list(self.carried)}")
        b._dedent("} do {")
        b._indent()
        if self.inner:
            b._emit(f"^bb0({', '.join(f'{v}: {v.type}' for v in self.inner)}):")
        return self.inner

    def yield_(self, *values: Operand) -> None:
        """The carried values of the next test."""
        self.builder._yield(self.results, values)


class Control(Text):
    """Regions of code, and calls of other functions."""

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

    def call_at(self, function: Value, args: Sequence[Value]) -> None:
        """Calls the function at an address, which gives nothing back."""
        types = ", ".join(str(v.type) for v in args)
        self._emit(f"llvm.call {function}({', '.join(map(str, args))}) : !llvm.ptr, ({types}) -> ()")

    def address_of(self, name: str) -> Value:
        """The address of a function that this module defines (now or later)."""
        return self._pure(PTR, f"llvm.mlir.addressof @{name} : !llvm.ptr")
