"""Ops with a large operand and a small result: stores past the caches must begin at a cache line."""

from __future__ import annotations

import numpy as np

import tilewright as tw
from tilewright.runtime import memory


@tw.op
def largest(x: tw.Tile["i j"]):
    """The largest of each row, less the mean of the row."""
    return tw.max(x, "j") - tw.mean(x, "j")


def test_a_small_result_of_a_large_operand_at_every_alignment(monkeypatch):
    x = np.random.default_rng(0).standard_normal((1024, 16384)).astype(np.float32)
    allocate = memory.empty
    for offset in range(0, 64, 16):

        def shifted(shape, dtype, offset=offset):
            if np.prod(shape) * np.dtype(dtype).itemsize >= memory.POOLED_FROM:
                return allocate(shape, dtype)
            raw = allocate((int(np.prod(shape)) * np.dtype(dtype).itemsize + 128,), np.uint8)
            start = -raw.__array_interface__["data"][0] % 64 + offset
            return raw[start : start + raw.size - 128].view(dtype).reshape(shape)

        monkeypatch.setattr(memory, "empty", shifted)
        np.testing.assert_allclose(largest(x), x.max(1) - x.mean(1, dtype=np.float64), rtol=1e-5)
