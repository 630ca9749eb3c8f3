"""Generated kernels compiled ahead of time: they compile for every architecture, fit, and are built once."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.compiler.triton.emit_cases import (
    FAMILIES,
    Family,
    blend,
    call_of,
    derived,
    layer,
    normalise,
    product,
    soften,
    total,
)
from tests.support.traffic import check_loads_once
from tilewright.compiler.nest import Plan
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton import binaries
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.launch import whole_elements
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.op.op import Call
from tilewright.runtime import cache

TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
HALF = np.float16


def compiled(call: Call, target: str, plan: Plan | None = None):
    _, shapes, strides = whole_elements(call.arrays)
    return compile_plan(plan or lower(call.program), target, shapes, strides)


def check_fits(call: Call, target: str) -> None:
    gpu = Target.parse(target)
    for step, artefact in compiled(call, target):
        assert artefact.shared_bytes <= gpu.shared_memory_limit, step.kernel.name
        assert artefact.threads <= gpu.thread_limit, step.kernel.name
        assert (artefact.registers or 0) * artefact.threads <= gpu.register_limit, step.kernel.name
        check_loads_once(step, artefact)


def empty(*shapes: tuple[int, ...], dtype: object = np.float32) -> tuple[np.ndarray, ...]:
    return tuple(np.empty(shape, dtype) for shape in shapes)


EVERYDAY = {
    "pointwise": lambda: blend.bind(blend.arguments(empty((512, 1024), (512, 1024)), {"alpha": 0.5})),
    "row": lambda: soften.bind(soften.arguments(empty((4096, 4096), dtype=HALF), {})),
    "contraction": lambda: product.bind(product.arguments(empty((512, 512), (512, 512), dtype=HALF), {})),
}


@pytest.mark.parametrize("name", EVERYDAY)
def test_compiles(name: str):
    check_fits(EVERYDAY[name](), "cuda:90")


def test_long_rows_move_sixteen_bytes_at_a_time():
    call = EVERYDAY["row"]()
    ((_, artefact),) = compiled(call, "cuda:90")
    assert "ld.global.v4.b32" in artefact.texts["ptx"]
    assert "st.global.v4.b32" in artefact.texts["ptx"]


def test_half_precision_products_use_tensor_cores():
    ((_, artefact),) = compiled(EVERYDAY["contraction"](), "cuda:90")
    assert "wgmma.mma_async" in artefact.texts["ptx"]


def test_a_second_compilation_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path):
    private = cache.BuildCache(tmp_path / "cache")
    monkeypatch.setattr(binaries, "shared_cache", lambda: private)
    call = EVERYDAY["pointwise"]()
    first = compiled(call, "cuda:90")
    assert private.statistics.builds == 1

    def never(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(binaries, "compile_source", never)
    monkeypatch.setattr(binaries, "shared_cache", lambda: cache.BuildCache(tmp_path / "cache"))
    assert compiled(call, "cuda:90")[0][1].binary == first[0][1].binary


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family_compiles(family: Family, target: str):
    for extents in family.extents[-2:]:
        for dtype in family.dtypes:
            operands = family.operands(extents, dtype)
            check_fits(call_of(family, operands), target)
            if family.differentiable and dtype == np.float32:
                check_fits(derived("vjp", call_of(family, operands)), target)


LARGE = {
    "long rows": lambda: soften.bind(soften.arguments(empty((8, 65536), dtype=HALF), {})),
    "longer rows": lambda: soften.bind(soften.arguments(empty((8, 262144), dtype=HALF), {})),
    "normalise": lambda: normalise.bind(normalise.arguments(empty((4096, 8192), (8192,), dtype=HALF), {})),
    "normalise backward": lambda: derived(
        "vjp", normalise.bind(normalise.arguments(empty((256, 8192), (8192,)), {}))
    ),
    "long rows backward": lambda: derived(
        "vjp", normalise.bind(normalise.arguments(empty((64, 65536), (65536,)), {}))
    ),
    "total": lambda: total.bind(total.arguments(empty((4096, 4096)), {})),
    "single products": lambda: product.bind(product.arguments(empty((1024, 1024), (1024, 1024)), {})),
    "half products": lambda: product.bind(
        product.arguments(empty((4096, 4096), (4096, 4096), dtype=HALF), {})
    ),
    "layer": lambda: layer.bind(layer.arguments(empty((1024, 1024), (1024, 1024), (1024,), dtype=HALF), {})),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LARGE)
def test_large_extents_fit(name: str, target: str):
    check_fits(LARGE[name](), target)


@tw.op
def noisy(x: tw.Tile["... d"], seed: tw.Tile[""]):
    return x * tw.randn(seed, "... d") + 1


@pytest.mark.parametrize("target", ["cuda:90", "hip:gfx942"])
def test_what_must_have_the_same_bits_is_not_contracted(target):
    x = np.empty((4, 1024), np.float32)
    for op, operands, contracts in ((noisy, (x, np.int64(0)), False), (normalise, (x, x[0]), True)):
        call = op.bind(op.arguments(operands, {}))
        for _, artefact in compiled(call, target):
            assert artefact.options["enable_fp_fusion"] is contracts


def test_a_normal_number_is_rounded_step_by_step():
    call = noisy.bind(noisy.arguments((np.empty((4, 1024), np.float32), np.int64(0)), {}))
    ((_, artefact),) = compiled(call, "cuda:90")
    code = artefact.texts["ptx"]
    assert "div.rn.f64" in code and "mul.rn.f64" in code
    assert "fma" not in code
