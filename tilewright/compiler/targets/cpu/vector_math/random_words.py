"""Random bits: Philox4x32-10 (`dsl.philox` says what it is) in 64-bit lanes, whose products are whole.

Of a product the upper half of the operands is not looked at, so x86 needs one instruction for it.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.compiler.targets.cpu.builder import Builder, Value
from tilewright.dsl.philox import MULTIPLIERS, ROUNDS, WEYL, WORD, WORDS


def philox(b: Builder, seed: Value, position: Value, stream: Value) -> tuple[Value, Value, Value, Value]:
    """The words of a block, int64 below 2³². Operands that are scalars make scalar work as far as it goes."""
    (k0, k1), (c0, c1), (c2, c3) = (_halves(b, value) for value in (seed, position, stream))
    for _ in range(ROUNDS):
        first, second = b.mul(c0, MULTIPLIERS[0]), b.mul(c2, MULTIPLIERS[1])
        c0 = b.xor(b.xor(_upper(b, second), c1), k0)
        c2 = b.xor(b.xor(_upper(b, first), c3), k1)
        c1, c3 = _lower(b, second), _lower(b, first)
        k0, k1 = _lower(b, b.add(k0, WEYL[0])), _lower(b, b.add(k1, WEYL[1]))
    return c0, c1, c2, c3


def _halves(b: Builder, value: Value) -> tuple[Value, Value]:
    return _lower(b, value), _upper(b, value)


def _lower(b: Builder, value: Value) -> Value:
    return b.and_(value, WORD)


def _upper(b: Builder, value: Value) -> Value:
    return b.shr(value, 32, signed=False)


def _word(number: int) -> Callable[..., Value]:
    def word(b: Builder, seed: Value, position: Value, stream: Value) -> Value:
        """One word of a block as int32; the others cost nothing more where they are needed too."""
        return b.convert(philox(b, seed, position, stream)[number], "i32")

    return word


RANDOM_WORDS: dict[str, Callable[..., Value]] = {f"philox{n}": _word(n) for n in range(WORDS)}
