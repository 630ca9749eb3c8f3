"""From text to object and back to an address; targets; bindings; what happens where a part is missing."""

from __future__ import annotations

import ctypes
import gc
import importlib
import mmap
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tilewright.compiler.targets.cpu import bindings as bindings_module
from tilewright.compiler.targets.cpu import loading, toolchain
from tilewright.compiler.targets.cpu.builder import F32, I32, PTR, Builder
from tilewright.errors import InternalError, TargetError


def sum_of_squares(target) -> str:
    """One vector accumulator over 1024 floats: loads, an fma, a reduction."""
    b = Builder(target)
    lanes = target.lanes("f32")
    vector = F32.vector(lanes)
    with b.function("squares", args=[("frame", PTR)]) as (frame,):
        x, y = b.load(frame, PTR), b.load(b.offset(frame, 8), PTR)
        with b.loop(0, 1024, lanes, carried=[b.constant(0.0, vector)]) as loop:
            v = b.load(b.offset(x, b.mul(loop.index, 4)), vector)
            loop.yield_(b.fma(v, v, loop.carried[0]))
        b.store(b.reduce("add", loop.results[0]), y)
    return b.module()


def call(object_bytes: bytes, name: str, *arrays: np.ndarray) -> None:
    frame = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
    loaded = loading.load(object_bytes)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address(name))(ctypes.addressof(frame))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("target", [toolchain.host(), toolchain.avx2()], ids=lambda target: target.name)
def test_object_runs(target, plain):
    if not target.is_host:
        pytest.skip("another architecture")
    x, y = np.arange(1024, dtype=np.float32), np.zeros(1, np.float32)
    call(toolchain.compile_object(sum_of_squares(target), target, plain), "squares", x, y)
    np.testing.assert_allclose(y[0], float(x.astype(float) @ x), rtol=1e-6)


def test_objects_are_the_same_every_time():
    target = toolchain.host()
    text = sum_of_squares(target)
    assert toolchain.compile_object(text, target) == toolchain.compile_object(text, target)


def test_few_passes_are_all_where_llvmlite_lacks_one(monkeypatch):
    target = toolchain.host()
    text = sum_of_squares(target)
    everything = toolchain.optimised_ir(text, target)
    assert toolchain.optimised_ir(text, target, plain=True) != everything
    monkeypatch.setattr(toolchain, "PLAIN_PASSES", (*toolchain.PLAIN_PASSES, "not_yet_known"))
    assert toolchain.optimised_ir(text, target, plain=True) == everything


def test_what_compiles_a_kernel_is_freed(monkeypatch):
    """The passes that optimise a kernel are freed with it: a process that compiles many must not grow."""
    from llvmlite.binding.newpassmanagers import NewPassManager

    free, freed = NewPassManager._dispose, []
    monkeypatch.setattr(NewPassManager, "_dispose", lambda manager: freed.append(free(manager)))
    for count in (1, 2):
        toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host())
        gc.collect()
        assert len(freed) == count


def test_registers_of_each_target():
    avx512 = toolchain.CpuTarget("avx512", "x86_64-unknown-linux-gnu", "x86-64-v4", "", 512)
    wide = toolchain.assembly(sum_of_squares(avx512), avx512)
    assert "zmm" in wide
    assert "vfmadd" in wide
    middle = toolchain.assembly(sum_of_squares(toolchain.avx2()), toolchain.avx2())
    if toolchain.avx2().is_x86:
        assert "ymm" in middle
        assert "zmm" not in middle
    arm = toolchain.assembly(sum_of_squares(toolchain.neon()), toolchain.neon())
    assert "fmla" in arm
    assert ".4s" in arm
    assert "\tbl\t" not in arm  # no call to a software fma


def test_targets_know_their_lanes():
    assert toolchain.avx2().lanes("f32") == 8
    assert toolchain.avx2().lanes("f64") == 4
    assert toolchain.neon().lanes("bf16") == 8
    assert toolchain.host().lanes("f32") in (4, 8, 16)
    assert toolchain.avx2().registers == 16
    assert toolchain.neon().registers == 32


def test_text_names_no_machine():
    text = sum_of_squares(toolchain.host())
    assert toolchain.host().cpu not in text
    assert "target-cpu" not in text


def test_compiling_is_silent(capfd):
    toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host())
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_caches_are_plausible(monkeypatch, tmp_path):
    found = toolchain.caches()
    assert 8 << 10 <= found.l1d <= found.l2
    assert found.line in (32, 64, 128)
    monkeypatch.setattr(toolchain, "Path", lambda _: tmp_path)
    assert toolchain.caches.__wrapped__() == toolchain.Caches()
    for text, size in (("48K", 48 << 10), ("1M", 1 << 20), ("512", 512)):
        assert toolchain._size(text) == size


def test_broken_text_is_a_bug_with_the_text_shown():
    with pytest.raises(InternalError, match="does not parse"):
        toolchain.compile_object("module { nonsense }", toolchain.host())


