"""Records of a few fields beside planes: both are read and written as they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tests.support.guarded import on_guard_pages
from tests.support.threads import assert_same_bits
from tilewright.autotune.space import cpu_space
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.compiler.targets.cpu.objects import CompiledKernel
from tilewright.compiler.targets.cpu.schedule import default_schedule


@tw.op
def to_planes(x: tw.Tile["n h w c"]) -> tw.Tile["n c h w"]:
    return x


@tw.op
def to_records(x: tw.Tile["n c h w"]) -> tw.Tile["n h w c"]:
    return x


@tw.op
def normalised(
    x: tw.Tile["h w c"], mean: tw.Tile["c"], scale: tw.Tile["c"], light: tw.Tile["h w"]
) -> tw.Tile["c h w"]:
    """Operands along the fields alone, and along the records alone."""
    return (x - mean) * scale + light


@tw.op
def mixed(x: tw.Tile["t c"], y: tw.Tile["c t"], z: tw.Tile["t c"]) -> tw.Tile["t c"]:
    """Records and planes into records."""
    return x * y + z


@tw.op
def numbered(x: tw.Tile["c t"]) -> tw.Tile["t c"]:
    """What depends on where it is."""
    return x + 10 * tw.index("c") + tw.index("t")


def drawn(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 8, shape).astype(dtype) for shape in shapes]


def compiled(op: tw.Op, *operands: np.ndarray) -> CompiledKernel:
    call = op.bind(op.arguments(operands, {}))
    (kernel,) = CpuExecutable(lower(call.program)).compiled(dict(call.arrays))
    return kernel


CASES = [
    pytest.param(to_planes, [(2, 7, 45, 3)], id="three planes"),
    pytest.param(to_planes, [(1, 1, 2500, 4)], id="more than a work item"),
    pytest.param(to_records, [(2, 3, 7, 45)], id="three fields"),
    pytest.param(to_records, [(3, 8, 1, 64)], id="eight fields"),
    pytest.param(to_records, [(2, 5, 33, 35)], id="five fields"),
    pytest.param(to_records, [(2, 2, 9, 32)], id="pairs"),
    pytest.param(normalised, [(6, 50, 3), (3,), (3,), (6, 50)], id="a picture"),
    pytest.param(mixed, [(99, 6), (6, 99), (99, 6)], id="mixed"),
    pytest.param(numbered, [(7, 130)], id="positions"),
]


@pytest.mark.parametrize(("op", "shapes"), CASES)
def test_values_and_memory(op, shapes):
    operands = drawn(*shapes)
    np.testing.assert_array_equal(op(*operands), op.reference(*operands))
    on_guard_pages(op, *shapes)


@pytest.mark.parametrize(("op", "shapes"), CASES)
def test_vectors_run_along_the_records(op, shapes):
    schedule = compiled(op, *drawn(*shapes)).schedule
    assert schedule.fields == "c" and schedule.lane_axis in ("w", "t")


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (to_planes, (2, 7, 45, 9)),  # many fields
        (to_planes, (60, 1, 20, 3)),  # few records
        (to_records, (2, 1, 7, 45)),  # one
    ],
)
def test_others_are_as_they_were(op: tw.Op, shape: tuple[int, ...]):
    (x,) = drawn(shape)
    assert compiled(op, x).schedule.fields is None
    np.testing.assert_array_equal(op(x), op.reference(x))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "uint8", "int64", "int16", "bool"])
@pytest.mark.parametrize("op", [to_planes, to_records])
def test_other_types(op: tw.Op, dtype: str):
    shape = (2, 7, 77, 3) if op is to_planes else (2, 3, 7, 77)
    (x,) = drawn(shape, dtype=dtype)
    np.testing.assert_array_equal(op(x), np.transpose(x, (0, 3, 1, 2) if op is to_planes else (0, 2, 3, 1)))


def test_bytes_into_floats():
    pixels, light = drawn((6, 50, 3), (6, 50), dtype="uint8")
    mean, scale = drawn((3,), (3,))
    found = normalised(pixels, mean, scale, light)
    np.testing.assert_array_equal(found, normalised.reference(pixels, mean, scale, light))


def test_views_and_results_of_the_users():
    (x,) = drawn((4, 9, 90, 3))
    for view in (x[::2], x[:, ::-1], x[:, :, ::2], x[..., ::-1], x[..., 1:]):
        np.testing.assert_array_equal(to_planes(view), view.transpose(0, 3, 1, 2))
    out = np.zeros((4, 3, 9, 180), "f")[..., ::2]
    to_planes(x, out=out)
    np.testing.assert_array_equal(out, x.transpose(0, 3, 1, 2))


def test_bits_for_every_number_of_threads():
    (x,) = drawn((4, 300, 301, 3))
    assert_same_bits(lambda: to_planes(x))


def test_every_schedule():
    (x,) = drawn((2, 3, 7, 45))
    call = to_records.bind(to_records.arguments((x,), {}))
    kernel = compiled(to_records, x)
    for schedule in cpu_space(kernel.kernel, kernel.layout, toolchain.host()):
        executable = CpuExecutable(
            lower(call.program),
            choose=lambda k, *given, at=schedule: at if k == kernel.kernel else default_schedule(k, *given),
        )
        (found,) = executable.run(dict(call.arrays))
        np.testing.assert_array_equal(found, x.transpose(0, 2, 3, 1), err_msg=str(schedule))


def test_on_vectors_of_256_bits():
    for op, shape, order in (
        (to_planes, (2, 7, 45, 3), (0, 3, 1, 2)),
        (to_records, (2, 3, 7, 45), (0, 2, 3, 1)),
    ):
        (x,) = drawn(shape)
        call = op.bind(op.arguments((x,), {}))
        (found,) = CpuExecutable(lower(call.program), toolchain.avx2()).run(dict(call.arrays))
        np.testing.assert_array_equal(found, x.transpose(order))
