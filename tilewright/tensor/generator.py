"""Generators: where the seeds of random numbers come from when nobody names one.

A generator is a seed and a count. Its n-th seed is a Philox block of both, so that two numbers say
everything about what it will give, and equal states give equal numbers on every machine and target.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from tilewright.dsl.philox import WORD, philox
from tilewright.errors import ArgumentError
from tilewright.op import storage
from tilewright.op.binding import where
from tilewright.runtime import capturing
from tilewright.tensor.tensor import Tensor

# No op draws from this stream: those given by hand count up from 0, automatic ones down from -1.
STREAM_OF_SEEDS = (0, 0x80000000)


class Generator:
    """A source of seeds; threads may share it. Without a seed it starts anywhere."""

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._seed = int.from_bytes(os.urandom(8)) if seed is None else _checked(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again at a seed; gives the generator."""
        with self._lock:
            self._seed, self._count = _checked(seed), 0
        return self

    def initial_seed(self) -> int:
        """The seed that it started at."""
        return self._seed

    def next_seed(self) -> int:
        """A new int64 for the next op that draws."""
        capturing.refuse(
            "it draws random numbers, which would be the same in every call",
            "pass them, or a seed, as a Tensor",
        )
        with self._lock:
            seed, count = self._seed, self._count
            self._count += 1
        counter = (count & WORD, count >> 32, *STREAM_OF_SEEDS)
        low, high, _, _ = philox((seed & WORD, seed >> 32), counter)
        return _signed(high << 32 | low)

    def get_state(self) -> Tensor:
        """Seed and count, as an int64 Tensor that `tw.save` can keep."""
        with self._lock:
            return Tensor._make(np.array([_signed(self._seed), self._count], np.int64))

    def set_state(self, state: Any) -> None:
        """Go on from what `get_state` gave."""
        values = np.asarray(storage.host(state._array) if isinstance(state, Tensor) else state)
        if values.shape != (2,) or values.dtype != np.int64 or values[1] < 0:
            raise ArgumentError(
                f"{where('set_state')}: this is no state of a generator; pass what get_state gave"
            )
        with self._lock:
            self._seed, self._count = _checked(int(values[0])), int(values[1])

    def __repr__(self) -> str:
        return f"<Generator seed={self._seed} count={self._count}>"


def _checked(seed: Any) -> int:
    """A seed as 64 bits without a sign."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not -(2**63) <= seed < 2**64:
        raise ArgumentError(f"{where('manual_seed')}: a seed is an integer of 64 bits, got {seed!r}")
    return int(seed) % 2**64


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Start the default generator at a seed: what `tw.rand`, dropout and `nn.init` draw from; gives it."""
    return default_generator.manual_seed(seed)


def seed_from(generator: Generator | None) -> np.ndarray:
    """The next seed of a generator, or of the default one, as an operand."""
    if generator is None:
        generator = default_generator
    if not isinstance(generator, Generator):
        raise ArgumentError(
            f"{where('generator')}: expected a tw.Generator, got {type(generator).__qualname__}; "
            f"write tw.Generator(seed)"
        )
    return np.asarray(generator.next_seed(), np.int64)
