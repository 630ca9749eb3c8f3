"""The launch path and device memory: on a driver made of host memory, and on a real card."""

from __future__ import annotations

import gc
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.triton_samples import ADD, MATMUL, SOFTMAX
from tests.support.fake_cuda import (
    ILLEGAL_ADDRESS,
    NO_BINARY,
    NO_DEVICE,
    OUT_OF_MEMORY,
    OUT_OF_RESOURCES,
    FakeCuda,
)
from tilewright.compiler.targets.triton import driver
from tilewright.compiler.targets.triton.driver import LoadedKernel, address_of, bfloat16_bits, packing
from tilewright.compiler.targets.triton.toolchain import Artefact, compile_source
from tilewright.errors import (
    ArgumentError,
    InternalError,
    LaunchError,
    MemoryLimitError,
    ResourceError,
    TargetError,
)
from tilewright.runtime import cuda
from tilewright.runtime.cuda import arrays, cards
from tilewright.runtime.cuda import driver as cuda_driver


@pytest.fixture
def install():
    """Puts a fake driver in place of the real one, and everything back afterwards."""

    def use(fake: FakeCuda) -> FakeCuda:
        cuda.use_bindings(fake)
        return fake

    yield use
    gc.collect()
    cuda.use_bindings(None)


@pytest.fixture
def fake(install):
    return install(FakeCuda())


def artefact(**changes) -> Artefact:
    fields = {
        "target": "cuda:90",
        "entry": "add",
        "binary": b"cubin",
        "binary_kind": "cubin",
        "texts": {},
        "signature": (("x", "*fp32"), ("n", "i32"), ("scale", "fp32")),
        "hidden_parameters": 2,
        "num_warps": 4,
        "num_ctas": 1,
        "warp_size": 32,
        "shared_bytes": 1024,
    }
    return Artefact(**(fields | changes))


def bits(code: str, value) -> int:
    return int.from_bytes(struct.pack("<" + code, value), "little")


# Devices


def test_importing_touches_no_driver():
    code = (
        "import sys, tilewright.runtime.cuda as c; assert not any(m.startswith('cuda') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_driver_the_reason_is_given(install):
    broken = install(FakeCuda())

    def no_library(flags):
        raise RuntimeError("libcuda.so.1 not found\nsecond line")

    broken.cuInit = no_library
    assert not cuda.is_available()
    assert cuda.device_count() == 0
    with pytest.raises(
        TargetError, match=r"no CUDA device: there is no NVIDIA driver .*not found\), or use the CPU"
    ):
        cuda.card()


def test_without_the_package_the_remedy_is_given(monkeypatch):
    monkeypatch.setattr(cuda_driver.importlib.util, "find_spec", lambda name: None)
    cuda.use_bindings(None)
    with pytest.raises(
        TargetError, match=r"cuda-bindings is not installed; install .*tilewright\[cuda\].*use the CPU"
    ):
        cuda.bindings()
    cuda.use_bindings(None)


def test_a_broken_package_is_not_fatal(monkeypatch):
    def broken():
        raise ImportError("wrong version")

    monkeypatch.setattr(cuda_driver, "import_bindings", broken)
    monkeypatch.setattr(cuda_driver.importlib.util, "find_spec", lambda name: object())
    cuda.use_bindings(None)
    assert "cannot be imported (wrong version)" in cuda.unavailable_reason()
    cuda.use_bindings(None)


def test_no_device_is_unavailable(install):
    install(FakeCuda(devices=0))
    assert "finds no device" in cuda.unavailable_reason()
    failing = install(FakeCuda())
    failing.failing["cuInit"] = NO_DEVICE
    assert "does not start: CUDA_ERROR_100: what went wrong" in cuda.unavailable_reason()


def test_availability_is_asked_once(fake):
    assert all(cuda.is_available() for _ in range(3))
    assert fake.calls.count("cuInit") == 1


def test_properties(fake):
    properties = cuda.card().properties
    assert properties.name == "Fake GPU"
    assert properties.capability == (9, 0)
    assert properties.target == "cuda:90"
    assert properties.memory_bytes_per_second == pytest.approx(3.35e12, rel=0.01)
    assert cuda.card() is cuda.card(0)


def test_devices_that_do_not_exist(fake):
    with pytest.raises(TargetError, match="no CUDA device 3: there are 1, counted from 0"):
        cuda.card(3)


def test_forked_children_are_told(fake, monkeypatch):
    cuda.card()
    monkeypatch.setattr(cards.os, "getpid", lambda: -1)
    with pytest.raises(TargetError, match=r'forked .*get_context\("spawn"\)'):
        cuda.card()


# Memory


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_])
def test_arrays_travel_there_and_back(fake, dtype):
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for array in (x, x.transpose(2, 0, 1), x[:, ::-1], x[:0], x[1, 2, 3]):
        buffer = arrays.from_numpy(np.asarray(array))
        assert buffer.is_contiguous
        np.testing.assert_array_equal(buffer.to_numpy(), array)


