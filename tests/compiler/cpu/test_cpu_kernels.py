"""CPU kernels in hostile conditions: layouts, guard pages, threads, instruction sets, failing memory."""

from __future__ import annotations

import functools
import gc
import os
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.threads import assert_same_bits
from tilewright.compiler.nest import Kernel
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import objects, toolchain
from tilewright.compiler.targets.cpu.emit import emit
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.schedule import Schedule, default_schedule
from tilewright.errors import MemoryLimitError
from tilewright.runtime import memory
from tilewright.runtime.cache import BuildCache
from tilewright.runtime.guard import guarded, run_forked


@tw.op
def soften(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def normalise(x: tw.Tile["n d"], w: tw.Tile["d"]):
    centred = x - tw.mean(x, "d")
    return centred * tw.rsqrt(tw.mean(centred * centred, "d") + 1e-5) * w


@tw.op
def layer(x: tw.Tile["m k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
    return tw.tanh(tw.sum(x * w, "k") + b)


@tw.op
def total(x: tw.Tile["n d"]):
    return tw.sum(x * x)


@tw.op
def columns(x: tw.Tile["n d"]):
    return tw.sum(x, "n"), tw.max(x, "n")


@tw.op
def blend(x: tw.Tile["..."], y: tw.Tile["..."]):
    return x * tw.sigmoid(y) + y


SHAPES = {
    soften: lambda n, d: [(n, d)],
    normalise: lambda n, d: [(n, d), (d,)],
    layer: lambda n, d: [(n, d), (5, d), (5,)],
    total: lambda n, d: [(n, d)],
    columns: lambda n, d: [(n, d)],
    blend: lambda n, d: [(n, d), (n, d)],
}
OPS = sorted(SHAPES, key=lambda op: op.name)
EXTENTS = [(0, 3), (3, 0), (1, 1), (2, 7), (3, 64), (5, 65), (33, 17), (2, 1025)]


def draw(op: tw.Op, n: int, d: int, dtype: type = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(n * 1000 + d)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES[op](n, d)]


def as_tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def assert_right(actual: object, expected: object, tolerance: float = 2e-4) -> None:
    for a, e in zip(as_tuple(actual), as_tuple(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), e, rtol=tolerance, atol=tolerance)


LAYOUTS = {
    "transposed": lambda a: np.asfortranarray(a),
    "every other": lambda a: np.repeat(a, 2, a.ndim - 1)[..., ::2],
    "backwards": lambda a: a[::-1, ..., ::-1] if a.ndim > 1 else a[::-1],
    "one row repeated": lambda a: np.broadcast_to(a[:1], a.shape),
    "one column repeated": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "behind an offset": lambda a: np.concatenate([np.zeros(1, a.dtype), a.ravel()])[1:].reshape(a.shape),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_layouts(op: tw.Op, layout: str):
    arrays = [LAYOUTS[layout](a) for a in draw(op, 6, 37)]
    assert_right(op(*arrays), op.reference(*arrays))


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_extents(op: tw.Op, extents: tuple[int, int]):
    arrays = draw(op, *extents)
    with np.errstate(all="ignore"):
        assert_right(op(*arrays), op.reference(*arrays))


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_no_byte_outside_the_operands(op: tw.Op, side: str):
    cases = [draw(op, *extents) for extents in EXTENTS]
    for arrays in cases:
        op(*arrays)  # compiled before the fork

    def touch() -> None:
        tw.set_num_threads(1)
        for arrays in cases:
            fenced = [guarded(a, side) for a in arrays]
            assert_right(op(*fenced), op(*arrays), 0)

    outcome = run_forked(touch)
    assert outcome.kind == "returned", outcome.report


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_results_are_written_inside_their_buffers(op: tw.Op, monkeypatch: pytest.MonkeyPatch):
    from tilewright.runtime.guard import poisoned

    cases = [draw(op, *extents) for extents in EXTENTS]
    expected = [op(*arrays) for arrays in cases]

    def touch() -> None:
        tw.set_num_threads(1)
        for side in ("start", "end"):
            monkeypatch.setattr(memory, "empty", lambda shape, dtype, side=side: poisoned(shape, dtype, side))
            for arrays, wanted in zip(cases, expected, strict=True):
                assert_right(op(*arrays), wanted, 0)

    outcome = run_forked(touch)
    assert outcome.kind == "returned", outcome.report


@tw.op
def weight_gradient(x: tw.Tile["n d"], dy: tw.Tile["n d"]):
    scale = tw.rsqrt(tw.mean(x * x, "d"))
    return dy * scale, tw.sum(dy * x * scale, "n")


def test_stores_past_the_caches_leave_small_buffers_to_lie_anywhere(monkeypatch: pytest.MonkeyPatch):
    """Only big results begin at a cache line, as such stores must."""
    allocate = memory.empty

    def misplaced(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size >= memory.POOLED_FROM:
            return allocate(shape, dtype)
        bytes_ = allocate((size + 128,), np.uint8)
        first = -bytes_.__array_interface__["data"][0] % 64 + 4
        return bytes_[first : first + size].view(dtype).reshape(shape)

    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((1024, 64), np.float32) for _ in range(2))
    call = weight_gradient.bind(weight_gradient.arguments((x, dy), {}))

    def choose(kernel: Kernel, layout: Layout, target: toolchain.CpuTarget, stream: bool) -> Schedule:
        return default_schedule(kernel, layout, target, any(o.accumulate for o in kernel.outputs))

    executable = CpuExecutable(lower(call.program), choose=choose)
    assert any(compiled.schedule.stream for compiled in executable.compiled(call.arrays))
    monkeypatch.setattr(memory, "empty", misplaced)

    def touch() -> None:
        assert_right(executable.run(call.arrays), weight_gradient.reference(x, dy))

    outcome = run_forked(touch)
    assert outcome.kind == "returned", outcome.report


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_same_bits_for_every_thread_count(op: tw.Op):
    arrays = draw(op, 301, 1027)
    assert_same_bits(lambda: op(*arrays), (1, 2, 3, 7))


def test_many_python_threads_make_the_same_first_call():
    @tw.op
    def fresh(x: tw.Tile["n d"]):
        return tw.sum(tw.exp(x * 0.321), "d")

    x = draw(soften, 40, 50)[0]
    outcomes: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: outcomes.append(fresh(x))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 16
    assert all((o == outcomes[0]).all() for o in outcomes)


def test_a_fork_after_parallel_kernels_works():
    x = draw(soften, 700, 900)[0]
    expected = soften(x)

    def again() -> None:
        np.testing.assert_array_equal(soften(x), expected)

    assert run_forked(again, timeout=300).kind == "returned"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_avx2(op: tw.Op):
    if not toolchain.host().is_x86:
        pytest.skip("x86 code cannot run on this machine")
    arrays = draw(op, 33, 67)
    call = op.bind(op.arguments(tuple(arrays), {}))
    results = CpuExecutable(lower(call.program), toolchain.avx2()).run(call.arrays)
    expected = as_tuple(op.reference(*arrays))
    assert_right(tuple(r.reshape(e.shape) for r, e in zip(results, expected, strict=True)), expected)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_neon_lowers_to_vector_instructions(op: tw.Op):
    arrays = draw(op, 33, 67)
    call = op.bind(op.arguments(tuple(arrays), {}))
    executable = CpuExecutable(lower(call.program))
    for compiled in executable.compiled(call.arrays):
        schedule = default_schedule(compiled.kernel, compiled.layout, toolchain.neon())
        assembly = toolchain.assembly(
            emit(compiled.kernel, compiled.layout, schedule, toolchain.neon(), True), toolchain.neon()
        )
        assert schedule.lanes == 4
        assert ".4s" in assembly


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_other_float_types(op: tw.Op, dtype: str):
    kind = {"float64": tw.float64, "float16": tw.float16, "bfloat16": tw.bfloat16}[dtype].numpy
    arrays = [a.astype(kind) for a in draw(op, 9, 35)]
    tolerance = {"float64": 1e-12, "float16": 4e-3, "bfloat16": 3e-2}[dtype]
    result = op(*arrays)
    assert all(r.dtype == kind for r in as_tuple(result))
    assert_right(result, op.reference(*arrays), tolerance)


def test_memory_stays_flat():
    arrays = [draw(op, 60, 70) for op in OPS]
    for op, operands in zip(OPS, arrays, strict=True):
        op(*operands)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc to see the process's memory")
    gc.collect()
    before = resident()
    for _ in range(2000 // len(OPS) + 1):
        for op, operands in zip(OPS, arrays, strict=True):
            op(*operands)
    gc.collect()
    assert resident() - before < 8 << 20


def test_a_failed_allocation_is_a_clear_error_and_the_next_call_works():
    arrays = draw(layer, 40, 50)
    expected = layer(*arrays)
    failures = 0
    for number in range(1, 10):
        try:
            with memory.failing_allocation(number):
                result = layer(*arrays)
        except MemoryLimitError as error:
            failures += 1
            assert "bytes" in str(error).lower() or "MiB" in str(error) or "KiB" in str(error)
        else:
            np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(layer(*arrays), expected)
    assert failures >= 1


def test_a_new_extent_compiles_nothing(monkeypatch: pytest.MonkeyPatch):
    for extents in ((8, 40), (100, 30)):  # few rows, and many brief ones
        normalise(*draw(normalise, *extents))
    monkeypatch.setattr(CpuExecutable, "_compile", lambda *_: pytest.fail("compiled again"))
    for extents in ((3, 9), (100, 41), (1, 1000), (70, 25), (1000, 300)):
        operands = draw(normalise, *extents)
        assert_right(normalise(*operands), normalise.reference(*operands))


def test_programs_that_do_the_same_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    @tw.op
    def gated(x: tw.Tile["n d"], y: tw.Tile["n d"]):
        return x * tw.sigmoid(y) + y

    @tw.op
    def mixed(p: tw.Tile["t c"], q: tw.Tile["t c"]):
        return p * tw.sigmoid(q) + q

    @tw.op
    def other(p: tw.Tile["t c"], q: tw.Tile["t c"]):
        return p * tw.sigmoid(q) - q

    compiled = []
    compile_object = toolchain.compile_object
    monkeypatch.setattr(objects, "shared_cache", functools.cache(lambda: BuildCache(tmp_path / "cache")))
    monkeypatch.setattr(toolchain, "compile_object", lambda *a: compiled.append(a) or compile_object(*a))
    x, y = np.random.default_rng(0).standard_normal((2, 3, 5))
    for op in (gated, mixed, other):
        assert_right(op(x, y), op.reference(x, y))
    assert len(compiled) == 2


@pytest.mark.parametrize("function", [tw.pow, tw.atan2, tw.fmod], ids=lambda f: f.name)
def test_functions_of_a_number_and_a_vector(function):
    @tw.op
    def mixed(x: tw.Tile[""], y: tw.Tile["n"]):
        return function(x, y), function(y, x)

    x, y = np.asarray(1.7), np.linspace(0.3, 4, 37)
    assert_right(mixed(x, y), mixed.reference(x, y), 1e-12)


@tw.op
def soften_images(x: tw.Tile["n h w"]):
    e = tw.exp(x - tw.max(x, "h w"))
    return e / tw.sum(e, "h w"), tw.log(e)


@tw.op
def heights(x: tw.Tile["n h w"]):
    """How many positions of windows of two columns have the largest value."""
    size = tw.size("w")
    first = tw.axis("half", 2) * size // 2
    tap = tw.axis("tap", size // 2 + 1)
    value = tw.where(tap < (tw.index("half") * size + size + 1) // 2 - first, x.at(w=first + tap), -tw.inf)
    return tw.sum(tw.where(value == tw.max(value, "h tap"), 1.0, 0.0), "h tap")


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 5, 7), (2, 3, 33), (2, 70, 3)])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("op", [soften_images, heights], ids=lambda op: op.name)
def test_values_of_rows_along_two_axes_are_kept_as_they_are_walked(op, shape, order):
    """Vectors may run along either axis: what is kept between phases lies along that one."""
    x = np.random.default_rng(0).permutation(float(np.prod(shape)) - np.arange(np.prod(shape)))
    laid_out = (x.reshape(shape) * 0.1).transpose(order).copy().transpose(np.argsort(order))
    assert_right(op(laid_out), op.reference(laid_out), 1e-6)


@tw.op
def spread(s: tw.Tile["a"], x: tw.Tile["a n"]):
    """A number of each row, kept in a register while its lane goes round."""
    return tw.where(x > 0, s, 0)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_needs_no_library(dtype: type):
    rng = np.random.default_rng(0)
    s, x = (rng.standard_normal(shape).astype(dtype) for shape in ((5,), (5, 70)))
    call = spread.bind(spread.arguments((s, x), {}))
    for target in (toolchain.host(), toolchain.avx2()):
        if target.is_host:
            executable = CpuExecutable(lower(call.program), target)
            (found,) = executable.run(dict(call.arrays))
            np.testing.assert_array_equal(found, np.where(x > 0, s[:, None], 0).astype(dtype))
            (compiled,) = executable.compiled(dict(call.arrays))
            assert "__" not in executable.source(compiled, "asm").replace("__TEXT", "")
