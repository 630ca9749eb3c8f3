"""Layers of images against torch, under torch's names."""

from __future__ import annotations

import pytest
import torch

import tilewright as tw
from tests.nn.test_layers import compare_module
from tests.tensor.against_torch import assert_close, draw, to_torch
from tilewright import nn
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F

T = torch.nn.functional
LINE, PLANE, VOLUME = (2, 4, 9), (2, 4, 6, 5), (1, 4, 3, 4, 3)
CONVOLUTIONS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, LINE),
    ("Conv2d", (4, 3, (3, 2)), {"padding": (1, 0), "bias": False}, PLANE),
    ("Conv2d", (4, 4, 3), {"padding": "same", "padding_mode": "circular", "groups": 4}, PLANE),
    ("Conv2d", (4, 2, 3), {"padding": (2, 1), "padding_mode": "reflect"}, PLANE),
    ("Conv3d", (4, 2, 2), {"dilation": (1, 2, 1)}, VOLUME),
    ("ConvTranspose1d", (4, 2, 3), {"stride": 2, "output_padding": 1, "padding": 1}, LINE),
    ("ConvTranspose2d", (4, 6, 2), {"stride": 2, "groups": 2}, PLANE),
    ("ConvTranspose3d", (4, 1, (1, 2, 2)), {"bias": False}, VOLUME),
]
OTHERS = [
    ("MaxPool1d", (3,), {"stride": 1}, LINE),
    ("MaxPool2d", (2,), {"ceil_mode": True}, PLANE),
    ("MaxPool3d", (2,), {"stride": 1}, VOLUME),
    ("AvgPool1d", (2,), {}, LINE),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, PLANE),
    ("AvgPool3d", (2,), {"divisor_override": 3}, VOLUME),
    ("AdaptiveAvgPool1d", (4,), {}, LINE),
    ("AdaptiveAvgPool2d", ((3, None),), {}, PLANE),
    ("AdaptiveAvgPool3d", (2,), {}, VOLUME),
    ("AdaptiveMaxPool2d", ((2, 3),), {}, PLANE),
    ("AdaptiveMaxPool1d", (3,), {}, LINE),
    ("LPPool1d", (2, 3), {"stride": 2}, LINE),
    ("LPPool2d", (3.0, (2, 3)), {"ceil_mode": True}, PLANE),
    ("ChannelShuffle", (2,), {}, PLANE),
    ("Unfold", ((2, 3),), {"padding": 1, "stride": (2, 1)}, PLANE),
    ("Fold", ((6, 5), 2), {"stride": 2, "padding": 1}, (2, 8, 12)),
    ("Upsample", (), {"scale_factor": 1.7, "recompute_scale_factor": True, "mode": "bilinear"}, PLANE),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, PLANE),
    ("Upsample", (), {"scale_factor": 2}, PLANE),
    ("UpsamplingNearest2d", (), {"size": (4, 9)}, PLANE),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, PLANE),
    ("Upsample", (), {"size": (4, 9), "mode": "bilinear", "align_corners": True}, PLANE),
    ("PixelShuffle", (2,), {}, PLANE),
    ("PixelUnshuffle", (2,), {}, (2, 3, 4, 6)),
    ("ZeroPad2d", ((1, 2, 0, 1),), {}, PLANE),
    ("ConstantPad1d", (2, 0.5), {}, LINE),
    ("ReflectionPad2d", (2,), {}, PLANE),
    ("ReplicationPad1d", ((0, 3),), {}, LINE),
    ("CircularPad2d", ((1, 2, 2, 1),), {}, PLANE),
]


EVERY_OTHER = [
    pytest.param(*layer, marks=pytest.mark.exhaustive if number % 2 else ())
    for number, layer in enumerate(CONVOLUTIONS + OTHERS)
]