def test_views_read_what_they_show(fake):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    buffer = arrays.from_numpy(x)
    part = x[1:3, ::-2]
    view = buffer[1:3, ::-2]
    assert not view.is_contiguous
    np.testing.assert_array_equal(view.to_numpy(), part)
    assert buffer.laid_out((3, 4), (0, 4)).to_numpy().shape == (3, 4)


def test_views_stay_inside(fake):
    buffer = arrays.empty((4,), np.float32)
    for shape, strides, first in [((5,), (4,), 0), ((4,), (4,), 1), ((2,), (-4,), 0), ((2,), (16,), 0)]:
        with pytest.raises(TargetError, match="reaches outside"):
            buffer[first:].laid_out(shape, strides)


def test_memory_is_freed_with_its_last_view(fake):
    buffer = arrays.empty((8,), np.float32)
    view = buffer[::2]
    del buffer
    gc.collect()
    assert cuda.memory_stats().live_bytes == 512
    assert len(fake.memory) == 1
    del view
    gc.collect()
    assert cuda.memory_stats().live_bytes == 0
    assert cuda.memory_stats().cached_bytes == 512
    cuda.empty_cache()
    assert not fake.memory


def test_devices_without_pools_allocate_plainly(install):
    fake = install(FakeCuda(MEMORY_POOLS_SUPPORTED=0))
    arrays.empty((8,), np.float32)
    gc.collect()
    assert "cuMemAlloc" in fake.calls
    assert "cuMemAllocAsync" not in fake.calls
    cuda.empty_cache()
    assert not fake.memory


def test_filling(fake):
    buffer = arrays.empty((3,), np.float32)
    buffer.fill_bytes(255)
    assert np.isnan(buffer.to_numpy()).all()
    with pytest.raises(TargetError, match="contiguous"):
        buffer[::2].fill_bytes(0)


def test_wrong_copies_are_refused(fake):
    buffer = arrays.empty((3,), np.float32)
    with pytest.raises(TargetError, match=r"float64\[3\] into a contiguous array float32\[3\]"):
        buffer.write(np.zeros(3))
    with pytest.raises(TargetError, match="cannot copy"):
        buffer.write(np.zeros(4, np.float32))


def test_exhausted_memory_says_how_much(fake):
    cuda.card()
    fake.failing["cuMemAllocAsync"] = OUT_OF_MEMORY
    with pytest.raises(MemoryLimitError, match=r"cannot allocate 4.0 GiB on cuda:0: .*Delete Tensors"):
        arrays.empty((2**30,), np.float32)


