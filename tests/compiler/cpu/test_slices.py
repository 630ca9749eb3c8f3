"""Copies of windows, what reads them and what turns its results: slice by slice, through the second cache."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import assert_close, backward_of, extents_of, with_cotangents
from tests.support.contractions import with_wide_vectors
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import channels_last, conv2d, windows
from tests.support.threads import assert_same_bits, on_threads
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import launch, slices
from tilewright.compiler.targets.cpu.contractions import staged
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.recipe import Recipe
from tilewright.compiler.targets.cpu.slices import Sliced
from tilewright.compiler.targets.cpu.toolchain import caches
from tilewright.dsl.program import At, Index, Program, Size
from tilewright.dsl.reference import reference
from tilewright.runtime import memory


@tw.op
def scaled(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"], z: tw.Tile["n o oh ow"], *, by: tw.Scalar = 2.0):
    """An epilogue that reads what belongs to each image, and a scalar."""
    h, w = tw.index("oh") + tw.index("r") - 1, tw.index("ow") + tw.index("s") - 1
    return tw.maximum(by * tw.sum(x.at(h=h, w=w) * k, "c r s") + z, 0)


@tw.op
def numbered(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"]):
    """Which image it is matters."""
    return tw.sum(windows(x, 1, 1, 1) * k, "c r s") + tw.index("n") * tw.size("n")


@tw.op
def grouped(x: tw.Tile["n g c h w"], k: tw.Tile["g o c r s"]):
    return tw.sum(windows(x, 1, 1, 1) * k, "c r s")


@tw.op
def neighbours(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"]):
    """Each image beside the next one."""
    y = tw.sum(windows(x, 1, 1, 1) * k, "c r s")
    return y + tw.sum(windows(x.at(n=tw.index("n") + 1), 1, 1, 1) * k, "c r s")


@tw.op
def lines(x: tw.Tile["n c t"], k: tw.Tile["o c r"]):
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    return 0.25 * tw.sum(x.at(t=a + tw.index("r")) * k, "c r")


CASES = [
    (scaled, ((6, 32, 7, 9), (48, 32, 3, 3), (6, 48, 7, 9))),
    (numbered, ((9, 32, 7, 9), (48, 32, 3, 3))),
    (grouped, ((16, 2, 32, 5, 5), (2, 40, 32, 1, 3))),
    (neighbours, ((16, 32, 7, 7), (33, 32, 3, 3))),
    (lines, ((50, 32, 15), (40, 32, 5))),
    (conv2d, ((16, 32, 7, 7), (35, 32, 3, 3))),
    (channels_last, ((48, 13, 13, 3), (20, 3, 3, 3))),
]
IDS = [op.name for op, _ in CASES]


@pytest.fixture(autouse=True)
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second cache with room for what belongs to one or two small images."""
    small = replace(caches(), l2=112 << 10)
    monkeypatch.setattr(slices, "caches", lambda: small)
    monkeypatch.setattr(staged, "caches", lambda: small)


def drawn(op: tw.Op, shapes, dtype=np.float32, **constants):
    rng = np.random.default_rng(3)
    call = op.bind(op.arguments(tuple(rng.standard_normal(s).astype(dtype) for s in shapes), constants))
    return call.program, dict(call.arrays)


def sliced_steps(program: Program, arrays) -> list[Sliced]:
    """Those of a call on one thread."""
    return [step for step in recipe_of(program, arrays, 1).steps if isinstance(step, Sliced)]


def recipe_of(program: Program, arrays, count: int) -> Recipe:
    with on_threads(count):
        return with_wide_vectors(program).recipe([arrays[p.name] for p in program.tiles], True)


