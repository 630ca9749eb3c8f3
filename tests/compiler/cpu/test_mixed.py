"""Groups whose channels share cache lines: some rows are worked on for all groups, while a cache has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu.contractions import sides, sizes
from tilewright.compiler.targets.cpu.contractions.sizes import block_sizes
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.recipe import CompiledKernel
from tilewright.compiler.targets.cpu.toolchain import caches

IMAGE, FILTERS = (3, 14, 19, 5, 9), (5, 11, 3, 3, 9)


@tw.op
def grouped(
    x: tw.Tile["n h w g c"], k: tw.Tile["g o r s c"], b: tw.Tile["g o"], *, stride: int = 1
) -> tw.Tile["n h w g o"]:
    """Nine channels a group: no vector has those of a whole number of groups."""
    h, w = (tw.index(i) * stride + tw.index(tap) - 1 for i, tap in (("h", "r"), ("w", "s")))
    return tw.tanh(tw.sum(x.at(h=h, w=w) * k, "r s c") * 0.1 + b)


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second cache with room for a part of the images."""
    small = replace(caches(), l2=32 << 10)
    monkeypatch.setattr(sides, "caches", lambda: small)
    monkeypatch.setattr(sizes, "caches", lambda: small)


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def contraction_of(*operands: np.ndarray) -> CompiledKernel:
    call = grouped.bind(grouped.arguments(operands, {}))
    return CpuExecutable(lower(call.program)).compiled(dict(call.arrays))[-1]


def test_what_the_second_cache_holds_is_worked_on_group_by_group():
    assert not contraction_of(*drawn(IMAGE, FILTERS, (5, 11))).layout.sides.mixed


@pytest.mark.usefixtures("small_caches")
def test_rows_are_as_many_as_stay_in_the_cache():
    x, k, b = drawn(IMAGE, FILTERS, (5, 11))
    made = contraction_of(x, k, b)
    extents = {"n": 3, "h": 14, "w": 19, "g": 5, "o": 11, "r": 3, "s": 3, "c": 9}
    assert made.layout.sides.mixed
    found = block_sizes(made.kernel, made.schedule, made.layout, extents, 1)
    assert 0 < found.block_m < 3 * 14 * 19 and found.items > 5
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 3, 0)), 0, 3)
    assert not contraction_of(planes, k, b).layout.sides.mixed


@pytest.mark.usefixtures("small_caches")
@pytest.mark.parametrize("stride", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_values_and_gradients_between_pages_without_access(stride: int):
    on_guard_pages(grouped, IMAGE, FILTERS, (5, 11), stride=stride)


@pytest.mark.usefixtures("small_caches")
def test_the_same_bits_for_every_thread_count():
    x, k, b = drawn((4, *IMAGE[1:]), FILTERS, (5, 11))
    assert_same_bits(lambda: grouped(x, k, b), (1, 2, 3, 7))
