"""Schedules as `op.explain` tells them: vectors run along the axis in which the large operand lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tilewright import kernels as K
from tilewright.compiler.targets.cpu import slices
from tilewright.compiler.targets.cpu.toolchain import caches

Shape = tuple[int, int]


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        (K.cross_entropy, (np.empty((64, 512), np.float32), np.zeros(64, np.int64))),
        (K.softmax, ((64, 512),)),
        (K.rms_norm, ((64, 512), (512,))),
        (K.logsumexp, ((64, 512),)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_rows_are_walked_along_their_contiguous_axis(op, operands):
    text = op.explain(*operands)
    first = text[text.index("Forward:") :]
    told = next(line for line in first.splitlines() if line.strip().startswith("CPU"))
    assert "along c" in told or "along d" in told


@tw.op
def total(x: tw.Tile["n d"]):
    return tw.sum(x, "n d")


def test_axes_that_are_walked_as_one_have_the_positions_of_both():
    assert "its part of d=1000000" in " ".join(total.explain((4000, 250)).split())


def test_a_kernel_whose_operand_is_copied_first():
    """Taps of few channels are read from a copy with zeros around it, which has axes of its own."""
    operands = (1, 9, 9, 3), (16, 3, 3, 3)
    text = K.conv2d_channels_last.explain(*operands, padding=1)
    assert "x padded h1+1 w1+1, weight → y" in text
    assert "x padded h1+1 w1+1" in K.conv2d_channels_last.code(*operands, padding=1, grad=True)


@pytest.mark.parametrize(
    ("op", "left", "right", "packed"),
    [
        (K.matmul, (200, 300), (300, 400), "the factor with vectors is packed, the other read where it lies"),
        (K.matmul, (300, 200), (300, 400), "both factors are packed into panels"),
        (K.matmul, (12, 300), (300, 400), "both factors are read where they lie, nothing is packed"),
        (K.linear, (40, 300), (8, 300), "both factors are read where they lie, nothing is packed"),
    ],
)
def test_what_of_a_product_is_packed(op: tw.Op, left: Shape, right: Shape, packed: str):
    left = np.empty(left, np.float32).T if left[1] == 200 else left
    text = " ".join(op.explain(left, right).split())
    assert text.split("CPU ")[1].startswith(packed)


def test_slices_of_which_the_second_cache_holds_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slices, "caches", lambda: replace(caches(), l2=112 << 10))
    operands = (96, 32, 9, 9), (40, 32, 3, 3)
    for text in (K.conv2d.explain(*operands, padding=1), K.conv2d.code(*operands, padding=1)):
        assert "once for each of 12 slices along" in text
