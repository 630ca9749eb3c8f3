"""Ops that index (`tests/support/indexing_ops.py`) on the Triton target.

Values, first and second derivatives in the interpreter, which sees every access; binaries for every
architecture.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.emit_cases import check, derived
from tests.support import indexing_ops as ops
from tests.support.indexing_ops import CASES, IndexingCase
from tests.support.layouts import LAYOUTS
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton import layouts, schedule
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable, source
from tilewright.compiler.targets.triton.launch import element_strides
from tilewright.op.op import Call

pytest.importorskip("triton")

TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
EVERY = pytest.mark.parametrize("case", CASES, ids=str)


def call_of(case: IndexingCase, dtype: type = np.float32, whole: type = np.int64) -> Call:
    arguments = [a.astype(dtype if a.dtype.kind == "f" else whole) for a in case.arguments()]
    return case.op.bind(case.op.arguments(arguments, case.constants))


def kinds(call: Call) -> list[str]:
    return [kernel.kind for kernel in lower(call.program).kernels]


def of(op: tw.Op, **constants: int) -> IndexingCase:
    """The first case of an op with these constants."""
    return next(c for c in CASES if c.op is op and c.constants == constants and 0 not in c.shapes[0])


def texts(call: Call) -> list[str]:
    return list(source(lower(call.program), call.arrays).values())


def compiled(call: Call, target: str) -> None:
    shapes = {name: a.shape for name, a in call.arrays.items()}
    strides = {name: element_strides(a) or () for name, a in call.arrays.items()}
    for step, artefact in compile_plan(lower(call.program), target, shapes, strides):
        assert artefact.binary, step.kernel.name


SAMPLE = [
    of(ops.conv2d, stride=2, pad=1),
    of(ops.max_pool, k=3, stride=2, pad=1),
    of(ops.grouped),
    of(ops.embedding),
    of(ops.take_along),
    of(ops.reflect_pad),
    of(ops.segment_mean),
]
SAMPLED = pytest.mark.parametrize("case", SAMPLE, ids=str)


@EVERY
def test_value(case: IndexingCase):
    check(call_of(case), InterpreterExecutable, ulps=64)


@EVERY
def test_backward(case: IndexingCase):
    check(derived("vjp", call_of(case, np.float64)), InterpreterExecutable, ulps=64)


def test_what_a_tile_has_beside_a_window_is_no_maximum():
    """Three positions of a tile of four are of the window; whether they are in the operand is not tested."""
    x = -1 - np.random.default_rng(0).random((2, 8, 9)).astype(np.float32)
    call = ops.max_pool.bind(ops.max_pool.arguments([x], {"k": 3, "stride": 1}))
    check(call, InterpreterExecutable)


def test_a_read_is_guarded_where_its_condition_has_further_axes():
    """The condition comes after the read, along c as well; the read needs the part of it that is its own."""

    @tw.op
    def chosen(x: tw.Tile["n c"], ids: tw.Tile["n"]):
        own = (ids >= 0) & (ids < tw.size("c")) & (tw.index("c") == ids)
        return tw.where(own, 2.0, 1.0), tw.sum(tw.where(own, x.at(c=ids), 0.0), "n")

    x, ids = np.random.default_rng(0).random((4, 5)).astype(np.float32), np.array([1, -100, 3, 5])
    check(chosen.bind(chosen.arguments([x, ids], {})), InterpreterExecutable)


@SAMPLED
def test_second_backward(case: IndexingCase):
    first = derived("vjp", call_of(case, np.float64))
    check(derived("vjp", first, seed=2), InterpreterExecutable, ulps=256)


@SAMPLED
def test_half_precision(case: IndexingCase):
    for dtype in (np.float16, ml_dtypes.bfloat16):
        check(call_of(case, dtype), InterpreterExecutable, ulps=64)


@SAMPLED
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(case: IndexingCase, layout: str):
    call = call_of(case)
    arrays = {name: LAYOUTS[layout](array) for name, array in call.arrays.items()}
    check(replace(call, arrays=arrays), InterpreterExecutable, ulps=64)


@SAMPLED
def test_wide_indices(case: IndexingCase, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layouts, "NARROW_LIMIT", 0)
    call = derived("vjp", call_of(case))
    _, recipe = InterpreterExecutable(lower(call.program)).recipe(call.arrays)
    assert {p.type for s in recipe.steps for p in s.parameters if p.name in s.integers} <= {"i64"}
    check(call, InterpreterExecutable, ulps=64)


@SAMPLED
def test_rows_walked_in_blocks(case: IndexingCase, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule, "LARGEST_ROW", 8)
    monkeypatch.setattr(schedule, "LOOPED_BLOCK", 16)
    check(call_of(case), InterpreterExecutable, ulps=64)
    check(derived("vjp", call_of(case)), InterpreterExecutable, ulps=64)


# --- positions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_positions_of_every_integer(whole: type):
    table, ids = np.arange(12.0).reshape(4, 3), np.array([3, 0, 4, 100, 2], whole)

    @tw.op
    def shifted(table: tw.Tile["row d"], ids: tw.Tile["n"]):
        return table.at(row=ids) + table.at(row=ids - 1) * table.at(
            row=tw.cast(ids, tw.int64) * 2**30 - 2**30
        )

    check(shifted.bind(shifted.arguments((table, ids), {})), InterpreterExecutable)


def test_positions_beyond_32_bits_are_outside():
    ids = np.array([0, 2**32, -(2**32), 2**33 + 1, 1, 2**63 - 1, -(2**63)])
    case = replace(of(ops.embedding), shapes=((2, 3), (7,)), draws=(ops._normal, lambda *_: ids))
    check(call_of(case), InterpreterExecutable)
    check(derived("vjp", call_of(case)), InterpreterExecutable)


def test_arithmetic_with_positions_that_exceeds_32_bits():
    @tw.op
    def far(x: tw.Tile["i j"]):
        i, j = tw.index("i"), tw.index("j")
        place = i * 2**30 + j
        y = tw.where(place < 2**33, x.at(j=(place + i * 2**30) // 2**31), 7)
        return y, place, tw.sum(place * 2**20, "j"), tw.max(j * 2**31, "j")

    check(far.bind(far.arguments((np.ones((9, 5)),), {})), InterpreterExecutable)


def test_quotients_of_positions_round_down():
    @tw.op
    def around(x: tw.Tile["n"]):
        p = tw.index("n") - 7
        return tuple(x.at(n=f) for d in (1, 2, 3, 4, -2, -3, 0) for f in (p // d + 3, p % d))

    check(around.bind(around.arguments((np.arange(20.0),), {})), InterpreterExecutable)


def test_an_operand_that_is_one_value_along_an_indexed_axis():
    x = np.broadcast_to(np.float32(3), (5, 4))
    for op in (ops.unfold, ops.flip, ops.max_pool, ops.second_difference):
        check(op.bind(op.arguments((x,), {})), InterpreterExecutable)


def test_nothing_of_an_empty_operand_is_read():
    @tw.op
    def beside(x: tw.Tile["t"], *, count=4):
        return x.at(t=tw.axis("i", count) - 2, fill=5)

    check(beside.bind(beside.arguments((np.zeros(0),), {})), InterpreterExecutable)


def test_values_that_are_not_finite_stay_where_they_are():
    x = np.zeros((2, 3, 7, 6), np.float32)
    x[0, 1, 0, 0], x[1, 2, 6, 5] = np.inf, np.nan
    k = np.ones((4, 3, 3, 3), np.float32)
    case = replace(of(ops.conv2d, pad=1), draws=(lambda *_: x, lambda *_: k))
    check(call_of(case), InterpreterExecutable)


# --- scatters ---------------------------------------------------------------------------------------------

SCATTERS = [c for c in CASES if "scatter" in kinds(derived("vjp", call_of(c)))]
SCATTERS += [of(ops.histogram), of(ops.batched_scatter)]


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("grid", [1, 8])
def test_scatters_one_by_one_and_all_at_once(few: int, grid: int, monkeypatch: pytest.MonkeyPatch):
    """Tiles of many places and of few, blocks that end within the positions."""
    monkeypatch.setattr(schedule, "FEW_PLACES", few)
    monkeypatch.setattr(schedule, "SMALLEST_GRID", grid)
    monkeypatch.setattr(schedule, "SCATTERED_TILE", 64)
    monkeypatch.setattr(schedule, "MOST_SCATTERED", 16)
    for case in SCATTERS:
        call = call_of(case)
        for one in (call, derived("vjp", call)):
            if "scatter" in kinds(one):
                check(one, InterpreterExecutable, ulps=64)


@tw.op
def places_of_several_axes(x: tw.Tile["n d"], i: tw.Tile["n"], j: tw.Tile["n d"]):
    whole = tw.cast(tw.floor(x * 100), tw.int64)
    at = {"i": i, "j": j}
    return tw.scatter_add(x, at, {"i": 3, "j": 5}, over="n"), tw.scatter_add(whole, at, {"i": 3, "j": 5})


def test_places_of_several_axes_and_whole_numbers():
    rng = np.random.default_rng(0)
    i, j = rng.integers(-1, 4, 40), rng.integers(-1, 6, (40, 3))
    i[:4] = 2**62, -(2**62), 2**63 - 1, -(2**63)
    x = rng.standard_normal((40, 3))
    call = places_of_several_axes.bind(places_of_several_axes.arguments((x, i, j), {}))
    check(call, InterpreterExecutable)


def test_a_place_that_does_not_depend_on_what_is_summed():
    @tw.op
    def fixed(x: tw.Tile["n d"], at: tw.Tile["d"]):
        third = tw.scatter_add(x, {"m": tw.size("d") // 2}, 7, over="n")
        return third, tw.scatter_add(x, {"m": at}, 7, over="n"), tw.scatter_add(x, {"m": 2}, 7, over="n d")

    x = np.random.default_rng(0).standard_normal((16, 5))
    check(fixed.bind(fixed.arguments((x, np.array([1, 0, 7, 3, -1])), {})), InterpreterExecutable)


@pytest.mark.parametrize("few", [0, 1000])
def test_what_is_not_finite_goes_to_its_own_place(few: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule, "FEW_PLACES", few)
    x = np.ones((19, 35), np.float32)
    x[0, 1], x[5, 2], x[7, :] = np.inf, -np.inf, np.nan
    case = replace(of(ops.segment_mean), draws=(lambda *_: x, ops._below(4)))
    check(call_of(case), InterpreterExecutable)


def test_one_by_one_has_the_bits_of_a_loop_over_the_positions():
    values = (np.random.default_rng(0).standard_normal((300, 2)) * 1e4).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 17, 300)
    expected = np.zeros((17, 2), np.float32)
    for row, value in zip(ids, values, strict=True):
        expected[row] += value
    call = derived("vjp", call_of(replace(of(ops.embedding), shapes=((17, 2), (300,)))))
    arrays = {**call.arrays, "ids": ids, "d_y": values}
    (actual,) = InterpreterExecutable(lower(call.program)).run(arrays)
    assert np.array_equal(actual, expected)


# --- what the text must be like -----------------------------------------------------------------------------


def test_a_convolution_that_stays_inside_tests_no_position():
    (text,) = texts(call_of(of(ops.conv2d)))
    assert "size_h" not in text and ">=" not in text
    (text,) = texts(call_of(of(ops.conv2d, pad=1)))
    assert "(h >= 0) & (h < size_h) & (w >= 0) & (w < size_w)" in " ".join(text.split())


def test_what_a_loop_does_not_change_is_added_up_before_it():
    (text,) = texts(call_of(of(ops.conv2d, stride=2, pad=1)))
    before, inside = text.split("for start")
    assert "h_start = oh[:, None] * 2 - 1" in before
    assert "h = h_start + r[None, :]" in inside


def test_positions_that_fit_are_32_bits_wide():
    for case in (of(ops.conv2d, pad=1), of(ops.grouped), of(ops.max_pool), of(ops.diagonal)):
        for call in (call_of(case), derived("vjp", call_of(case))):
            assert "int64" not in "".join(texts(call))
    (text,) = texts(call_of(of(ops.embedding), whole=np.int32))
    assert "int64" not in text


def test_a_stride_is_phases_and_its_products_are_half_precision():
    """Positions that a stride leaves out are not visited: no product is of a value that a mask makes 0."""
    kernels = texts(derived("vjp", call_of(of(ops.conv2d, stride=2, pad=1), np.float16)))
    products = [" ".join(text.split()) for text in kernels if "tl.dot" in text]
    assert len(products) == 2 and len(kernels) == 3
    for text in products:
        assert "& 1" not in text and "% 2" not in text and "== 0" not in text
        assert "ieee" not in text


def test_a_fill_is_what_the_load_gives():
    (text,) = texts(call_of(of(ops.max_pool, k=3, stride=2, pad=1)))
    assert 'other=float("-inf")' in text and "tl.where" not in text


def test_few_places_are_compared_at_once_many_are_looked_for():
    few = call_of(replace(of(ops.segment_mean), constants={"segments": 4}))
    many = call_of(replace(of(ops.segment_mean), constants={"segments": 4000}))
    assert "picked" not in "".join(texts(few))
    assert "picked" in "".join(texts(many))
    assert "atomic" not in "".join(texts(few) + texts(many))


# --- binaries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [of(ops.conv2d, pad=1), of(ops.embedding)], ids=str)
def test_compiles(case: IndexingCase):
    compiled(call_of(case, np.float16), "cuda:90")


def test_scatters_compile():
    many = replace(of(ops.embedding), shapes=((64, 33), (7,)))
    compiled(derived("vjp", call_of(many)), "cuda:90")
    compiled(call_of(of(ops.histogram)), "cuda:90")


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@EVERY
def test_binaries(case: IndexingCase, target: str):
    for dtype in (np.float32, np.float16):
        compiled(call_of(case, dtype), target)
        compiled(derived("vjp", call_of(case, dtype)), target)
