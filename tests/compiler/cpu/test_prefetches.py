"""What is asked for before it is read: every streamed operand once, and nothing that is in the caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.contractions import loops_of, walk_of, with_wide_vectors
from tests.support.indexing_ops import channels_last
from tilewright.compiler.nest import Kernel
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import layout
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.schedule import Schedule, default_schedule
from tilewright.compiler.targets.cpu.toolchain import CpuTarget, avx2, caches


@tw.op
def row_total(x: tw.Tile["n d"]):
    return tw.sum(x, "d")


@tw.op
def total(x: tw.Tile["n d"]):
    return tw.sum(x * x)


@tw.op
def weighted(x: tw.Tile["n d"], w: tw.Tile["d"]):
    """Weights are read again for each row."""
    return tw.sum(x * w, "d")


@tw.op
def soften(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    """Later phases find x in the cache; y is read by the last one alone."""
    e = tw.exp(x - tw.max(x, "d"))
    return tw.sum(e, "d"), tw.sum(y * e / tw.sum(e, "d"), "d")


@tw.op
def shifted(x: tw.Tile["n d"], y: tw.Tile["n d"], b: tw.Tile["d"]):
    return x * y + b


def prefetches(
    op: tw.Op,
    *shapes: tuple[int, ...],
    dtype: type = np.float32,
    target: CpuTarget | None = None,
    lead: int = 4096,
) -> list[int]:
    """How many instructions ask for a line so far ahead, in each kernel of a call: a vector is a line."""
    arrays = tuple(np.zeros(shape, dtype) for shape in shapes)
    call = op.bind(op.arguments(arrays, {}))
    executable = CpuExecutable(lower(call.program), target) if target else with_wide_vectors(call.program)
    found = []
    for compiled in executable.compiled(call.arrays):
        lines = executable.source(compiled).splitlines()
        pages = {line.split("=")[0].strip() for line in lines if f"constant {lead} : i64" in line}
        ahead = {
            line.split("=")[0].strip()
            for line in lines
            if "getelementptr" in line and any(f"[{page}]" in line for page in pages)
        }
        found.append(sum("prefetch" in line and any(f"({p})" in line for p in ahead) for line in lines))
    return found


@pytest.mark.parametrize(
    ("op", "shapes", "expected"),
    [
        (row_total, [(40, 1000)], [5]),
        (total, [(40, 1000)], [5, 5]),  # the partial results, too
        (weighted, [(40, 1000), (1000,)], [5]),
        (soften, [(40, 1000), (40, 1000)], [10]),
    ],
    ids=lambda value: value.name if isinstance(value, tw.Op) else "",
)
def test_each_vector_of_a_step_asks_once_for_each_streamed_operand(op, shapes, expected):
    """Four in the loop, one in that of the ragged end."""
    assert prefetches(op, *shapes) == expected


def test_one_request_a_cache_line():
    assert prefetches(row_total, (40, 1000), dtype=np.float16) == [3]


def test_avx2_asks_for_long_rows_half_a_kilobyte_ahead():
    """Lines of two vectors: of four vectors a step, two ask, and that of the ragged end. Brief rows look a
    page further, as they do everywhere.
    """
    assert prefetches(row_total, (40, 1000), target=avx2(), lead=512) == [3]
    assert prefetches(row_total, (40, 1000), target=avx2()) == [0]
    assert prefetches(row_total, (4000, 40), target=avx2())[0] > 0


def test_rows_across_memory_and_short_rows_ask_for_nothing_along_them():
    assert prefetches(row_total, (4000, 3)) == [0]
    x = np.zeros((1000, 40), np.float32).T
    call = row_total.bind(row_total.arguments((x,), {}))
    executable = CpuExecutable(lower(call.program))
    (compiled,) = executable.compiled(call.arrays)
    assert "prefetch" not in executable.source(compiled)


def test_brief_rows_ask_for_each_of_their_vectors():
    """With one vector a step, or four, and those of the ragged end."""
    assert prefetches(row_total, (4000, 40)) == [2]
    assert prefetches(weighted, (4000, 110), (110,)) == [5]


def test_pointwise_kernels_ask_where_the_last_cache_cannot_hold_what_they_read(monkeypatch):
    """Wherever results go, over an operand too: four vectors a step and a ragged end, of x and of y."""
    shapes = (64, 256), (64, 256), (256,)
    assert prefetches(shifted, *shapes) == [0]
    monkeypatch.setattr(layout, "caches", lambda: replace(caches(), l3=150 << 10))
    assert prefetches(shifted, *shapes) == [10]
    assert prefetches(shifted, (32, 256), (32, 256), (256,)) == [0]


def test_pointwise_kernels_ask_where_their_results_pass_by_the_caches():
    x = np.zeros((64, 256), np.float32)
    call = shifted.bind(shifted.arguments((x, x, x[0]), {}))
    for stream, expected in ((True, True), (False, False)):

        def choose(
            kernel: Kernel, layout: Layout, target: CpuTarget, _: bool, stream: bool = stream
        ) -> Schedule:
            return default_schedule(kernel, layout, target, stream)

        executable = CpuExecutable(lower(call.program), choose=choose)
        (compiled,) = executable.compiled(call.arrays)
        assert ("llvm.intr.prefetch" in executable.source(compiled)) == expected


def asks_for_rows(
    op: tw.Op, *shapes: tuple[int, ...], gradient: bool = False, avx512: bool = False, **constants: int
) -> bool:
    """Whether the loops in which a contraction multiplies ask for what is read later."""
    operands = tuple(np.zeros(shape, np.float32) for shape in shapes)
    call = op.bind(op.arguments(operands, constants))
    program, arrays = call.program, dict(call.arrays)
    if gradient:
        backward = backward_of(program)
        arrays = with_cotangents(backward, arrays, extents_of(program, arrays))
        program = replace(backward, results=backward.results[:1])
        arrays = {p.name: arrays[p.name] for p in program.tiles}
    executable = with_wide_vectors(program) if avx512 else CpuExecutable(lower(program), avx2())
    (made,) = [c for c in executable.compiled(arrays) if c.kernel.contraction]
    assert walk_of(made).direct and not walk_of(made).even
    loops = [loop for loop in loops_of(executable.source(made, "asm")) if any("vfmadd" in i for i in loop)]
    assert loops
    return any("prefetch" in i for loop in loops for i in loop)


@pytest.mark.skipif(not avx2().is_host, reason="code for x86 is not linked on this machine")
def test_rows_of_windows_that_the_machine_foresees():
    """Taps go upwards, and each element is in nine windows: asking for the rest costs more than it brings."""
    image, filters = (2, 20, 20, 64), (64, 3, 3, 64)
    assert not asks_for_rows(channels_last, image, filters, before=1, behind=1)
    assert asks_for_rows(channels_last, image, filters, before=1, behind=1, gradient=True)
    assert asks_for_rows(channels_last, image, filters, before=1, behind=1, stride=2)
    assert asks_for_rows(channels_last, image, (64, 1, 1, 64))
    assert asks_for_rows(channels_last, image, filters, before=1, behind=1, avx512=True)