def scalars_of(program: Program) -> dict[str, float]:
    return {p.name: 2.0 for p in program.scalars}


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=IDS)
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.exhaustive), 5])
@pytest.mark.everyday(5)
def test_values_and_gradients(op, shapes, count):
    """On one thread, on several that share out the slices, and on more than there are slices for."""
    for dtype in (np.float32, np.float64) if count == 2 else (np.float32,):
        program, arrays = drawn(op, shapes, dtype)
        backward = backward_of(program)
        given = with_cotangents(backward, arrays, extents_of(program, arrays)) | scalars_of(program)
        for each in (program, backward):
            mine = {p.name: given[p.name] for p in each.tiles}
            with on_threads(count):
                found = CpuExecutable(lower(each)).run(mine, scalars_of(each))
            for result, wanted in zip(found, reference(each, {**mine, **scalars_of(each)}), strict=True):
                assert_close(result, wanted, 64, each.name, 1.0)


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=IDS)
def test_threads_do_not_matter(op, shapes):
    program, arrays = drawn(op, shapes)
    executable = CpuExecutable(lower(program))
    mine = {p.name: arrays[p.name] for p in program.tiles}
    assert_same_bits(lambda: executable.run(mine, scalars_of(program)), (1, 2, 3, 4, 7))


def test_three_kernels_take_one_image_after_the_other():
    program, arrays = drawn(*CASES[0])
    (step,) = sliced_steps(program, arrays)
    assert step.slicing.axis == "n" and step.slicing.length * step.slicing.count == 6
    assert [s.compiled.kernel.kind for s in step.steps] == ["pointwise", "contraction", "pointwise"]


@pytest.mark.parametrize(("images", "length"), [(32, 8), (24, 8), (18, 9), (11, None)])
def test_images_that_leave_their_operand_together_stay_so(images: int, length: int | None):
    program, arrays = drawn(conv2d, ((images, 32, 7, 7), (35, 32, 3, 3)), pad=1)
    assert [step.slicing.length for step in sliced_steps(program, arrays)] == [length] * (length is not None)


def test_what_waits_between_the_kernels_has_no_memory_of_its_own():
    program, arrays = drawn(*CASES[0])
    recipe = recipe_of(program, arrays, 1)
    assert [shape for shape, _ in recipe.buffers] == [(6, 48, 7, 9), (0,), (0,)]


def test_too_few_slices_for_the_threads_are_none():
    program, arrays = drawn(*CASES[0])
    recipe = recipe_of(program, arrays, 5)
    assert len(recipe.steps) == 3 and [len(shape) for shape, _ in recipe.buffers] == [4, 4, 4]


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=IDS)
def test_an_axis_with_a_meaning_is_not_cut(op, shapes):
    """A slice does not know which one it is, nor what lies in others: what goes before that may be cut."""
    program, arrays = drawn(
        op,
        shapes,
        **{"pad": 1} if op is conv2d else {"before": 1, "behind": 1} if op is channels_last else {},
    )
    kernels = [s.compiled.kernel for step in sliced_steps(program, arrays) for s in step.steps]
    assert bool(kernels) == (op is not numbered)
    assert not any(isinstance(node, Index | Size) and node.axis == "n" for k in kernels for node in k.nodes())
    assert not any(isinstance(node, At) and "n" in node.along for k in kernels for node in k.nodes())


@pytest.mark.parametrize("count", [1, 2])
def test_slices_that_lie_in_pieces_are_not_cut(count: int):
    """The copy that a filter's gradient reads has groups inside of images: a group is no stretch of it."""
    program, arrays = drawn(grouped, ((8, 2, 32, 5, 5), (2, 40, 32, 1, 3)), np.float64)
    backward = backward_of(program)
    given = with_cotangents(backward, arrays, extents_of(program, arrays))
    mine = {p.name: given[p.name] for p in backward.tiles}
    steps = [s for s in recipe_of(backward, mine, count).steps if isinstance(s, Sliced)]
    assert all(step.slicing.axis == "n" for step in steps)


def test_what_the_second_cache_holds_is_not_cut(monkeypatch: pytest.MonkeyPatch):
    program, arrays = drawn(*CASES[0])
    monkeypatch.setattr(slices, "caches", caches)
    assert not sliced_steps(program, arrays)


