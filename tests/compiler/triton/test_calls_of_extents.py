"""What the extents of a call make of its kernels on a GPU: fewer bytes moved, and the same numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.compiler.cpu import test_long_rows as long
from tests.compiler.cpu.test_unmoved import channels_last, gradient
from tests.compiler.triton.emit_cases import layer, product, soften
from tests.support.campaigns import KINDS, campaign, derivatives, on
from tests.support.compare import check_results
from tests.support.fake_cuda import FakeCuda, installed
from tests.support.indexing_ops import conv2d
from tilewright.compiler import chunks
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton import calls, launch
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable
from tilewright.compiler.targets.triton.launch import Recipe, whole_elements
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.compiler.targets.triton.traffic import traffic_of
from tilewright.dsl.program import Program
from tilewright.op.op import Call, Op

HALF = np.float16
RNG = np.random.default_rng(14)
TARGETS = ["cuda:90", *(pytest.param(t, marks=pytest.mark.exhaustive) for t in ("cuda:80", "hip:gfx942"))]


def drawn(*shapes: tuple[int, ...], dtype=np.float32) -> tuple[np.ndarray, ...]:
    if np.dtype(dtype).kind == "i":
        return tuple(RNG.integers(-9, 9, shape).astype(dtype) for shape in shapes)
    return tuple(RNG.standard_normal(shape).astype(dtype) for shape in shapes)


def bound(op: Op, *arrays: np.ndarray, **constants) -> Call:
    return op.bind(op.arguments(arrays, constants))


def recipe(call: Call) -> Recipe:
    return recipe_of(call.program, dict(call.arrays))


def recipe_of(program: Program, arrays: dict[str, np.ndarray]) -> Recipe:
    return InterpreterExecutable(lower(program), Target.parse("cuda:90")).recipe(arrays)[1]


def check(call: Call) -> None:
    results = InterpreterExecutable(lower(call.program)).run(call.arrays, call.scalars)
    check_results(call.program, {**call.arrays, **call.scalars}, results, ulps=8.0)


def moved(program: Program, arrays: dict[str, np.ndarray], target: str = "cuda:90") -> tuple[int, int]:
    """Bytes that all kernels load and store, and the multiply-adds of their tile products."""
    _, shapes, strides = whole_elements(arrays)
    total = products = 0
    for step, artefact in compile_plan(lower(program), target, shapes, strides):
        traffic = traffic_of(artefact, (step.grid,), step.integers)
        pointers = [p.name for p in step.parameters if p.kind == launch.POINTER]
        total += sum(traffic.loaded(name) + traffic.stored(name) for name in pointers)
        products += traffic.multiplied
    return total, products


# --- products of vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, HALF, ml_dtypes.bfloat16, np.float64, np.int32], ids=str)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 40, 70), (70, 40, 1), (30, 1, 50), (1, 70, 1), (1, 1, 1)])
def test_products_with_vectors_have_no_tiles(m, k, n, dtype):
    for shapes in (((m, k), (k, n)), ((3, m, k), (3, k, n))):
        call = bound(product, *drawn(*shapes, dtype=dtype))
        (step,) = recipe(call).steps
        assert step.kernel.contraction is None and "tl.dot" not in step.emitted.text
        check(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bound(layer, *drawn((2, 9, 48), (1, 48), (1,))),
        lambda: bound(layer, *drawn((1, 1, 48), (24, 48), (24,))),
        lambda: bound(layer.vjp, *drawn((40, 1), (56, 1), (56,), (40, 56))),
        lambda: bound(layer.vjp, *drawn((1, 24), (56, 24), (56,), (1, 56))),
        lambda: bound(product, RNG.standard_normal((70, 30)).T, RNG.standard_normal((140, 1))[::2]),
        lambda: bound(conv2d, *drawn((1, 5, 7, 7), (1, 5, 3, 3)), stride=2, pad=1),
        lambda: bound(conv2d, *drawn((2, 1, 5, 5), (3, 1, 1, 1))),
    ],
)
def test_whatever_is_around_products_with_vectors(call):
    check(call())


def test_long_sums_of_few_results_are_still_split():
    call = bound(product, *drawn((1, 8192), (8192, 3)))
    first, second = recipe(call).steps
    assert first.schedule.parts > 1 and second.kernel.row
    check(call)


@pytest.mark.parametrize("target", TARGETS)
def test_a_product_with_a_vector_moves_the_fewest_bytes(target):
    a, b = np.empty((1024, 1024), HALF), np.empty((1024, 1), HALF)
    call = bound(product, a, b)
    total, products = moved(call.program, dict(call.arrays), target)
    vector = 1024 * b.nbytes  # read again for each row, from a cache
    assert (total, products) == (a.nbytes + vector + 2 * 1024, 0)


# --- windows of one position ------------------------------------------------------------------------------


def test_a_convolution_of_one_tap_is_a_product():
    call = bound(conv2d, *drawn((2, 8, 6, 6), (16, 8, 1, 1)))
    (step,) = recipe(call).steps
    assert "inside" not in step.emitted.text and "tl.dot" in step.emitted.text
    check(call)


# --- copies that move nothing -----------------------------------------------------------------------------


def strided(edge: int, stride: int) -> tuple[Program, dict[str, np.ndarray]]:
    return gradient(channels_last, *drawn((2, edge, edge, 16), (16, 3, 3, 16)), stride=stride, pad=1)


@pytest.mark.parametrize(
    ("edge", "stride", "shared"), [(8, 2, 1), (7, 2, 0), (9, 3, 1), (8, 3, 0), (9, 2, 0)]
)
def test_gradients_of_strides_are_written_where_they_belong(edge, stride, shared):
    program, arrays = strided(edge, stride)
    found = recipe_of(program, arrays)
    assert [step.kernel.kind for step in found.steps] == ["contraction"]
    assert len(found.inside) == shared and len(found.buffers) == 1
    results = InterpreterExecutable(lower(program)).run(arrays)
    check_results(program, arrays, results, ulps=8.0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("edge", [8, 7])
def test_what_is_not_copied_is_not_moved(edge, target, monkeypatch: pytest.MonkeyPatch):
    """Neither what lies as the result does, nor what a product writes at its places."""
    program, arrays = strided(edge, 2)
    fewer, products = moved(program, arrays, target)
    monkeypatch.setattr(launch, "inside_results", lambda *given: {})
    monkeypatch.setattr(calls, "placed", lambda *given: {})
    more, again = moved(program, arrays, target)
    assert more - fewer >= 2 * 4 * 2 * edge * edge * 16 and products == again


@pytest.mark.parametrize("edge", [8, 7])
def test_gradients_of_strides_on_a_device(edge):
    x, k, dy = drawn((2, edge, edge, 4), (4, 3, 3, 4), (2, 4, 4, 4))
    (expected, *_) = channels_last.vjp(x, k, dy, stride=2, pad=1)
    with installed(FakeCuda()) as fake:
        filters, slope = tw.tensor(k, device="cuda"), tw.tensor(dy, device="cuda")
        for _ in range(3):
            there = tw.tensor(x, device="cuda", requires_grad=True)
            y = channels_last(there, filters, stride=2, pad=1)
            launched = len(fake.launches)
            y.backward(slope)
            np.testing.assert_allclose(there.grad.cpu().numpy(), expected, rtol=1e-5, atol=1e-4)
            assert len(fake.launches) == launched + 1, "one kernel, which writes the gradient itself"


# --- few long rows ----------------------------------------------------------------------------------------


@pytest.fixture
def short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a test's length are long, and have many chunks."""
    monkeypatch.setattr(calls, "WORTH_A_LAUNCH", 1)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 24)


