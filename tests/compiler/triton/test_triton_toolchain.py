"""Ahead-of-time compilation, on a machine without a GPU."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.compiler.triton.triton_samples import ADD, HEADER, MATMUL, SOFTMAX
from tilewright.compiler.targets.triton.sources import parameter_names
from tilewright.compiler.targets.triton.toolchain import (
    Artefact,
    Target,
    _Settings,
    compile_source,
    compiler_version,
    cubin_usage,
)
from tilewright.errors import InternalError, ResourceError, TargetError

TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
ADD_SIGNATURE = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "scale": "fp32"}


def compile_add(target="cuda:90", **changes):
    arguments = {"signature": ADD_SIGNATURE, "constexprs": {"BLOCK": 256}, "target": target} | changes
    return compile_source(ADD, "add", **arguments)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_a_binary_and_its_texts(target):
    artefact = compile_add(target, divisible_by_16=("x", "y", "out", "n"))
    assert artefact.binary.startswith(b"\x7fELF")
    assert artefact.target == target
    assert artefact.entry == "add"
    assert artefact.signature == tuple(ADD_SIGNATURE.items())
    assert artefact.hidden_parameters == 2
    assert 0 < artefact.registers <= 255
    assert artefact.local_bytes == 0
    assembly = "ptx" if target.startswith("cuda") else "amdgcn"
    assert {"ttir", "ttgir", "llir", assembly} == set(artefact.texts)
    assert artefact.warp_size == (32 if assembly == "ptx" else 64)
    assert artefact.threads == artefact.num_warps * artefact.warp_size


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["fp16", "bf16", "fp32", "fp64"])
def test_row_kernels_and_dots_compile_for_every_float(target, kind):
    pointers = {"x": f"*{kind}", "out": f"*{kind}"}
    strides = {"columns": "i32", "stride_row": "i64", "stride_column": "i32"}
    softmax = compile_source(
        SOFTMAX, "softmax", signature=pointers | strides, constexprs={"BLOCK": 256}, target=target
    )
    assert softmax.shared_bytes > 0
    import triton.language as tl

    accumulator = tl.float64 if kind == "fp64" else tl.float32
    matmul = compile_source(
        MATMUL,
        "matmul",
        signature=dict.fromkeys("abc", f"*{kind}") | dict.fromkeys("mnk", "i32"),
        constexprs={"BM": 16, "BN": 16, "BK": 16, "ACC": accumulator},
        target=target,
        options={"num_warps": 1},
    )
    assert matmul.binary


def test_divisibility_widens_loads():
    plain = compile_add()
    aligned = compile_add(divisible_by_16=("x", "y", "out", "n"))
    assert "ld.global.v2.b32" not in plain.texts["ptx"]
    assert "v2.b32" in aligned.texts["ptx"] or "v4.b32" in aligned.texts["ptx"]


def test_contraction_is_what_is_asked_for():
    fused = compile_add(options={"enable_fp_fusion": True})
    exact = compile_add(options={"enable_fp_fusion": False})
    assert "fma.rn.f32" in fused.texts["ptx"]
    assert "fma.rn.f32" not in exact.texts["ptx"]


def test_the_same_source_gives_the_same_bytes():
    assert compile_add() == compile_add()


def test_sections_are_plain_bytes_and_read_back():
    artefact = compile_add()
    sections = artefact.sections()
    assert all(isinstance(data, bytes) for data in sections.values())
    assert sections["binary"] == artefact.binary
    assert Artefact.from_sections(sections) == artefact


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("metadata"),
        lambda s: s.pop("binary"),
        lambda s: s.update(metadata=b"{"),
        lambda s: s.update(metadata=b"\xff\xfe"),
        lambda s: s.update(metadata=b"[]"),
        lambda s: s.update(metadata=b'{"format": 0}'),
    ],
)
def test_damaged_sections_are_refused(damage):
    sections = compile_add().sections()
    damage(sections)
    with pytest.raises(ValueError, match="sections"):
        Artefact.from_sections(sections)


def test_triton_s_own_cache_and_the_environment_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    before = dict(os.environ)
    compile_add()
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


def test_threads_may_compile_at_once():
    alone = [compile_add(constexprs={"BLOCK": block}) for block in (128, 256, 512)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda block: compile_add(constexprs={"BLOCK": block}), (128, 256, 512)))
    assert together == alone


def test_threads_with_and_without_line_tables_do_not_meet():
    names = (None, "add.py") * 3
    alone = [compile_add(file_name=name) for name in names]
    assert ".loc" in alone[1].texts["ptx"]
    assert ".loc" not in alone[0].texts["ptx"]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda name: compile_add(file_name=name), names))
    assert together == alone


def test_settings_hold_until_the_last_compilation_leaves():
    from triton import knobs

    before = dict(vars(knobs.compilation)), dict(vars(knobs.cache))
    settings = _Settings()
    with contextlib.ExitStack() as second:
        with settings(line_information=False):
            second.enter_context(settings(line_information=False))
        assert knobs.compilation.disable_line_info
        assert Path(knobs.cache.dir).is_dir()
    assert (dict(vars(knobs.compilation)), dict(vars(knobs.cache))) == before


def test_one_thread_parses_at_a_time(monkeypatch):
    """CPython 3.11 refuses a tree whose building another thread has interrupted."""
    parsing = threading.Lock()

    def parse(text, *arguments, **keywords):
        assert parsing.acquire(blocking=False), "two threads parse at once"
        try:
            time.sleep(0.005)
            return original(text, *arguments, **keywords)
        finally:
            parsing.release()

    original = ast.parse
    monkeypatch.setattr(ast, "parse", parse)

    def work(block):
        parameter_names(ADD, "add")
        return compile_add(constexprs={"BLOCK": block})

    with ThreadPoolExecutor(3) as pool:
        assert all(artefact.binary for artefact in pool.map(work, (128, 256, 512)))


def test_usage_is_read_from_the_cubin():
    artefact = compile_add("cuda:80")
    assert cubin_usage(artefact.binary) == (artefact.registers, artefact.local_bytes)
    assert cubin_usage(b"not an ELF file") == (None, None)


def test_versions_name_triton():
    assert compiler_version().startswith("triton ")


@pytest.mark.parametrize("text", ["cuda", "cuda:9.0", "sm_90", "hip:90", "metal:1", ""])
def test_unknown_targets_are_refused(text):
    with pytest.raises(TargetError, match='write "cuda:'):
        Target.parse(text)


def test_targets_have_their_warp_size():
    assert Target.parse("hip:gfx942").warp_size == 64
    assert Target.parse("hip:gfx1100").warp_size == 32
    assert str(Target.parse("cuda:100")) == "cuda:100"


def test_unknown_options_are_refused():
    with pytest.raises(TargetError, match=r"no option num_wraps for cuda:90; it has .*num_warps"):
        compile_add(options={"num_wraps": 4})


def test_illegal_options_are_refused():
    with pytest.raises(TargetError, match="power of 2"):
        compile_add(options={"num_warps": 3})


def test_too_many_threads_are_refused():
    with pytest.raises(ResourceError, match=r"64 warps of 32 threads.*at most 1024"):
        compile_add(options={"num_warps": 64})


def test_too_much_shared_memory_is_refused():
    import triton.language as tl

    with pytest.raises(
        ResourceError, match=r"needs \d+ bytes of shared memory, but a block of hip:gfx942 has 65536"
    ):
        compile_source(
            MATMUL,
            "matmul",
            signature=dict.fromkeys("abc", "*fp32") | dict.fromkeys("mnk", "i32"),
            constexprs={"BM": 128, "BN": 128, "BK": 128, "ACC": tl.float32},
            target="hip:gfx942",
            options={"num_stages": 2},
        )


def test_errors_in_the_source_name_the_line():
    with pytest.raises(TargetError, match=r"cannot compile kernel 'add' for cuda:90(.|\n)*arrange"):
        compile_source(
            ADD.replace("tl.arange", "tl.arrange"),
            "add",
            signature=ADD_SIGNATURE,
            constexprs={"BLOCK": 256},
            target="cuda:90",
        )


def test_sources_that_are_not_python_are_our_bug():
    with pytest.raises(InternalError, match="does not parse"):
        compile_source(HEADER + "def (", "add", signature={}, target="cuda:90")


def test_missing_kernels_and_parameters_are_our_bug():
    with pytest.raises(InternalError, match="no kernel 'sub'; it has add, scaled"):
        compile_source(ADD, "sub", signature={}, target="cuda:90")
    with pytest.raises(InternalError, match=r"no type was given for the parameters \['scale'\]"):
        compile_add(signature={k: v for k, v in ADD_SIGNATURE.items() if k != "scale"})
    with pytest.raises(InternalError, match=r"no parameters \['z'\]"):
        compile_add(signature=ADD_SIGNATURE | {"z": "i32"})


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.path.insert(0, {folder!r})
import numpy as np
from triton_samples import ADD
from tilewright.compiler.targets.triton.interpreter import interpret
from tilewright.compiler.targets.triton.toolchain import compile_source

signature = {{"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32", "scale": "fp32"}}
for target in ("cuda:90", "hip:gfx942"):
    assert compile_source(ADD, "add", signature=signature, constexprs={{"BLOCK": 64}}, target=target).binary
x = np.arange(100, dtype=np.float32)
out = np.zeros_like(x)
interpret(ADD, "add", (2,), [x, x, out, 100, 2.0], {{"BLOCK": 64}})
assert (out == 3 * x).all()
assert "TRITON_INTERPRET" not in __import__("os").environ
print("fine")
"""


def test_neither_path_needs_torch():
    folder = str(Path(__file__).parent)
    code = WITHOUT_TORCH.format(folder=folder)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_a_process_that_interprets_triton_cannot_compile():
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from triton_samples import ADD
from tilewright.compiler.targets.triton.toolchain import compile_source
compile_source(ADD, "add", signature={ADD_SIGNATURE!r}, constexprs={{"BLOCK": 64}}, target="cuda:90")
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert "TRITON_INTERPRET=1, so nothing can be compiled in it; unset" in done.stderr
