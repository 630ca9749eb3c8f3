"""Philox4x32-10: random bits as a pure function of a key and a counter.

J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A block is
four 32-bit words from a key of two and a counter of four; equal keys and counters give equal words, on every
target and in any order. The language keys by a seed and counts by position and stream:

    key = (seed mod 2³², seed div 2³²)      counter = (position mod 2³², position div 2³², stream mod 2³², …)
"""

from __future__ import annotations

from typing import Any

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORDS = 4
WORD = 0xFFFFFFFF


def philox(key: tuple[Any, Any], counter: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """The four words of a block: Python integers or uint64 arrays, all below 2³², as are the operands."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & WORD, (first >> 32) ^ c3 ^ k1, first & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def word_of_block(word: int, seed: Any, position: Any, stream: Any) -> np.ndarray:
    """One word of the block of each (seed, position, stream), int64 arrays that broadcast, as int32."""
    key, low, high = (_halves(np.asarray(operand)) for operand in (seed, position, stream))
    return philox(key, (*low, *high))[word].astype(np.uint32).view(np.int32)


def _halves(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bits = value.astype(np.int64).view(np.uint64)
    return bits & np.uint64(WORD), bits >> np.uint64(32)
