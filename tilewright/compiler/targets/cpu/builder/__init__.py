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
    logic        cmp(op, a, b) is_nan any all select and_ or_ xor not_ shl shr
    conversion   convert(v, kind, signed=) bitcast(v, kind) bitcast_lanes(v, type)
    single ops   sqrt floor ceil trunc round_even abs copysign
    memory       offset integer load store load_masked store_masked gather scatter prefetch
                 alloca call intrinsic address_of
    lanes        first_lanes extract insert shuffle slice concat transpose reduce(op, v)
    control      function loop if_ while_  (context managers; see each)
"""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder.control import Control
from tilewright.compiler.targets.cpu.builder.lanes import Lanes
from tilewright.compiler.targets.cpu.builder.memory import Memory
from tilewright.compiler.targets.cpu.builder.values import (
    BF16,
    BFLOAT,
    F16,
    F32,
    F64,
    I1,
    I8,
    I16,
    I32,
    I64,
    PTR,
    STORAGE_FLOATS,
    Operand,
    Type,
    Value,
    float_bits,
)

__all__ = [
    "BF16",
    "BFLOAT",
    "F16",
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "STORAGE_FLOATS",
    "Builder",
    "Operand",
    "Type",
    "Value",
    "float_bits",
]


class Builder(Lanes, Memory, Control):
    """Writes one MLIR module; see the module's docstring for the list of operations."""
