"""A GPU's schedules change the speed of a product, never the product."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tilewright as tw
from tests.support.compare import check_results
from tilewright.autotune.space import triton_contractions
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable
from tilewright.compiler.targets.triton.launch import whole_elements
from tilewright.compiler.targets.triton.schedule import Schedule, default_schedule
from tilewright.compiler.targets.triton.toolchain import Target

TARGET = Target.parse("cuda:90")


@tw.op
def layer(x: tw.Tile["m k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
    return tw.maximum(tw.sum(x * w, "k") + b, 0)


def call_of(m: int, n: int, k: int):
    rng = np.random.default_rng(3)
    arrays = tuple(rng.standard_normal(shape).astype(np.float16) for shape in ((m, k), (n, k), (n,)))
    return layer.bind(layer.arguments(arrays, {}))


def space_of(call) -> list[Schedule]:
    """The schedules of the call's product."""
    found: list[Schedule] = []

    def choose(kernel, layout, extents, target, precision) -> Schedule:
        if not found:
            found.extend(triton_contractions(kernel, layout, extents, target))
        return default_schedule(kernel, layout, extents, target, precision)

    _, shapes, strides = whole_elements(call.arrays)
    InterpreterExecutable(lower(call.program), TARGET, choose)._recipes.recipe(shapes, strides)
    return found


def test_the_default_is_first_and_everything_fits():
    schedules = space_of(call_of(2048, 2048, 2048))
    assert len(set(schedules)) == len(schedules) > 50
    assert schedules[0].parts == 1 and not schedules[0].descriptors and not schedules[0].persistent
    for schedule in schedules[1:]:
        staged = (schedule.block_rows + schedule.block_columns) * schedule.block_depth * 2
        assert staged * schedule.num_stages <= TARGET.shared_memory_limit
    assert {s.descriptors for s in schedules} == {False, True}
    assert {s.persistent for s in schedules} == {0, 132}
    large = {s.subtiles for s in schedules if s.block_rows * s.block_columns >= 128 * 128}
    assert large == {1, 2, 4} != {s.subtiles for s in schedules if s.block_rows == s.block_columns == 64}


def test_long_sums_have_parts_and_small_products_small_tiles():
    schedules = space_of(call_of(64, 64, 16384))
    assert len({s.parts for s in schedules}) == 4
    assert all(s.block_rows * s.block_columns == 64 * 64 for s in schedules[1:])


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(1, 12))])
def test_every_schedule_gives_the_product(part):
    call = call_of(130, 70, 104)
    schedules = space_of(call)
    for schedule in itertools.islice(schedules, part, None, 12 if part else 97):
        choose = chooser(schedule)
        results = InterpreterExecutable(lower(call.program), TARGET, choose).run(call.arrays, call.scalars)
        check_results(call.program, call.arrays, results, ulps=8.0)


@pytest.mark.exhaustive
def test_every_eighth_schedule_compiles():
    call = call_of(1024, 1024, 1024)
    _, shapes, strides = whole_elements(call.arrays)
    for schedule in space_of(call)[::8]:
        ((_, artefact),) = compile_plan(lower(call.program), TARGET, shapes, strides, chooser(schedule))
        assert artefact.shared_bytes <= TARGET.shared_memory_limit


def chooser(schedule: Schedule):
    def choose(kernel, *given) -> Schedule:
        return schedule if kernel.contraction else default_schedule(kernel, *given)

    return choose