def test_streams_events_and_other_libraries(fake):
    stream, begin, end = cuda.Stream(), cuda.Event(), cuda.Event()
    begin.record(stream.handle)
    end.record(stream.handle)
    stream.synchronize()
    assert end.milliseconds_since(begin) == 1.25
    assert cuda.memory_info() == (80 * 2**30, 80 * 2**30)
    buffer = arrays.empty((2, 3), np.float32)
    assert buffer.__cuda_array_interface__["data"] == (buffer.address, False)
    assert "float32[2, 3]" in repr(buffer)


# Launches


def test_parameters_are_packed_in_slots():
    kinds = ["*fp32", "i1", "i8", "i16", "i32", "i64", "u32", "u64", "fp16", "bf16", "fp32", "fp64"]
    layout = packing([(f"p{i}", kind) for i, kind in enumerate(kinds)], 2)
    assert layout.size == 8 * (len(kinds) + 2)
    with pytest.raises(InternalError, match="no packing for the type 'tensordesc'"):
        packing([("d", "tensordesc")], 0)


def test_a_launch_passes_everything(fake):
    fake.parameter_count = 5
    kernel = LoadedKernel(artefact())
    x = arrays.empty((16,), np.float32)
    kernel.launch((7, 2), [x, -3, 0.5], stream=11)
    (launch,) = fake.launches
    assert (launch.function, launch.grid, launch.block) == ("add", (7, 2, 1), (128, 1, 1))
    assert (launch.shared, launch.stream) == (1024, 11)
    assert launch.slots == [x.address, bits("i", -3), bits("f", 0.5), 0, 0]


def test_launches_see_their_own_arguments(fake):
    fake.parameter_count = 5
    kernel = LoadedKernel(artefact())
    kernel.launch((1,), [1, 2, 3.0])
    kernel.launch((1,), [4, 5, 6.0])
    assert [launch.slots[0] for launch in fake.launches] == [1, 4]


def test_small_floats_are_rounded_to_nearest_even(fake):
    fake.parameter_count = 4
    kernel = LoadedKernel(artefact(signature=(("a", "bf16"), ("b", "fp16"))))
    kernel.launch((1,), [1.00390625, 0.1])
    assert fake.launches[0].slots[:2] == [0x3F80, bits("e", 0.1)]
    values = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert [bfloat16_bits(float(v)) for v in values] == expected.tolist()
    assert bfloat16_bits(float("nan")) == 0x7FC0


def test_empty_grids_launch_nothing(fake):
    kernel = LoadedKernel(artefact())
    kernel.launch((0,), [1, 2, 3.0])
    kernel.launch((4, 0), [1, 2, 3.0])
    assert not fake.launches


def test_scratch_memory_is_given_and_taken_back(fake):
    fake.parameter_count = 5
    kernel = LoadedKernel(artefact(global_scratch_bytes=64))
    kernel.launch((3,), [1, 2, 3.0])
    assert fake.launches[0].slots[3] != 0
    assert fake.launches[0].slots[4] == 0
    assert cuda.memory_stats().live_bytes == 0


def test_large_shared_memory_is_asked_for(fake):
    LoadedKernel(artefact(shared_bytes=100_000))
    assert fake.asked_for == ("add", 8, 100_000)


