"""Copies that move nothing are not made: the kernel before writes the result itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.guarded import on_guard_pages
from tests.support.indexing_ops import conv2d, grouped
from tilewright.compiler.pipeline import Executable, compile_program
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference

Arrays = dict[str, np.ndarray]


@tw.op
def channels_last(x: tw.Tile["n h w c"], k: tw.Tile["o r s c"], *, stride=1, pad=0):
    oh = tw.axis("oh", (tw.size("h") + 2 * pad - tw.size("r")) // stride + 1)
    ow = tw.axis("ow", (tw.size("w") + 2 * pad - tw.size("s")) // stride + 1)
    window = x.at(h=oh * stride + tw.index("r") - pad, w=ow * stride + tw.index("s") - pad)
    return tw.sum(window * k, "r s c")


def gradient(op: tw.Op, x: np.ndarray, k: np.ndarray, **constants: int) -> tuple[Program, Arrays]:
    """The gradient of x alone, and operands for it."""
    call = op.bind(op.arguments((x, k), constants))
    backward = backward_of(call.program)
    program = replace(backward, results=backward.results[:1])
    arrays = dict(call.arrays)
    given = with_cotangents(backward, arrays, extents_of(call.program, arrays))
    return program, {p.name: given[p.name] for p in program.tiles}


def last_kind(executable: Executable, arrays: Arrays) -> str:
    """The kind of the last kernel: what puts a gradient in its place, if it has to be moved."""
    return executable.compiled(arrays)[-1].kernel.kind


def ones(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("edge", "stride", "moves"), [(8, 2, False), (7, 2, True), (9, 3, False), (8, 3, True), (9, 2, True)]
)
def test_gradients_of_strides_are_written_where_they_belong(edge: int, stride: int, moves: bool):
    program, arrays = gradient(
        channels_last, ones(2, edge, edge, 18), ones(17, 3, 3, 18), stride=stride, pad=1
    )
    executable = compile_program(program)
    assert last_kind(executable, arrays) == ("pointwise" if moves else "contraction")
    np.testing.assert_allclose(executable.run(arrays)[0], reference(program, arrays)[0], rtol=0, atol=1e-4)


def test_one_op_for_extents_that_move_and_that_do_not():
    for edge in (6, 7, 6):
        on_guard_pages(channels_last, (2, edge, edge + 2, 18), (17, 3, 3, 18), stride=2, pad=1)


def test_a_result_that_is_written_early_replaces_no_operand():
    """The copy would be the last kernel, which reads no weight; the contraction does, while it writes."""
    x, k = ones(6, 4, 4, 40), ones(6, 4, 4, 40)
    program, arrays = gradient(channels_last, x, k, stride=2, pad=1)
    executable = compile_program(program)
    assert last_kind(executable, arrays) == "contraction"
    (wanted,) = executable.run(arrays)
    (result,) = executable.run(arrays, out=[arrays["k"]])
    assert result is arrays["k"]
    np.testing.assert_array_equal(result, wanted)


def test_digits_of_an_axis_need_no_copy():
    """Channels of groups: a contraction along groups and channels of each is read along all channels."""
    call = grouped.bind(grouped.arguments((ones(3, 32, 20), ones(2, 32, 16, 1)), {}))
    arrays = dict(call.arrays)
    executable = compile_program(call.program)
    assert last_kind(executable, arrays) == "contraction"
    result = executable.run(arrays)[0]
    np.testing.assert_allclose(result, reference(call.program, arrays)[0], rtol=0, atol=1e-4)


def test_positions_without_a_tap():
    """A filter of one tap has none for every other position: their gradient is 0."""
    on_guard_pages(channels_last, (2, 7, 8, 5), (6, 1, 1, 5), stride=2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_phases_without_taps(stride: int):
    for edge, size in ((1, 7), (1, 8), (2, 9)):
        on_guard_pages(conv2d, (2, 5, size, size + 1), (6, 5, edge, edge), stride=stride)
        on_guard_pages(channels_last, (2, size, 9, 5), (6, edge, edge, 5), stride=stride, pad=edge - 1)