def test_unknown_architecture_is_a_target_error():
    target = toolchain.CpuTarget("z", "no-such-architecture", "", "", 128)
    with pytest.raises(TargetError, match="no-such-architecture"):
        toolchain.assembly("module {}", target)


def test_missing_symbol_and_damaged_object():
    loaded = loading.load(toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host()))
    with pytest.raises(InternalError, match="no function 'absent'"):
        loaded.address("absent")
    with pytest.raises(InternalError, match="no object file"):
        loading.load(b"not an object")


def test_a_function_that_is_not_in_the_process_is_an_error():
    b = Builder(toolchain.host())
    with b.function("lost", args=[("frame", PTR)]) as (frame,):
        b.call("no_such_function_anywhere", [frame])
    with pytest.raises(InternalError, match="no function 'lost' to call"):
        call(toolchain.compile_object(b.module(), toolchain.host()), "lost")


def test_code_is_freed_with_the_last_reference():
    def bytes_of_code() -> int:
        code = re.findall(r"^(\w+)-(\w+) r-xp 0+ 00:00 0 *$", Path("/proc/self/maps").read_text(), re.M)
        return sum(int(end, 16) - int(start, 16) for start, end in code)

    if not Path("/proc/self/maps").exists():
        pytest.skip("asks Linux for its addresses")
    data = toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host())
    loaded = [loading.load(data) for _ in range(100)]
    for each in loaded:
        each.address("squares")
    with_code = bytes_of_code()
    del loaded, each
    gc.collect()
    assert bytes_of_code() <= with_code - 100 * mmap.PAGESIZE


def test_newer_spellings_become_older_ones():
    ir = (
        "  store float +qnan, ptr %0, align 4\n"
        "  %1 = fcmp oeq double %x, -inf\n"
        "  %2 = select i1 %c, <2 x half> <half +inf, half -qnan>, <2 x half> splat (half +nan(0x1))\n"
        "  ret bfloat +inf\n"
        "  %3 = fadd <2 x float> %2, <float f0x3FB8AA3B, float f0xC0000000>\n"
        "  %4 = fmul double %x, f0x3FF0000000000001\n"
        "  %5 = fmul float %x, 9.200000e-01\n"
        "declare float @llvm.fma.f32(float, float, float) #1\n"
        "define void @f() #0 {\n"
        'attributes #0 = { "a"="+inf" }\n'
        "attributes #1 = { nocreateundeforpoison }\n"
    )
    assert toolchain.prepare(ir) == (
        "  store float 0x7FF8000000000000, ptr %0, align 4\n"
        "  %1 = fcmp oeq double %x, 0xFFF0000000000000\n"
        "  %2 = select i1 %c, <2 x half> <half 0xH7C00, half 0xHFE00>, <2 x half> splat (half 0xH7E00)\n"
        "  ret bfloat 0xR7F80\n"
        "  %3 = fadd <2 x float> %2, <float 0x3FF7154760000000, float 0xC000000000000000>\n"
        "  %4 = fmul double %x, 0x3FF0000000000001\n"
        "  %5 = fmul float %x, 0x3FED70A3E0000000\n"
        "declare float @llvm.fma.f32(float, float, float)\n"
        "define void @f() #0 {\n"
        'attributes #0 = { "a"="+inf" }\n'
    )


def test_old_llvmlite_falls_back_to_the_bindings_own_generator(monkeypatch):
    def too_old(text):
        raise RuntimeError("LLVM IR parsing error")

    with monkeypatch.context() as patch:
        patch.setattr(toolchain.llvm_bindings(), "parse_assembly", too_old)
        object_bytes = toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host())
        if toolchain.host().is_x86:
            with pytest.raises(TargetError, match="pip install -U llvmlite"):
                toolchain.compile_object(sum_of_squares(toolchain.neon()), toolchain.neon())
    x, y = np.ones(1024, np.float32), np.zeros(1, np.float32)
    call(object_bytes, "squares", x, y)
    assert y[0] == 1024


def test_old_bindings_without_translation_still_compile_for_this_machine(monkeypatch):
    found = bindings_module.bindings()
    monkeypatch.delattr(found.llvm, "translate_module_to_llvmir")
    with pytest.raises(TargetError, match="too old"):
        toolchain.llvm_ir("module {}")
    x, y = np.ones(1024, np.float32), np.zeros(1, np.float32)
    call(toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host()), "squares", x, y)
    assert y[0] == 1024


# ---- OpenMP ----


def test_parallel_region_runs_on_every_thread():
    if loading.openmp() is None:
        pytest.skip("no OpenMP runtime")
    b = Builder(toolchain.host())
    with b.function("region", args=[("out", PTR)], private=True) as (out,):
        number = b.call("omp_get_thread_num", [], I32)
        assert number
        b.store(b.add(number, 1), b.offset(out, b.convert(b.mul(number, 4), "i64")))
    with b.function("kernel", args=[("frame", PTR)]) as (frame,):
        body = b.address_of("region")
        b.call("GOMP_parallel", [body, b.load(frame, PTR), b.constant(2, I32), b.constant(0, I32)])
    out = np.zeros(8, np.int32)
    call(toolchain.compile_object(b.module(), toolchain.host()), "kernel", out)
    assert list(out[:2]) in ([1, 2], [1, 0])  # a machine may grant one thread only


