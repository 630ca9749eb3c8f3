"""Sums in parts: which contractions are split, that the parts add up, and what stands between them."""

from __future__ import annotations

import functools
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
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable, source
from tilewright.compiler.targets.triton.launch import Recipes, whole_elements
from tilewright.compiler.targets.triton.schedule import Schedule, default_schedule
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.op.op import Call, Op

RNG = np.random.default_rng(2)
HALF = np.float16


def in_parts(parts: int, *given, **more) -> Schedule:
    """The schedule that a kernel would have, its sum in so many parts."""
    schedule = default_schedule(*given, **more)
    return replace(schedule, parts=parts) if given[0].contraction else schedule


def forced(parts: int) -> Callable[..., Schedule]:
    return functools.partial(in_parts, parts)


def call_of(op: Op, *shapes: tuple[int, ...], dtype=np.float32, **scalars) -> Call:
    arrays = tuple(RNG.standard_normal(shape).astype(dtype) for shape in shapes)
    if np.dtype(dtype).kind == "i":
        arrays = tuple(RNG.integers(-9, 9, shape).astype(dtype) for shape in shapes)
    return op.bind(op.arguments(arrays, scalars))


def check(call: Call, parts: int | None = None) -> tuple[np.ndarray, ...]:
    executable = InterpreterExecutable(
        lower(call.program), choose=forced(parts) if parts else default_schedule
    )
    results = executable.run(call.arrays, call.scalars)
    check_results(call.program, {**call.arrays, **call.scalars}, results, ulps=8.0)
    return results


def recipe(call: Call):
    _, shapes, strides = whole_elements(call.arrays)
    return Recipes(lower(call.program), Target.parse("cuda:90")).recipe(shapes, strides)


@tw.op
def scaled(a: tw.Tile["... m k"], b: tw.Tile["k n"], bias: tw.Tile["n"], *, factor: tw.Scalar = 2.0):
    """Two results of one sum."""
    y = tw.sum(tw.exp(a) * b, "k") * factor
    return tw.tanh(y + bias), y


@tw.op
def over_two(a: tw.Tile["m p q"], b: tw.Tile["p q n"]):
    return tw.sum(a * b, ("p", "q"))


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float32, HALF, ml_dtypes.bfloat16, np.float64, np.int32], ids=str)
def test_parts_add_up(dtype, parts):
    check(call_of(product, (2, 17, 200), (200, 9), dtype=dtype), parts)


@pytest.mark.parametrize(
    "call",
    [
        lambda: call_of(scaled, (3, 20, 150), (150, 33), (33,), factor=0.3),
        lambda: call_of(layer, (5, 131), (7, 131), (7,)),
        lambda: call_of(over_two, (6, 7, 30), (7, 30, 5)),
        lambda: call_of(product, (3, 4, 100), (3, 100, 5)),
        lambda: call_of(product, (17, 32), (32, 9)),  # parts that have nothing to add
    ],
)
def test_what_follows_the_sum_is_computed_once_it_is_whole(call):
    check(call(), 4)


def test_operands_may_lie_in_any_way():
    a, b = (
        RNG.standard_normal((150, 20)).astype(np.float32),
        RNG.standard_normal((33, 300)).astype(np.float32),
    )
    check(product.bind(product.arguments((a.T, b[:, ::2].T), {})), 3)


def test_a_gradient_is_split_as_well():
    call = call_of(layer.vjp, (4500, 5), (6, 5), (6,), (4500, 6))
    assert any(step.schedule.parts > 1 for step in recipe(call).steps), "the sum over 4,500 rows"
    check(call)


def test_equal_bits_from_run_to_run():
    call = call_of(product, (16, 4096), (4096, 16))
    first, second = (check(call)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


# --- which are split --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "parts"),
    [
        (((256, 65536), (65536, 256)), 33),  # 4 tiles
        (((16, 8192), (8192, 8192)), 2),  # 64 tiles
        (((64, 4096), (4096, 64)), 4),  # as short as sums and parts may be
        (((64, 4095), (4095, 64)), 1),
        (((4096, 4096), (4096, 4096)), 1),
        (((2048, 8192), (8192, 2048)), 1),
    ],
)
def test_few_tiles_of_long_sums_are_split(shapes, parts):
    call = product.bind(product.arguments(tuple(np.empty(shape, HALF) for shape in shapes), {}))
    steps = recipe(call).steps
    assert steps[0].schedule.parts == parts
    assert len(steps) == 1 + (parts > 1)


def test_the_buffer_between_is_one_of_the_calls():
    found = recipe(call_of(product, (16, 4096), (4096, 16), dtype=HALF))
    (result, _), (sums, shape) = found.buffers
    assert result.name == "y" and sums.name == "product_0_sums"
    assert shape == (4, 16, 16) and sums.dtype.short == "f32"
    first, second = found.steps
    assert first.grid == 4 and first.operands == {"a", "b", "product_0_sums"}
    assert second.operands == {"product_0_sums", "y"}


def test_on_a_device_the_parts_are_two_launches_and_their_memory_goes_back():
    a, b = (RNG.standard_normal(shape).astype(np.float32) for shape in ((16, 4096), (4096, 16)))
    with installed(FakeCuda()) as fake:
        x, y = tw.tensor(a, device="cuda"), tw.tensor(b, device="cuda")
        before = tw.cuda.memory_stats().live_bytes
        for _ in range(2):
            launched = len(fake.launches)
            result = x @ y
        assert [launch.function for launch in fake.launches[launched:]] == ["matmul_0_in_parts", "matmul_0"]
        assert tw.cuda.memory_stats().live_bytes == before + 16 * 16 * 4
        np.testing.assert_allclose(result.cpu().numpy(), a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)


# --- texts ------------------------------------------------------------------------------------------------


def test_golden(golden):
    call = call_of(layer, (20, 4096), (30, 4096), (30,), dtype=HALF)
    golden("triton/sum_in_parts.py.txt", "\n\n".join(source(lower(call.program), call.arrays).values()))


@pytest.mark.parametrize(
    "target",
    [
        "cuda:90",
        *(pytest.param(t, marks=pytest.mark.exhaustive) for t in ("cuda:80", "cuda:100", "hip:gfx942")),
    ],
)
def test_parts_compile_and_fit(target):
    call = call_of(layer, (20, 4096), (30, 4096), (30,), dtype=HALF)
    _, shapes, strides = whole_elements(call.arrays)
    gpu = Target.parse(target)
    steps = compile_plan(lower(call.program), gpu, shapes, strides)
    assert len(steps) == 2
    for _, artefact in steps:
        assert artefact.shared_bytes <= gpu.shared_memory_limit
