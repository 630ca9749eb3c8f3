"""Addresses, loads and stores."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.targets.cpu.builder.text import Text
from tilewright.compiler.targets.cpu.builder.values import I1, I64, PTR, Operand, Type, Value


class Memory(Text):
    """Reading and writing through pointers."""

    def offset(self, pointer: Value, byte_offset: Operand) -> Value:
        """pointer + bytes; a vector of offsets (i32 or i64, signed) gives a vector of pointers."""
        if isinstance(byte_offset, int):
            if byte_offset == 0:
                return pointer
            byte_offset = self.constant(byte_offset, I64)
        assert isinstance(byte_offset, Value)
        index = byte_offset.type
        result = PTR.vector(max(index.lanes, pointer.lanes))
        return self._pure(
            result, f"llvm.getelementptr {pointer}[{byte_offset}] : ({pointer.type}, {index}) -> {result}, i8"
        )

    def integer(self, pointer: Value) -> Value:
        """The address as an i64."""
        return self._pure(I64, f"llvm.ptrtoint {pointer} : !llvm.ptr to i64")

    def another(self, pointer: Value) -> Value:
        """The same address, which the compiler does not know: what is read at both is read twice."""
        same = 'llvm.inline_asm has_side_effects "", "=r,0"'
        return self._op(PTR, f"{same} {pointer} : (!llvm.ptr) -> !llvm.ptr")

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

    def fetch_or(self, pointer: Value, bits: Value) -> Value:
        """Sets bits of a word at once for all threads; what the word was before."""
        return self._op(bits.type, f"llvm.atomicrmw _or {pointer}, {bits} monotonic : !llvm.ptr, {bits.type}")

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