def test_no_openmp_runtime_is_none(monkeypatch):
    monkeypatch.setattr(loading, "_openmp_candidates", lambda: ["no-such-library.so", "libm.so.6"])
    assert loading._openmp.__wrapped__() is None


# ---- bindings ----


@pytest.fixture
def fresh_bindings():
    bindings_module.bindings.cache_clear()
    yield
    bindings_module.bindings.cache_clear()


def test_upstream_module_is_preferred(fresh_bindings, monkeypatch):
    for part in ("", ".ir", ".passmanager", ".execution_engine", ".dialects", ".dialects.llvm"):
        monkeypatch.setitem(sys.modules, f"mlir{part}", importlib.import_module(f"torch_mlir{part}"))
    monkeypatch.setattr(bindings_module.importlib.util, "find_spec", lambda name: object())
    found = bindings_module.bindings()
    assert found.name == "mlir"
    assert found.ir.Context


def test_torch_mlir_serves_where_mlir_is_an_empty_placeholder(fresh_bindings, monkeypatch, tmp_path):
    (tmp_path / "mlir").mkdir()
    (tmp_path / "mlir" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlir", raising=False)
    assert bindings_module.bindings().name == "torch_mlir"
    sys.modules.pop("mlir", None)


def test_no_bindings_at_all_says_what_to_install(fresh_bindings, monkeypatch):
    monkeypatch.setattr(bindings_module, "CANDIDATES", ("no_such_bindings",))
    with pytest.raises(TargetError, match="pip install torch-mlir"):
        bindings_module.bindings()


SCATTERED_ADDRESSES = """
import ctypes, mmap, pathlib, sys
from tilewright.compiler.targets.cpu import loading, toolchain

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
RESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # takes addresses, no memory

def reserve(size):
    return libc.mmap(None, size, 0, RESERVED, -1, 0)

# Above 8 GiB that are taken only single pages are free: room for an object's constants, not for its code.
data = pathlib.Path(sys.argv[1]).read_bytes()
loading.load(data)
pages, large = reserve(256 * mmap.PAGESIZE), reserve(8 << 30)
assert large < pages
for size in (1 << 32, 1 << 24, 1 << 16, mmap.PAGESIZE):
    while reserve(size) > large:
        pass
for page in range(0, 256, 2):
    libc.munmap(pages + page * mmap.PAGESIZE, mmap.PAGESIZE)

loaded = [loading.load(data) for _ in range(40)]
x, y = (ctypes.c_float * 1024)(*[1.0] * 1024), (ctypes.c_float * 1)()
frame = (ctypes.c_void_p * 2)(ctypes.addressof(x), ctypes.addressof(y))
for each in loaded:
    y[0] = 0.0
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(each.address("scaled"))(ctypes.addressof(frame))
    assert abs(y[0] - 1024 * 0.4995) < 0.01, y[0]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its addresses")
def test_an_object_keeps_together_where_addresses_are_scattered(tmp_path):
    """As in a process with CUDA's libraries: code cannot read a constant further than 2 GiB away."""
    b = Builder(toolchain.host())
    lanes = toolchain.host().lanes("f32")
    vector = F32.vector(lanes)
    with b.function("scaled", args=[("frame", PTR)]) as (frame,):
        x, y = b.load(frame, PTR), b.load(b.offset(frame, 8), PTR)
        with b.loop(0, 1024, lanes, carried=[b.constant(0.0, vector)]) as loop:
            v, total = b.load(b.offset(x, b.mul(loop.index, 4)), vector), loop.carried[0]
            for i in range(1000):  # pages of code, a page of constants
                total = b.fma(v, b.constant(i * 1e-6, vector), total)
            loop.yield_(total)
        b.store(b.reduce("add", loop.results[0]), y)
    path = tmp_path / "kernel.o"
    path.write_bytes(toolchain.compile_object(b.module(), toolchain.host()))
    subprocess.run([sys.executable, "-c", SCATTERED_ADDRESSES, str(path)], check=True)


def test_loading_imports_no_mlir(tmp_path):
    path = Path(tmp_path) / "kernel.o"
    path.write_bytes(toolchain.compile_object(sum_of_squares(toolchain.host()), toolchain.host()))
    program = (
        "import sys, pathlib\n"
        "from tilewright.compiler.targets.cpu import loading\n"
        f"loading.load(pathlib.Path({str(path)!r}).read_bytes()).address('squares')\n"
        "assert not {'mlir', 'torch_mlir'} & set(sys.modules), 'MLIR was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