@pytest.mark.parametrize(("name", "given", "options", "shape"), EVERY_OTHER, ids=str)
@pytest.mark.everyday(10)
def test_against_torch(name, given, options, shape):
    ours, theirs = getattr(nn, name)(*given, **options), getattr(torch.nn, name)(*given, **options)
    compare_module(ours, theirs, draw(shape, "float32"), relative=1e-4)
    assert repr(ours).startswith(f"{name}(")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling(rank):
    x = draw((2, 4, 8, 6, 4)[: rank + 2], "float32")
    results = []
    for library, made in ((nn, tw.tensor), (torch.nn, to_torch)):
        pool = getattr(library, f"MaxPool{rank}d")(2, return_indices=True)
        results.append(getattr(library, f"MaxUnpool{rank}d")(2)(*pool(made(x))))
    assert_close(*results, 1e-6)


def test_fractional_pools():
    x, samples = draw(PLANE, "float32"), draw((2, 4, 2), "float32", 1, low=0, high=1)
    ours = nn.FractionalMaxPool2d(
        2, output_ratio=0.6, _random_samples=tw.tensor(samples), return_indices=True
    )
    theirs = torch.nn.FractionalMaxPool2d(
        2, output_ratio=0.6, _random_samples=to_torch(samples), return_indices=True
    )
    for mine, other in zip(ours(tw.tensor(x)), theirs(to_torch(x)), strict=True):
        assert_close(mine, other, 1e-6)
    values, places = nn.AdaptiveMaxPool2d(3, return_indices=True)(tw.tensor(x))
    expected, numbers = torch.nn.AdaptiveMaxPool2d(3, return_indices=True)(to_torch(x))
    assert_close(values, expected, 1e-6)
    assert places.numpy().tolist() == numbers.tolist()


def test_initial_values_are_within_torchs_bounds():
    tw.manual_seed(0)
    layer = nn.Conv2d(8, 64, 3, groups=2)
    bound = (1 / (4 * 9)) ** 0.5
    for parameter in (layer.weight, layer.bias):
        assert 0.9 * bound < abs(parameter.detach().numpy()).max() <= bound


def test_indices_and_folds():
    x = draw(PLANE, "float32")
    values, places = F.max_pool2d(tw.tensor(x), 2, return_indices=True)
    expected, numbers = T.max_pool2d(to_torch(x), 2, return_indices=True)
    assert_close(values, expected, 1e-6)
    assert places.numpy().tolist() == numbers.tolist()
    columns = F.unfold(tw.tensor(x), 3, padding=1, stride=2)
    assert_close(columns, T.unfold(to_torch(x), 3, padding=1, stride=2), 1e-6)
    assert_close(
        F.fold(columns, (6, 5), 3, padding=1, stride=2),
        T.fold(T.unfold(to_torch(x), 3, padding=1, stride=2), (6, 5), 3, padding=1, stride=2),
        1e-5,
    )


def test_wrong_options_are_refused():
    x = tw.tensor(draw(PLANE, "float32"))
    with pytest.raises(ArgumentError, match="are not 3 equal groups"):
        nn.Conv2d(4, 6, 3, groups=3)
    with pytest.raises(
        ArgumentError, match="interpolate has nearest, nearest-exact, area, bilinear, bicubic for 4"
    ):
        F.interpolate(x, size=3, mode="linear")
    with pytest.raises(ArgumentError, match="pad has two numbers for each"):
        F.pad(x, (1, 2, 3))
    with pytest.raises(ArgumentError, match="padding is one number or 4"):
        nn.ZeroPad2d((1, 2))
    with pytest.raises(ShapeError, match="local_response_norm needs"):
        F.local_response_norm(tw.tensor(draw((3,), "float32")), 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("norm", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("extent", "window"), [(7, 2), (8, 3), (10, 3)])
def test_power_means_whose_last_window_is_cut(extent, window, stride, norm):
    x = draw((2, 3, extent), low=0.1, high=2.0)
    ours, theirs = tw.tensor(x, requires_grad=True), to_torch(x, True)
    found = F.lp_pool1d(ours, norm, window, stride, True)
    expected = T.lp_pool1d(theirs, norm, window, stride, True)
    assert_close(found, expected, 1e-10)
    found.sum().backward()
    expected.sum().backward()
    assert_close(ours.grad, theirs.grad, 1e-10)
