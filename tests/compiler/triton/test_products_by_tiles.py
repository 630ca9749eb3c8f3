"""Persistent programs, descriptors and epilogues in parts: other ways through the same product, chosen by a
schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.emit_cases import layer, product
from tests.support.compare import check_results
from tests.support.fake_cuda import FakeCuda, installed
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton import executable
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable
from tilewright.compiler.targets.triton.launch import Recipes, whole_elements
from tilewright.compiler.targets.triton.schedule import Schedule, default_schedule, with_blocks
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.op.op import Call, Op

RNG = np.random.default_rng(4)
HALF = np.float16


def choosing(**changes) -> Callable[..., Schedule]:
    """The schedule that a kernel would have, but for some fields of contractions."""

    def choose(*given, **more) -> Schedule:
        schedule = default_schedule(*given, **more)
        return replace(schedule, **changes) if given[0].contraction else schedule

    return choose


WAYS = {
    "persistent": choosing(persistent=3),
    "descriptors": choosing(descriptors=True),
    "both": choosing(persistent=2, descriptors=True),
    "halves": choosing(subtiles=2),
    "all": choosing(persistent=5, descriptors=True, parts=2, subtiles=4),
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


def drawn(*shapes: tuple[int, ...], dtype=HALF) -> tuple[np.ndarray, ...]:
    return tuple(RNG.standard_normal(shape).astype(dtype) for shape in shapes)


def call_of(op: Op, *arrays: np.ndarray, **scalars) -> Call:
    return op.bind(op.arguments(arrays, scalars))


def recipe(call: Call, choose: Callable[..., Schedule]):
    _, shapes, strides = whole_elements(call.arrays)
    return Recipes(lower(call.program), Target.parse("cuda:90"), choose).recipe(shapes, strides)


def check(call: Call, choose: Callable[..., Schedule]) -> None:
    results = InterpreterExecutable(lower(call.program), choose=choose).run(call.arrays, call.scalars)
    check_results(call.program, {**call.arrays, **call.scalars}, results, ulps=8.0)


@tw.op
def softened(a: tw.Tile["m k"], b: tw.Tile["k n"], c: tw.Tile["m n"], *, factor: tw.Scalar = 2.0):
    """Something before the product, whose value at 0 is not 0, and after it."""
    return tw.tanh(tw.sum(tw.exp(a) * b, "k") * factor) + c


@tw.op
def residual(a: tw.Tile["m k"], b: tw.Tile["k n"], bias: tw.Tile["n"], c: tw.Tile["m n"]):
    return tw.maximum(tw.sum(a * b, "k") + bias, 0) + c


@tw.op
def much(
    a: tw.Tile["m k"], b: tw.Tile["k n"], bias: tw.Tile["n"], scale: tw.Tile["m"], c: tw.Tile["m n"],
    table: tw.Tile["rows n"], rows: tw.Tile["m"], *, factor: tw.Scalar = 2.0,
):  # fmt: skip
    """Everything that may follow a sum: along rows, along columns, at computed positions; several results."""
    y = tw.sum(a * b, "k") * factor + bias
    below = tw.index("m") >= tw.index("n")
    turned = c.at(n=tw.size("n") - 1 - tw.index("n"))
    return tw.where(below, y, 0) * tw.rsqrt(scale * scale + 1), y > turned, c + table.at(rows=rows) * y


# --- numbers ----------------------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize("dtype", [np.float32, HALF, ml_dtypes.bfloat16, np.float64], ids=str)
def test_every_way_gives_the_product(way, dtype):
    check(call_of(product, *drawn((72, 104), (104, 136), dtype=dtype)), WAYS[way])


@EVERY_WAY
@pytest.mark.parametrize(
    "call",
    [
        lambda: call_of(product, *drawn((3, 20, 40), (3, 40, 24))),  # a batch
        lambda: call_of(layer, *drawn((2, 9, 48), (24, 48), (24,))),  # rows of two axes, turned weights
        lambda: call_of(softened, *drawn((24, 56), (56, 40), (24, 40)), factor=0.1),
        lambda: call_of(layer.vjp, *drawn((40, 24), (56, 24), (56,), (40, 56))),
        lambda: call_of(product, *drawn((1, 8), (8, 1))),
    ],
)
def test_whatever_is_around_it(way, call):
    check(call(), WAYS[way])


@EVERY_WAY
def test_operands_that_are_not_aligned(way):
    a, b = drawn((40, 51), (51, 25))  # rows of 102 and 50 bytes
    check(call_of(product, a, b), WAYS[way])
    a, b = drawn((40, 57), (48, 33))
    check(call_of(product, a[:, 1:49], b[:, 1:]), WAYS[way])  # addresses that are no multiples of 16


@EVERY_WAY
@pytest.mark.parametrize("columns", [40, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_everything_that_may_follow(way, columns):
    operands = drawn((24, 56), (56, columns), (columns,), (24,), (24, columns), (7, columns))
    check(call_of(much, *operands, RNG.integers(0, 7, 24), factor=0.1), WAYS[way])


def test_parts_of_a_result_may_be_written_over_an_operand():
    a, b, c = drawn((24, 56), (56, 40), (24, 40))
    call = call_of(softened, a, b, c.copy(), factor=0.1)
    (result,) = InterpreterExecutable(lower(call.program), choose=choosing(subtiles=4)).run(
        call.arrays, call.scalars, (call.arrays["c"],)
    )
    assert result is call.arrays["c"]
    check_results(call.program, {**call.arrays, "c": c, **call.scalars}, (result,), ulps=8.0)


def test_turned_operands_have_descriptors_as_well():
    a, b = drawn((48, 24), (32, 48))
    call = call_of(product, a.T, b.T)
    (step,) = recipe(call, WAYS["descriptors"]).steps
    assert set(step.emitted.described) == {"a", "b"}
    assert step.emitted.text.count("_tiles.load(") == 2 == step.emitted.text.count(".T")
    check(call, WAYS["descriptors"])


# --- what is chosen ---------------------------------------------------------------------------------------


def test_persistent_programs_are_no_more_than_there_are_tiles():
    a, b = np.empty((256, 256), HALF), np.empty((256, 256), HALF)
    plain, few, many = (
        recipe(call_of(product, a, b), choosing(persistent=n)).steps[0].grid for n in (0, 5, 1000)
    )
    assert (few, many) == (5, plain)


@pytest.mark.parametrize(
    ("shapes", "described"),
    [
        (((64, 64), (64, 64)), {"a", "b"}),
        (((64, 64), (64, 61)), set()),  # rows of b lie 122 bytes apart
        (((3, 64, 64), (64, 64)), {"b"}),
        (((1, 64), (64, 64)), {"a", "b"}),
    ],
)
def test_descriptors_are_for_aligned_matrices(shapes, described):
    call = call_of(product, *(np.empty(shape, HALF) for shape in shapes))
    (step,) = recipe(call, WAYS["descriptors"]).steps
    assert set(step.emitted.described) <= described
    assert ("make_tensor_descriptor" in step.emitted.text) == bool(step.emitted.described)
    assert (step.plain is not None) == bool(step.emitted.described)


def test_a_call_at_another_address_has_no_descriptors():
    call = call_of(product, *(np.empty((64, 64), HALF) for _ in range(2)))
    (step,) = recipe(call, WAYS["descriptors"]).steps
    assert step.suited(frozenset({"a", "b", "y"})) is step
    other = step.suited(frozenset({"a", "y"}))
    assert other is step.plain and "descriptor" not in other.emitted.text


def test_on_a_device_the_address_decides(monkeypatch):
    @tw.op
    def own_product(a: tw.Tile["m k"], b: tw.Tile["k n"]):
        return tw.sum(a * b, "k")

    defaults = (*executable.TritonExecutable.__init__.__defaults__[:-1], WAYS["both"])
    monkeypatch.setattr(executable.TritonExecutable.__init__, "__defaults__", defaults)
    (a, b) = drawn((41 * 40,), (40, 48))
    with installed(FakeCuda()) as fake:
        x, y = tw.tensor(a, device="cuda"), tw.tensor(b, device="cuda")
        for start, descriptors in ((0, True), (3, False)):
            part = slice(start, start + 40 * 40)
            left = a[part].reshape(40, 40)
            found = own_product(x[part].reshape(40, 40), y).cpu().numpy()
            np.testing.assert_allclose(found, left.astype(np.float64) @ b, rtol=2e-3, atol=2e-2)
            text = list(fake.steps.values())[-1].emitted.text
            assert ("descriptor" in text) == descriptors


# --- texts ------------------------------------------------------------------------------------------------


def test_golden(golden):
    call = call_of(layer, *(np.empty(shape, HALF) for shape in ((256, 128), (192, 128), (192,))))
    (step,) = recipe(call, choosing(persistent=132, descriptors=True)).steps
    golden("triton/persistent_descriptors.py.txt", step.emitted.text)


def test_golden_of_an_epilogue_in_parts(golden):
    call = call_of(residual, *drawn((256, 64), (64, 200), (200,), (256, 200)))
    (step,) = recipe(call, choosing(subtiles=2)).steps
    golden("triton/epilogue_in_parts.py.txt", step.emitted.text)


@pytest.mark.parametrize(
    "target",
    [
        "cuda:90",
        *(pytest.param(t, marks=pytest.mark.exhaustive) for t in ("cuda:80", "cuda:100", "hip:gfx942")),
    ],
)
@pytest.mark.parametrize("dtype", [HALF, pytest.param(np.float32, marks=pytest.mark.exhaustive)], ids=str)
def test_they_compile_and_fit(target, dtype):
    """On Hopper and Blackwell the tiles are copied by the hardware; elsewhere descriptors become pointers."""
    call = call_of(layer, *(np.empty(shape, dtype) for shape in ((512, 512), (512, 512), (512,))))
    _, shapes, strides = whole_elements(call.arrays)
    gpu = Target.parse(target)
    ((step, artefact),) = compile_plan(lower(call.program), gpu, shapes, strides, WAYS["both"])
    assert step.grid == 2
    assert artefact.shared_bytes <= gpu.shared_memory_limit
    if target in ("cuda:90", "cuda:100"):
        assert artefact.texts["ptx"].count("cp.async.bulk.tensor") >= 2
        assert artefact.global_scratch_bytes == 2 * 128, "where a program makes its descriptors"


@pytest.mark.parametrize("target", ["cuda:90", pytest.param("cuda:100", marks=pytest.mark.exhaustive)])
def test_an_epilogue_in_parts_needs_less(target):
    """Of a tile of 128 × 256 whose next loads are under way: no register is spilled, less memory shared."""
    x, bias = np.empty((1024, 1024), HALF), np.empty(1024, HALF)
    call = call_of(residual, x, x, bias, x)
    _, shapes, strides = whole_elements(call.arrays)

    def artefact(subtiles: int):
        changes = {"persistent": 132, "descriptors": True, "num_warps": 8, "subtiles": subtiles}

        def choose(kernel, layout, extents, *given) -> Schedule:
            schedule = default_schedule(kernel, layout, extents, *given)
            return replace(with_blocks(schedule, extents, 128, 256, 64), **changes)

        ((_, artefact),) = compile_plan(lower(call.program), Target.parse(target), shapes, strides, choose)
        return artefact

    whole, parts = artefact(1), artefact(4)
    assert parts.shared_bytes < whole.shared_bytes and parts.registers < whole.registers
    assert parts.local_bytes == 0 < whole.local_bytes


@pytest.mark.parametrize(
    ("target", "dtypes"),
    [
        ("cuda:80", (ml_dtypes.bfloat16, HALF)),
        *(
            pytest.param(target, dtypes, marks=pytest.mark.exhaustive)
            for target in ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
            for dtypes in ((np.float32, np.float32), (np.float32, HALF), (HALF, ml_dtypes.bfloat16))
        ),
    ],
    ids=str,
)
def test_exact_products_fit_the_registers(target, dtypes):
    """No tensor core multiplies such sides exactly: a thread holds parts of them, and may spill none."""
    call = call_of(product, *(np.empty((1024, 1024), dtype) for dtype in dtypes))
    _, shapes, strides = whole_elements(call.arrays)
    ((_, artefact),) = compile_plan(lower(call.program), Target.parse(target), shapes, strides)
    assert artefact.local_bytes == 0
