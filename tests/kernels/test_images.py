"""Transposed convolutions, pools, resizing and rearranging against torch: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.kernels.cases_scans import apart
from tests.kernels.test_convolution import Against, channels_innermost, compare, reversed_everywhere
from tests.support import checks
from tests.support.checks import SLOPE, assert_close, extents_of, with_cotangents
from tilewright import kernels as K
from tilewright.autograd.check import check_vjp
from tilewright.autograd.derive import vjp
from tilewright.compiler.pipeline import compile_program, lower
from tilewright.errors import UserError
from tilewright.op.derived import without_saved


def pooled(function):
    def called(x, window=None, norm=None, size=None, ceil=False, divisor=None, **options):
        if divisor is not None:
            options["divisor_override"] = divisor
        if size is not None:
            return function(x, size)
        given = (window,) if norm is None else (norm, window)
        return function(x, *given, ceil_mode=ceil, **options)

    return called


def resized(x, size=None, scale=None, mode="nearest", align_corners=False):
    rank = x.ndim - 2
    names = {
        "linear": ("linear", "bilinear", "trilinear")[rank - 1],
        "cubic": "bicubic",
        "nearest": "nearest",
    }
    corners = {} if mode == "nearest" else {"align_corners": align_corners}
    return F.interpolate(x, size, scale, names[mode], **corners)


def folded(x, size, r, s, ow, **options):
    return F.fold(x, size, (r, s), **options)


LINE, PLANE, VOLUME = (2, 3, 11), (2, 3, 7, 10), (1, 2, 5, 4, 7)
CASES = [
    Against(K.conv_transpose1d, F.conv_transpose1d, ((2, 3, 5), (3, 4, 3), (4,))),
    Against(
        K.conv_transpose1d, F.conv_transpose1d, ((2, 4, 7), (4, 3, 4), (6,)),
        {"stride": 3, "padding": 2, "output_padding": 2, "groups": 2, "dilation": 2},
    ),
    Against(
        K.conv_transpose2d, F.conv_transpose2d, ((2, 3, 4, 5), (3, 2, 3, 2), (2,)),
        {"stride": 2, "padding": 1, "output_padding": (1, 0)},
    ),
    Against(
        K.conv_transpose2d, F.conv_transpose2d, ((2, 4, 4, 1), (4, 1, 2, 3)),
        {"stride": (1, 3), "dilation": (2, 1), "groups": 4},
    ),
    Against(
        K.conv_transpose3d, F.conv_transpose3d, ((1, 2, 2, 3, 2), (2, 3, 2, 3, 1), (3,)),
        {"stride": 2, "padding": (1, 0, 0)},
    ),
    Against(K.conv2d, F.conv2d, ((1, 2, 9, 8), (3, 2, 3, 2)), {"stride": (4, 2), "dilation": (2, 3)}),
    Against(K.conv1d, F.conv1d, ((2, 3, 17), (4, 3, 3)), {"stride": 2, "padding": 1, "dilation": 3}),
    Against(
        K.max_pool2d, pooled(F.max_pool2d), (PLANE,),
        {"window": 3, "stride": 2, "padding": 1, "ceil": True},
    ),
    Against(
        K.avg_pool1d, pooled(F.avg_pool1d), (LINE,),
        {"window": 4, "stride": 3, "padding": 1, "ceil": True},
    ),
    Against(
        K.avg_pool2d, pooled(F.avg_pool2d), (PLANE,),
        {"window": 3, "stride": 2, "padding": 1, "ceil": True, "count_include_pad": False},
    ),
    Against(K.avg_pool2d, pooled(F.avg_pool2d), (PLANE,), {"window": (2, 3), "stride": 2, "divisor": 5}),
    Against(
        K.avg_pool3d, pooled(F.avg_pool3d), (VOLUME,),
        {"window": 2, "stride": 1, "padding": 1, "ceil": True},
    ),
    Against(K.lp_pool1d, pooled(F.lp_pool1d), (LINE,), {"norm": 2.0, "window": 3, "stride": 2}),
    Against(K.lp_pool2d, pooled(F.lp_pool2d), (PLANE,), {"norm": 2.0, "window": (2, 3)}),
    *(
        Against(op, pooled(function), (shape,), {"size": size})
        for ops, functions in (
            (
                (K.adaptive_avg_pool1d, K.adaptive_avg_pool2d, K.adaptive_avg_pool3d),
                (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
            ),
            (
                (K.adaptive_max_pool1d, K.adaptive_max_pool2d, K.adaptive_max_pool3d),
                (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
            ),
        )
        for op, function, shape, size in zip(
            ops, functions, (LINE, PLANE, VOLUME), (4, (3, 5), (2, 4, 3)), strict=True
        )
    ),
    Against(K.adaptive_avg_pool2d, pooled(F.adaptive_avg_pool2d), (PLANE,), {"size": (9, 1)}),
    Against(
        K.local_response_norm, F.local_response_norm, ((2, 7, 5),),
        {"size": 4, "alpha": 0.5, "beta": 0.6, "k": 2.0},
    ),
    Against(K.interpolate1d, resized, (LINE,), {"size": 22}),
    Against(K.interpolate2d, resized, (PLANE,), {"size": (5, 13)}),
    Against(K.interpolate2d, resized, (PLANE,), {"scale": 3}),
    Against(K.interpolate1d, resized, (LINE,), {"size": 7, "mode": "linear"}),
    Against(K.interpolate2d, resized, (PLANE,), {"size": (14, 4), "mode": "linear"}),
    Against(K.interpolate2d, resized, (PLANE,), {"size": (9, 23), "mode": "linear", "align_corners": True}),
    Against(K.interpolate2d, resized, (PLANE,), {"size": (1, 10), "mode": "linear", "align_corners": True}),
    Against(K.interpolate2d, resized, (PLANE,), {"scale": 2, "mode": "linear"}),
    Against(K.interpolate2d, resized, (PLANE,), {"size": (13, 6), "mode": "cubic"}),
    Against(K.interpolate2d, resized, (PLANE,), {"size": (13, 6), "mode": "cubic", "align_corners": True}),
    Against(K.interpolate3d, resized, ((1, 2, 3, 4, 2),), {"size": (5, 3, 4), "mode": "linear"}),
    Against(
        K.unfold2d, lambda x, window, **o: F.unfold(x, window, **o), (PLANE,),
        {"window": (3, 2), "stride": (2, 1), "padding": 1, "dilation": (1, 2)},
    ),
    Against(
        K.fold2d, folded, ((2, 12, 4 * 4),),
        {"size": (5, 8), "r": 2, "s": 3, "ow": 4, "stride": (1, 2), "padding": (0, 1)},
    ),
    Against(K.mirrored, lambda x: x.flip(-1), (LINE,)),
    Against(K.rolled, lambda x, shift: x.roll(shift, -1), (LINE,), {"shift": 4}),
    Against(K.rolled, lambda x, shift: x.roll(shift, -1), (LINE,), {"shift": -25}),
    Against(K.diagonals, lambda x, offset=0: x.diagonal(offset, -2, -1), (PLANE,), {"offset": 4}),
    Against(K.diagonals, lambda x, offset=0: x.diagonal(offset, -2, -1), (PLANE,), {"offset": -2}),
    Against(
        K.pixel_shuffle, lambda x, rows, columns: F.pixel_shuffle(x, rows), ((2, 12, 3, 5),),
        {"rows": 2, "columns": 2},
    ),
    Against(
        K.pixel_unshuffle, lambda x, rows, columns: F.pixel_unshuffle(x, rows), ((2, 3, 4, 6),),
        {"rows": 2, "columns": 2},
    ),
]  # fmt: skip
CUBIC = [c for c in CASES if c.options.get("mode") == "cubic"]
LONG = [*CUBIC, *(c for c in CASES if c.op in (K.interpolate3d, K.local_response_norm)), *CASES[9::3]]
EVERY = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.exhaustive if c in LONG else ()) for c in CASES],
    ids=str,
)
SMALL = pytest.mark.parametrize(
    "case",
    [
        c if c.op in (K.conv_transpose1d, K.rolled) else pytest.param(c, marks=pytest.mark.exhaustive)
        for c in CASES
    ],
    ids=str,
)


@EVERY
@pytest.mark.everyday(15)
def test_agrees_with_torch(case: Against):
    compare(case, case.operands("float64"))


@pytest.mark.exhaustive
@EVERY
@pytest.mark.parametrize("lay", [reversed_everywhere, channels_innermost])
def test_layouts_and_float32(case: Against, lay):
    compare(case, [lay(a) for a in case.operands("float32")])


def bound(case: Against):
    arguments = case.op.arguments(tuple(case.operands("float64")), case.options)
    call = case.op.bind(arguments)
    return call.program, dict(call.arrays)


@SMALL
def test_second_derivatives(case: Against):
    """At values with wide gaps between them: no finite difference makes another value the maximum."""
    program, arrays = bound(case)
    rng = np.random.default_rng(0)
    arrays = {name: a.size * apart(rng, a.shape) for name, a in arrays.items()}
    backward = without_saved(vjp(program))
    assert check_vjp(backward, with_cotangents(backward, arrays, extents_of(program, arrays))).error <= SLOPE


@pytest.mark.skipif("interpreter" not in checks.targets(), reason="Triton is not installed")
@SMALL
def test_triton(case: Against):
    program, arrays = bound(case)
    backward = without_saved(vjp(program))
    seeded = with_cotangents(backward, arrays, extents_of(program, arrays))
    for derived, given in ((program, arrays), (backward, seeded)):
        results = compile_program(derived, "interpreter").run(given)
        for one, other in zip(results, compile_program(derived).run(given), strict=True):
            assert_close(one, other, 256, str(case), floor=1.0)


@EVERY
def test_no_scatters(case: Against):
    program, _ = bound(case)
    for derived in (program, without_saved(vjp(program))):
        assert all(kernel.kind != "scatter" for kernel in lower(derived).kernels)


def test_pooled_indices_and_back():
    x = np.random.default_rng(0).permuted(np.arange(2.0 * 3 * 8 * 10)).reshape(2, 3, 8, 10)
    values, indices = K.max_pool_with_indices2d(x, window=(2, 3), stride=(2, 3), padding=(1, 0))
    expected, places = F.max_pool2d(torch.tensor(x), (2, 3), (2, 3), (1, 0), return_indices=True)
    assert np.array_equal(values, expected.numpy())
    assert np.array_equal(indices, places.numpy())
    again = K.max_unpool2d(values, indices, size=(8, 10))
    assert np.array_equal(again, F.max_unpool2d(expected, places, (2, 3), (2, 3), (1, 0), (8, 10)).numpy())
    d_x = K.max_unpool2d.vjp(values, indices, d_y=x, size=(8, 10))
    assert np.array_equal(d_x, values)


def test_nan_is_the_largest_with_its_place():
    x = np.array([1.0, np.nan, 3.0, 2.0])
    values, indices = K.max_pool_with_indices1d(x, window=2)
    assert np.array_equal(values, [np.nan, 3.0], equal_nan=True)
    assert np.array_equal(indices, [1, 2])


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_nothing_to_do(shape):
    x, weight = np.ones(shape), np.ones((shape[1], 2, 3))
    assert K.conv_transpose1d(x, weight, stride=2).shape == (shape[0], 2, 9)
    assert K.adaptive_avg_pool1d(x, size=3).shape == (*shape[:2], 3)
    assert K.interpolate1d(x, size=7, mode="linear").shape == (*shape[:2], 7)


def test_options_are_checked():
    with pytest.raises(UserError, match="an interpolation mode is one of"):
        K.interpolate1d(np.ones((1, 1, 4)), size=3, mode="area")
    with pytest.raises(UserError, match="either the size"):
        K.interpolate1d(np.ones((1, 1, 4)))
    with pytest.raises(UserError, match="a padding mode is one of"):
        K.pad1d(np.ones(4), padding=1, mode="mirror")