@pytest.mark.parametrize(("share", "cut"), [(0.4, False), (0.6, True)])
def test_what_waits_may_be_more_than_the_second_cache_holds(
    share: float, cut: bool, monkeypatch: pytest.MonkeyPatch
):
    """Of an image's copy and its results, before they are turned, most is still there if half has room."""
    waiting = 4 * (32 + 48) * 14 * 18
    monkeypatch.setattr(staged, "caches", caches)
    monkeypatch.setattr(slices, "caches", lambda: replace(caches(), l2=int(share * waiting)))
    call = drawn(scaled, ((6, 32, 14, 18), (48, 32, 3, 3), (6, 48, 14, 18)))
    assert bool(sliced_steps(*call)) is cut


def test_weights_are_packed_for_all_slices():
    program, arrays = drawn(*CASES[0])
    (step,) = sliced_steps(program, arrays)
    kept = [slices.packs_once(s, apart) for s, apart in zip(step.steps, step.apart, strict=True)]
    assert kept == [False, True, False]
    assert step.steps[1].compiled.schedule.lane_axis == "o"


def test_further_calls_see_their_own_weights():
    """What is packed for all slices of a call is packed anew for the next."""
    program, arrays = drawn(conv2d, ((6, 32, 7, 7), (35, 32, 3, 3)), pad=1)
    executable = CpuExecutable(lower(program))
    for factor in (1, 3):
        given = {name: array * np.float32(factor) for name, array in arrays.items()}
        (found,) = executable.run(given)
        (wanted,) = reference(program, given)
        assert_close(found, wanted, 64, "calls", 1.0)


@pytest.mark.parametrize("count", [1, 2])
def test_without_openmp(monkeypatch: pytest.MonkeyPatch, count: int):
    """As in a child that was forked after its parent had started threads."""
    monkeypatch.setattr(launch._State, "orphaned", True)
    program, arrays = drawn(*CASES[0])
    mine = {p.name: arrays[p.name] for p in program.tiles}
    with on_threads(count):
        (found,) = CpuExecutable(lower(program)).run(mine, scalars_of(program))
    (wanted,) = reference(program, {**mine, **scalars_of(program)})
    assert_close(found, wanted, 64, "no OpenMP", 1.0)


def test_several_threads_of_pythons_at_once():
    program, arrays = drawn(*CASES[0])
    executable, scalars = CpuExecutable(lower(program)), scalars_of(program)
    wanted = [executable.run({**arrays, "x": arrays["x"] * np.float32(n)}, scalars)[0] for n in range(4)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            (found,) = executable.run({**arrays, "x": arrays["x"] * np.float32(number)}, scalars)
            if not np.array_equal(found, wanted[number]):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_results_go_where_they_are_wanted():
    """Also over an operand that is read with them, image by image."""
    program, arrays = drawn(*CASES[0])
    (wanted,) = reference(program, {**arrays, **scalars_of(program)})
    executable = CpuExecutable(lower(program))
    executable.run(arrays, scalars_of(program), (arrays["z"],))
    assert_close(arrays["z"], wanted, 64, "over z", 1.0)


def test_operands_that_lie_otherwise():
    program, arrays = drawn(*CASES[0])
    (wanted,) = reference(program, {**arrays, **scalars_of(program)})
    x = np.repeat(arrays["x"], 2, axis=0)[::2][::-1].copy()[::-1]  # a negative step between images
    (found,) = CpuExecutable(lower(program)).run({**arrays, "x": x}, scalars_of(program))
    assert_close(found, wanted, 64, "backwards", 1.0)
    first = np.broadcast_to(arrays["x"][:1], arrays["x"].shape)
    (wanted,) = reference(program, {**arrays, "x": first, **scalars_of(program)})
    (found,) = CpuExecutable(lower(program)).run({**arrays, "x": first}, scalars_of(program))
    assert_close(found, wanted, 64, "one image for all", 1.0)


def test_memory_does_not_grow():
    program, arrays = drawn(*CASES[0])
    executable = CpuExecutable(lower(program))
    executable.run(arrays, scalars_of(program))
    before = memory.statistics()
    for _ in range(10):
        executable.run(arrays, scalars_of(program))
    assert memory.statistics().live_bytes <= before.live_bytes


@pytest.mark.parametrize(("op", "shapes"), [case for case in CASES if case[0] in (conv2d, lines)])
def test_nothing_is_touched_outside(op, shapes):
    on_guard_pages(op, *shapes)
