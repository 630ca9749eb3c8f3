"""Dot-product instructions: two summed positions multiplied and added at once, where the machine has one.

    sum[lane] += x[lane][0] · y[lane][0] + x[lane][1] · y[lane][1]

The numbers of two summed positions lie side by side in a *word* of 32 bits, and a panel holds words:

    panel[k // 2][own]      k even in the low half, k odd in the high one; 0 after the last position

    bf16    vdpbf16ps: sums in float32, one rounding a product; subnormal numbers count as 0

A side qualifies if all its values are numbers of the narrow kind as they stand: what is computed in float32
is never rounded for the sake of the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.builder import BF16, I32, Builder, Value, float_bits
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.dsl.dtypes import bfloat16, float32
from tilewright.dsl.program import Cast, Const, Map, Node

TOGETHER = 2  # summed positions in a word
WORD = I32
SMALL = ("bool", "i8", "u8")  # integers that bfloat16 holds
CHOOSING = ("abs", "maximum", "minimum", "neg")  # give one of their operands, perhaps with another sign


def dot_product(kernel: Kernel, target: CpuTarget) -> str | None:
    """The kind of numbers of which one instruction multiplies and adds two, or None."""
    contraction = kernel.contraction
    if contraction is None or not target.has_bf16_products or contraction.root.dtype != float32:
        return None
    return "bf16" if all(_is_bfloat16(side) for side in (contraction.left, contraction.right)) else None


def _is_bfloat16(node: Node) -> bool:
    """Whether every value of a node is a bfloat16 number."""
    if node.dtype == bfloat16:
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
        halves.append(b.shr(_bits(b, low), 16, signed=False))
    if high is not None:
        halves.append(b.and_(_bits(b, high), -1 << 16))
    return halves[0] if len(halves) == 1 else b.or_(*halves)


def _bits(b: Builder, value: Value) -> Value:
    return b.bitcast(b.convert(value, "f32"), "i32")


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
    halves = [b.bitcast_lanes(value, BF16.vector(TOGETHER * value.lanes)) for value in (x, y)]
    return b.intrinsic(f"llvm.x86.avx512bf16.dpbf16ps.{32 * x.lanes}", [total, *halves], total.type)
