"""A schedule changes speed, never meaning: every point of a kernel's space gives the right result."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.autotune.space import cpu_space
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.cpu import toolchain
from tilewright.compiler.targets.cpu.executable import CpuExecutable
from tilewright.dsl.reference import reference


@tw.op
def soften(x: tw.Tile["n d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def columns(x: tw.Tile["n d"]):
    return tw.sum(x * x, "n")


@tw.op
def layer(x: tw.Tile["m k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
    return tw.maximum(tw.sum(x * w, "k") + b, 0)


@tw.op
def blend(x: tw.Tile["n d"], y: tw.Tile["d"]):
    return x * tw.tanh(y)


SHAPES = {
    soften: [(13, 37)],
    columns: [(37, 21)],
    layer: [(19, 33), (21, 33), (21,)],
    blend: [(9, 70), (70,)],
}
OPS = sorted(SHAPES, key=lambda op: op.name)


def spaces(op: tw.Op):
    """The call, and for each of its kernels the space of its schedules."""
    rng = np.random.default_rng(1)
    arrays = tuple(rng.standard_normal(shape).astype(np.float32) for shape in SHAPES[op])
    call = op.bind(op.arguments(arrays, {}))
    plan = lower(call.program)
    compiled = CpuExecutable(plan).compiled(call.arrays)
    return call, plan, [(c.kernel, cpu_space(c.kernel, c.layout, toolchain.host())) for c in compiled]


def check(op: tw.Op, most: int) -> None:
    call, plan, found = spaces(op)
    expected = reference(call.program, call.arrays)
    for kernel, space in found:
        for schedule in list(space)[:most]:
            executable = CpuExecutable(
                plan,
                choose=lambda k, lay, t, s, at=(kernel, schedule): (
                    at[1] if k is at[0] else default(k, lay, t, s)
                ),
            )
            for actual, right in zip(executable.run(call.arrays), expected, strict=True):
                np.testing.assert_allclose(actual, right, rtol=2e-4, atol=2e-5, err_msg=str(schedule))


def default(*arguments: object):
    from tilewright.compiler.targets.cpu.schedule import default_schedule

    return default_schedule(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_few_schedules_of_every_kernel(op: tw.Op):
    check(op, most=5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_schedule_of_every_kernel(op: tw.Op):
    check(op, most=10_000)


@tw.op
def of_a_filter(d: tw.Tile["n h w o"], x: tw.Tile["n h w c"]) -> tw.Tile["o r s c"]:
    """Columns along the channels of taps."""
    h, w = (tw.index(i) + tw.axis(tap, 3) - 1 for i, tap in (("h", "r"), ("w", "s")))
    return tw.sum(d * x.at(h=h, w=w), "n h w")


@tw.op
def planes(x: tw.Tile["n c h w"], k: tw.Tile["o c r s"]) -> tw.Tile["n o i j"]:
    """Rows that lie evenly, or columns over the ends of lines."""
    i, j = tw.axis("i", tw.size("h") - 2), tw.axis("j", tw.size("w") - 2)
    return tw.sum(x.at(h=i + tw.index("r"), w=j + tw.index("s")) * k, "c r s")


@pytest.mark.parametrize(
    "host", ["host", *(pytest.param(h, marks=pytest.mark.exhaustive) for h in ("avx2", "avx512"))]
)
@pytest.mark.parametrize(
    ("op", "shapes"),
    [(of_a_filter, ((2, 9, 20, 16), (2, 9, 20, 8))), (planes, ((2, 8, 10, 11), (16, 8, 3, 3)))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_register_blocks_suit_the_sides_that_are_read_where_they_lie(op: tw.Op, shapes, host: str):
    """Every schedule can be built; those that this machine can run are right."""
    rng = np.random.default_rng(0)
    operands = tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    call = op.bind(op.arguments(operands, {}))
    plan, target, wanted = lower(call.program), getattr(toolchain, host)(), op.reference(*operands)
    if target.is_x86 != toolchain.host().is_x86:
        pytest.skip("this machine cannot build that code")
    (made,) = [c for c in CpuExecutable(plan, target).compiled(call.arrays) if c.kernel.contraction]
    for schedule in cpu_space(made.kernel, made.layout, target):
        executable = CpuExecutable(
            plan, target, choose=lambda k, *given, at=schedule: at if k == made.kernel else default(k, *given)
        )
        assert executable.compiled(call.arrays)
        if target.vector_bits <= toolchain.host().vector_bits:
            (found,) = executable.run(call.arrays)
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=str(schedule))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_default_comes_first_and_none_comes_twice(op: tw.Op):
    for _, space in spaces(op)[2]:
        schedules = list(space)
        assert schedules[0] == space.default
        assert len(set(schedules)) == len(schedules)