def test_cooperative_kernels_launch_so(fake):
    fake.parameter_count = 5
    LoadedKernel(artefact(cooperative=True)).launch((1,), [1, 2, 3.0])
    assert fake.launches[0].cooperative


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": "cuda:100"}, TargetError, "compiled for cuda:100, but Fake GPU is cuda:90"),
        ({"target": "cuda:80"}, TargetError, "compiled for cuda:80"),
        ({"target": "hip:gfx942"}, TargetError, "is for hip:gfx942; this is an NVIDIA device"),
        ({"num_ctas": 2}, TargetError, "num_ctas=1"),
        ({"shared_bytes": 300_000}, ResourceError, "needs 300000 bytes of shared memory"),
        ({"num_warps": 64}, ResourceError, "asks for 2048 threads"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(fake, changes, error, message):
    with pytest.raises(error, match=message):
        LoadedKernel(artefact(**changes))


def test_older_kernels_run_on_their_successors(install):
    install(FakeCuda(COMPUTE_CAPABILITY_MAJOR=8, COMPUTE_CAPABILITY_MINOR=9))
    assert LoadedKernel(artefact(target="cuda:80"))


@pytest.mark.parametrize(
    ("call", "code", "error", "message"),
    [
        ("cuModuleLoadData", NO_BINARY, TargetError, "loading kernel 'add': .*another architecture"),
        ("cuLaunchKernel", OUT_OF_RESOURCES, ResourceError, "launching kernel 'add': .*more registers"),
        (
            "cuLaunchKernel",
            ILLEGAL_ADDRESS,
            LaunchError,
            r"launched last: add\).*cannot use the device any more",
        ),
        ("cuLaunchKernel", 1, TargetError, "launching kernel 'add': CUDA_ERROR_1"),
    ],
)
def test_driver_errors_become_ours(fake, call, code, error, message):
    fake.failing[call] = code
    fake.parameter_count = 5
    with pytest.raises(error, match=message):
        LoadedKernel(artefact()).launch((1,), [1, 2, 3.0])


def test_failures_that_show_later_name_the_kernels(fake):
    fake.parameter_count = 5
    LoadedKernel(artefact()).launch((1,), [1, 2, 3.0])
    fake.failing["cuCtxSynchronize"] = ILLEGAL_ADDRESS
    with pytest.raises(LaunchError, match=r"waiting for cuda:0: .*launched last: add"):
        cuda.synchronize()


def test_grids_beyond_the_limits_are_refused(fake):
    fake.failing["cuLaunchKernel"] = 1
    kernel = LoadedKernel(artefact())
    with pytest.raises(ResourceError, match=r"a grid of \(1, 70000, 1\)"):
        kernel.launch((1, 70000), [1, 2, 3.0])


def test_wrong_arguments_are_refused(fake):
    kernel = LoadedKernel(artefact())
    with pytest.raises(InternalError, match=r"takes \['x', 'n', 'scale'\]; 2 arguments were given"):
        kernel.launch((1,), [1, 2])
    with pytest.raises(ArgumentError, match="n: i32 = 4294967296"):
        kernel.launch((1,), [1, 2**32, 1.0])
    with pytest.raises(ArgumentError, match="arrays on the device, not ndarray"):
        kernel.launch((1,), [np.zeros(3), 2, 1.0])


def test_addresses_of_other_libraries_arrays():
    class Torch:
        def data_ptr(self):
            return 17

    class Cupy:
        @property
        def __cuda_array_interface__(self):
            return {"data": (18, False)}

    assert [address_of(v) for v in (Torch(), Cupy(), 19, None)] == [17, 18, 19, 0]


# What the fake stands for


def test_a_plan_on_numpy_arrays_gives_numpy_arrays():
    """Operands are copied with the strides and gaps that they have."""
    from tests.support.fake_cuda import installed
    from tilewright.compiler.pipeline import compile_program

    @tw.op
    def scaled(x: tw.Tile["... d"], w: tw.Tile["d"]):
        return x * w - tw.mean(x, "d")

    x = np.arange(48, dtype=np.float32).reshape(4, 12)[::2, ::-3]
    w = np.float32([1, 2, 3, 4])
    program = scaled.bind(scaled.arguments((x, w), {})).program
    names = [p.name for p in program.tiles]
    with installed(FakeCuda()):
        executable = compile_program(program, "cuda:0")
        out = np.empty((2, 4), np.float32)
        (result,) = executable.run(dict(zip(names, (x, w), strict=True)))
        executable.run(dict(zip(names, (x, w), strict=True)), None, (out,))
        (again,) = executable.prepared([x, w])([x, w])
    expected = x * w - x.mean(1, keepdims=True)
    for found in (result, out, again):
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_fake_has_the_functions_that_the_driver_has():
    real = pytest.importorskip("cuda.bindings.driver")
    ours = {
        name: value for name, value in vars(FakeCuda).items() if name.startswith("cu") and name[2].isupper()
    }
    assert len(ours) > 40
    for name, function in ours.items():
        told = getattr(real, name).__doc__.splitlines()[0]
        given = told[told.index("(") + 1 : told.rindex(")")]
        count = function.__code__.co_argcount - 1
        assert len([part for part in given.split(",") if part.strip()]) == count, told


# A real card


@pytest.fixture(scope="module")
def card():
    if not cuda.is_available():
        pytest.skip(cuda.unavailable_reason())
    return cuda.card().properties.target


@pytest.mark.gpu
def test_addition_on_the_card(card):
    n = 100_003
    x, y = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
    signature = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "scale": "fp32"}
    exact = {"enable_fp_fusion": False}
    compiled = compile_source(
        ADD, "add", signature=signature, constexprs={"BLOCK": 512}, target=card, options=exact
    )
    kernel = LoadedKernel(Artefact.from_sections(compiled.sections()))
    out = arrays.empty((n,), np.float32)
    out.fill_bytes(255)
    kernel.launch((-(-n // 512),), [arrays.from_numpy(x), arrays.from_numpy(y), out, n, 0.5])
    np.testing.assert_array_equal(out.to_numpy(), x + np.float32(0.5) * y)
    cuda.synchronize()


@pytest.mark.gpu
def test_row_softmax_on_the_card(card):
    x = np.random.default_rng(1).standard_normal((64, 1000)).astype(np.float32)
    names = ("columns", "stride_row", "stride_column")
    signature = {"x": "*fp32", "out": "*fp32"} | dict.fromkeys(names, "i32")
    compiled = compile_source(
        SOFTMAX, "softmax", signature=signature, constexprs={"BLOCK": 1024}, target=card
    )
    out = arrays.empty(x.shape, x.dtype)
    stream = cuda.Stream()
    given = arrays.from_numpy(x, stream=stream)
    LoadedKernel(compiled).launch((64,), [given, out, 1000, 1000, 1], stream.handle)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(out.to_numpy(stream), e / e.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.gpu
def test_matmul_with_much_shared_memory_on_the_card(card):
    import triton.language as tl

    m = n = k = 512
    generator = np.random.default_rng(2)
    a, b = (generator.standard_normal((512, 512)).astype(np.float16) for _ in range(2))
    signature = dict.fromkeys("ab", "*fp16") | {"c": "*fp32"} | dict.fromkeys("mnk", "i32")
    tiles = {"BM": 128, "BN": 128, "BK": 64, "ACC": tl.float32}
    options = {"num_warps": 8, "num_stages": 3}
    compiled = compile_source(
        MATMUL, "matmul", signature=signature, constexprs=tiles, target=card, options=options,
        divisible_by_16=("a", "b", "c", "m", "n", "k"),
    )  # fmt: skip
    assert compiled.shared_bytes > driver.SHARED_WITHOUT_ASKING
    c = arrays.empty((m, n), np.float32)
    given = [arrays.from_numpy(v) for v in (a, b)]
    begin, end = cuda.Event(), cuda.Event()
    begin.record()
    LoadedKernel(compiled).launch((4, 4), [*given, c, m, n, k])
    end.record()
    assert end.milliseconds_since(begin) > 0
    np.testing.assert_allclose(c.to_numpy(), a.astype(np.float32) @ b.astype(np.float32), atol=1e-2)


@pytest.mark.gpu
def test_registers_agree_with_the_driver(card):
    signature = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "scale": "fp32"}
    compiled = compile_source(ADD, "add", signature=signature, constexprs={"BLOCK": 512}, target=card)
    kernel = LoadedKernel(compiled)
    bindings = cuda.bindings()
    attribute = bindings.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NUM_REGS
    assert cuda.check(bindings.cuFuncGetAttribute(attribute, kernel.function), "asking") == compiled.registers