@pytest.mark.parametrize("extents", [(1, 300), (3, 333), (4, 1025)], ids=str)
@pytest.mark.parametrize("op", long.OPS, ids=lambda op: op.name)
def test_chunks_of_rows(op: Op, extents: tuple[int, int], short_enough: None):
    call = bound(op, *long.draw(op, *extents))
    assert any(step.kernel.split is not None for step in recipe(call).steps)
    check(call)


@pytest.mark.parametrize("dtype", [HALF, np.float64], ids=str)
def test_chunks_of_other_dtypes_and_of_gradients(dtype, short_enough: None):
    check(bound(soften, *drawn((2, 3, 111), dtype=dtype)))
    check(bound(soften.vjp, *drawn((2, 3, 111), (2, 3, 111), dtype=dtype)))


def test_few_long_rows_have_work_for_a_whole_device():
    call = bound(soften, np.empty((2, 1 << 20), HALF))
    steps = recipe(call).steps
    assert [step.grid for step in steps if step.kernel.split] == [2 * 64, 2 * 64]
    assert max(step.grid for step in steps) >= 264
    many = bound(soften, np.empty((512, 1 << 18), HALF))
    assert len(recipe(many).steps) == 1


@pytest.mark.parametrize("extents", [(9, 300), (16, 65), (37, 70)], ids=str)
def test_chunks_of_rows_beside_sums_across_them(extents: tuple[int, int], short_enough: None):
    """The rows' own results in chunks of rows, the gradients of a weight in those of columns."""
    call = bound(long.norm_gradient, *long.draw(long.norm_gradient, *extents))
    steps = recipe(call).steps
    assert [step.kernel.split.of for step in steps if step.kernel.split] == ["row", "row"]
    check(call)


