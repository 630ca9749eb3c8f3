"""The words of Philox's blocks."""

from __future__ import annotations

from tilewright.compiler.targets.triton.scalar_math.helpers import define
from tilewright.dsl import philox

define(f'''
def philox(seed, position, stream):
    """The four words of Philox4x32-10's block for the key `seed` and the counter (position, stream)."""
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    c0, c1 = position.to(tl.uint32), (position >> 32).to(tl.uint32)
    c2, c3 = stream.to(tl.uint32), (stream >> 32).to(tl.uint32)
    for _ in tl.static_range({philox.ROUNDS}):
        first, second = c0, c2
        c0 = tl.umulhi(second, {philox.MULTIPLIERS[1]}) ^ c1 ^ k0
        c2 = tl.umulhi(first, {philox.MULTIPLIERS[0]}) ^ c3 ^ k1
        c1 = second * {philox.MULTIPLIERS[1]}
        c3 = first * {philox.MULTIPLIERS[0]}
        k0 = k0 + {philox.WEYL[0]}
        k1 = k1 + {philox.WEYL[1]}
    return c0, c1, c2, c3
''')

for _number in range(philox.WORDS):
    define(f'''
def philox{_number}(seed, position, stream):
    """Word {_number} of the block."""
    w0, w1, w2, w3 = philox(seed, position, stream)
    return w{_number}.to(tl.int32, bitcast=True)
''')
