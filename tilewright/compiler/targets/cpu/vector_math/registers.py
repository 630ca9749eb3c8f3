"""Functions by table in the registers of AVX-512: an f32 vector of 16 lanes is permuted in one instruction.

A function of one variable is cut into 16 intervals, each with its own polynomial around its own centre; the
coefficients of one degree are one register, from which every lane takes the one of its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.compiler.targets.cpu.builder import Builder, Type, Value

LANES = 16


def has_tables(b: Builder, x: Value) -> bool:
    """Whether `lookup` is one instruction for the lanes of x."""
    return b.target.has_avx512 and x.type.kind == "f32"


def by_register(b: Builder, x: Value, function: Callable[[Builder, Value], Value]) -> Value:
    """`function`, which takes exactly 16 lanes, on any number of them."""
    if not x.lanes:
        return b.extract(function(b, b.splat(x, LANES)), 0)
    if x.lanes == LANES:
        return function(b, x)
    parts = []
    for start in range(0, x.lanes, LANES):
        lanes = [min(lane, x.lanes - 1) for lane in range(start, start + LANES)]
        parts.append(function(b, b.shuffle(x, x, lanes)))
    while len(parts) > 1:
        parts = [_joined(b, parts[n : n + 2]) for n in range(0, len(parts), 2)]
    return parts[0] if parts[0].lanes == x.lanes else b.slice(parts[0], 0, x.lanes)


def _joined(b: Builder, parts: Sequence[Value]) -> Value:
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    if second.lanes < first.lanes:  # shuffles want operands of one type; the lanes beyond are never used
        second = b.shuffle(second, second, [min(n, second.lanes - 1) for n in range(first.lanes)])
    return b.concat(first, second)


def lookup(b: Builder, index: Value, table: Sequence[float]) -> Value:
    """table[index mod 16] in each of 16 lanes; index is an i32."""
    type = Type("f32", LANES)
    return b.intrinsic("llvm.x86.avx512.permvar.sf.512", [b.lane_constant(table, type), index], type)