@pytest.mark.parametrize(("rows", "width"), [(8, 1_000_000), (64, 131_072), (200, 100_000)])
def test_gradients_of_few_long_rows_have_work_for_a_whole_device(rows: int, width: int):
    x = np.empty((rows, width), np.float32)
    steps = recipe(bound(long.norm_gradient, x, x[0], x)).steps
    pieces = [step for step in steps if step.kernel.split]
    assert len(pieces) == 2 and all(step.grid >= 264 for step in pieces)
    short = np.empty((64, 4096), np.float32)
    alone, *_ = recipe(bound(long.norm_gradient, short, short[0], short)).steps
    assert alone.kernel.split and alone.kernel.split.of == "parallel"


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_sums_across_chunks_of_rows_compile_and_move_the_fewest_bytes(target):
    x, parts = np.empty((16, 1 << 17), np.float32), 4
    call = bound(long.norm_gradient, x, x[0].copy(), x.copy())
    assert [s.kernel.split.of for s in recipe(call).steps if s.kernel.split] == ["row", "row"]
    total, _ = moved(call.program, dict(call.arrays), target)
    weight = 16 + parts  # once for each row, and for each part of those
    sums = 2 * (2 * parts + 1)  # two of them, their parts written and read
    least = 5 * x.nbytes + (weight + sums) * x[0].nbytes
    assert least <= total < 1.01 * least


@tw.op
def column_sums(x: tw.Tile["n d"], y: tw.Tile["n d"]):
    return tw.sum(x * y, "n"), tw.max(x, "n")


@tw.op
def channel_norm(x: tw.Tile["n c s"]):
    centred = x - tw.mean(x, "n s")
    return centred * tw.rsqrt(tw.mean(centred * centred, "n s") + 1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bound(column_sums, *drawn((333, 5), (333, 5))),
        lambda: bound(column_sums, *drawn((150, 200), (150, 200), dtype=HALF)),
        lambda: bound(column_sums, *(a[:, ::3] for a in drawn((90, 40), (90, 40)))),
        lambda: bound(column_sums.vjp, *drawn((77, 5), (77, 5), (5,), (5,))),
        lambda: bound(channel_norm, *drawn((5, 3, 49))),
        lambda: bound(channel_norm, drawn((5, 49, 3))[0].transpose(0, 2, 1)),
        lambda: bound(channel_norm.vjp, *drawn((4, 3, 25), (4, 3, 25))),
    ],
)
def test_chunks_of_columns(call, short_enough: None):
    assert any(step.kernel.split is not None for step in recipe(call()).steps)
    check(call())


@pytest.mark.parametrize("shape", [(1 << 20, 64), (8192, 1024), (1 << 20, 3), (65536, 256)])
def test_sums_of_columns_have_work_for_a_whole_device(shape):
    x = np.broadcast_to(np.zeros((), HALF), shape)
    x = np.lib.stride_tricks.as_strided(x, strides=(2 * shape[1], 2))  # never read
    first, second = recipe(bound(column_sums, x, x)).steps
    assert first.grid >= 132 and second.kernel.row
    short = np.empty((512, 1024), HALF)
    assert len(recipe(bound(column_sums, short, short)).steps) == 1


@pytest.mark.parametrize("target", TARGETS)
def test_chunks_of_columns_read_all_once(target):
    x = np.empty((16384, 128), HALF)
    call = bound(column_sums, x, x.copy())
    total, _ = moved(call.program, dict(call.arrays), target)
    assert 2 * x.nbytes <= total < 1.1 * 2 * x.nbytes


@pytest.mark.parametrize("target", TARGETS)
def test_chunks_compile_and_move_what_a_program_alone_would(target):
    call = bound(soften, np.empty((2, 1 << 18), HALF))
    total, _ = moved(call.program, dict(call.arrays), target)
    whole = 4 * call.arrays["x"].nbytes  # read for each of three phases, and written
    assert whole <= total < 1.02 * whole


# --- random programs --------------------------------------------------------------------------------------

check_random = on(InterpreterExecutable)


@pytest.fixture
def always_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "WORTH_A_LAUNCH", 0)
    monkeypatch.setattr(chunks, "ELEMENTS_A_CHUNK", 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_programs_in_chunks(kind: str, always_cut: None):
    campaign(check_random, 300, **KINDS[kind])()


@pytest.mark.exhaustive
@pytest.mark.parametrize("indexing", (False, True))
def test_many_random_derivatives_in_chunks(indexing: bool, always_cut: None):
    derivatives(check_random, 300, indexing=indexing)()


@tw.op
def mean_distance(x: tw.Tile["n m"], y: tw.Tile["n m"]):
    return tw.sqrt(tw.mean((x - y) * (x - y), "n m"))


@pytest.mark.parametrize(("shape", "launches"), [((4, 4), 1), ((128, 128), 1), ((128, 129), 2)])
def test_a_sum_of_one_chunk_is_one_launch(shape: tuple[int, int], launches: int):
    rng = np.random.default_rng(5)
    call = bound(mean_distance, *(rng.standard_normal(shape).astype(np.float32) for _ in range(2)))
    made = recipe(call)
    assert len(made.steps) == launches and len(made.buffers) == launches
    check(call)
