"""Dot-product instructions: two summed positions multiplied and added at once, where the machine has one.

    sum[lane] += x[lane][0] · y[lane][0] + x[lane][1] · y[lane][1]

The numbers of two summed positions lie side by side in a *word* of 32 bits, and a panel holds words:

    panel[k // 2][own]      k even in the low half, k odd in the high one; 0 after the last position

    bf16    vdpbf16ps: sums in float32, one rounding a product; subnormal numbers count as 0
    i16     vpdpwssd: sums of a block of positions in int32, which cannot overflow there; added up in int64

A side qualifies if all its values are numbers of the narrow kind as they stand: what is computed in float32
is never rounded for the sake of the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.nest import Kernel
from tilewright.compiler.ranges import Range, range_for_any_extents
from tilewright.compiler.targets.cpu.builder import BFLOAT, I16, I32, Builder, Type, Value, float_bits
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.dsl.dtypes import FLOAT8, bfloat16, float32, int16, int32, int64
from tilewright.dsl.program import Cast, Const, Map, Node

TOGETHER = 2  # summed positions in a word
WORD = I32
DEEPEST = 1024  # summed positions of a block
SMALL = ("bool", "i8", "u8")  # integers that bfloat16 holds
CHOOSING = ("abs", "maximum", "minimum", "neg")  # give one of their operands, perhaps with another sign


def dot_product(kernel: Kernel, target: CpuTarget) -> str | None:
    """The kind of numbers of which one instruction multiplies and adds two, or None."""
    if kernel.contraction is None:
        return None
    root, sides = kernel.contraction.root, (kernel.contraction.left, kernel.contraction.right)
    if root.dtype == float32 and target.has_bf16_products and all(_is_bfloat16(side) for side in sides):
        return "bf16"
    if root.dtype == int64 and target.has_i16_products and _is_short(*sides):
        return "i16"
    return None


def sums_type(kind: str | None, total: Type) -> Type:
    """What the sums of a block of positions are held in."""
    return I32 if kind == "i16" else total


def _is_short(left: Node, right: Node) -> bool:
    """Whether all values of both sides are of 16 bits, and sums of a block's products of 32."""
    short, wide = Range(*int16.range), Range(*int32.range)
    ranges = [range_for_any_extents(side) for side in (left, right)]
    largest = [max(-r.low, r.high) for r in ranges]
    return all(r.within(short) for r in ranges) and DEEPEST * largest[0] * largest[1] <= wide.high


def _is_bfloat16(node: Node) -> bool:
    """Whether every value of a node is a bfloat16 number, as those of 8 bits are."""
    if node.dtype == bfloat16 or node.dtype in FLOAT8:
        return True
    match node:
        case Cast() if node.dtype == float32:
            return _is_bfloat16(node.arg) or node.arg.dtype.short in SMALL
        case Const():
            return float_bits(node.value, "bf16") << 16 == float_bits(node.value, "f32")
        case Map() if node.function == "where":
            return all(_is_bfloat16(value) for value in node.operands[1:])
        case Map() if node.function in CHOOSING:
            return all(_is_bfloat16(value) for value in node.operands)
    return False


def word(b: Builder, low: Value | None, high: Value | None) -> Value:
    """The words of two summed positions; None is 0."""
    halves = []
    if low is not None:
        halves.append(b.shr(_upper(b, low), 16, signed=False))
    if high is not None:
        halves.append(b.and_(_upper(b, high), -1 << 16))
    return halves[0] if len(halves) == 1 else b.or_(*halves)


def _upper(b: Builder, value: Value) -> Value:
    """Words that hold a narrow number in their upper half, and 0 in the lower one."""
    if value.type.is_float:
        return b.bitcast(b.convert(value, "f32"), "i32")
    return b.shl(b.convert(value, "i32"), 16)


def write_words(b: Builder, values: Sequence[Value], odd: bool, first_line: Value, line_bytes: int) -> None:
    """The words of consecutive positions, line after line; if the first is odd, it completes a word."""
    line = 0
    if odd:
        before = b.load(first_line, WORD.vector(values[0].lanes))
        b.store(b.or_(before, word(b, None, values[0])), first_line)
        values, line = values[1:], 1
    for number in range(0, len(values), TOGETHER):
        low, high = values[number], values[number + 1] if number + 1 < len(values) else None
        b.store(word(b, low, high), b.offset(first_line, (line + number // TOGETHER) * line_bytes))


def multiply_add(b: Builder, x: Value, y: Value, total: Value) -> Value:
    """total + x · y over both halves of each word."""
    kind, name = (BFLOAT, "avx512bf16.dpbf16ps") if total.type.is_float else (I16, "avx512.vpdpwssd")
    halves = [b.bitcast_lanes(value, kind.vector(TOGETHER * value.lanes)) for value in (x, y)]
    return b.intrinsic(f"llvm.x86.{name}.{WORD.bits * x.lanes}", [total, *halves], total.type)
