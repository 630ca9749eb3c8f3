"""Functions of images that read at places, or give places, against torch: every option."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import tilewright as tw
from tests.tensor.against_torch import assert_close, compare, draw, to_torch
from tilewright.errors import ArgumentError, ShapeError
from tilewright.nn import functional as F

T = torch.nn.functional
PLANE, VOLUME = (2, 3, 5, 7), (2, 2, 3, 4, 5)
GRID, GRID_OF_VOLUME = (2, 4, 6, 2), (2, 3, 2, 4, 3)
PADDINGS = ("zeros", "border", "reflection")
EVERY_DAY = {
    ("bilinear", "zeros", False, 2),
    ("bilinear", "reflection", True, 3),
    ("bicubic", "border", False, 2),
}


def some(every, wanted):
    """Those options every day, the others in long campaigns."""
    return [pytest.param(*o, marks=() if o in wanted else pytest.mark.exhaustive) for o in every]


SAMPLES = [
    (mode, padding, corners, rank)
    for mode, padding, corners, rank in product(
        ("bilinear", "nearest", "bicubic"), PADDINGS, (False, True), (2, 3)
    )
    if (mode, rank) != ("bicubic", 3)
]


@pytest.mark.parametrize(("mode", "padding", "corners", "rank"), some(SAMPLES, EVERY_DAY))
def test_grid_sample(mode, padding, corners, rank):
    image, places = (PLANE, GRID) if rank == 2 else (VOLUME, GRID_OF_VOLUME)
    options = (mode, padding, corners)
    compare(
        lambda x, grid: F.grid_sample(x, grid, *options),
        lambda x, grid: T.grid_sample(x, grid, *options),
        draw(image),
        draw(places, seed=1, low=-2.5, high=2.5),
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize(("mode", "padding", "corners", "rank"), [o for o in SAMPLES if o[3] == 2])
def test_grid_sample_of_lines_and_at_the_ends(mode, padding, corners, rank):
    """Axes of one position, and places on the ends themselves."""
    options = (mode, padding, corners)
    for shape in ((1, 2, 1, 4), (1, 2, 4, 1)):
        grid = np.array([-1.0, 1.0, 0.3, -1.7])[:, None, None] + np.zeros((1, 4, 3, 2))
        compare(
            lambda x, grid: F.grid_sample(x, grid, *options),
            lambda x, grid: T.grid_sample(x, grid, *options),
            draw(shape),
            grid + draw(grid.shape, seed=1, low=0, high=0.01),
        )


@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 1, 3), (2, 1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
def test_affine_grid(size, corners):
    rank = len(size) - 2
    compare(
        lambda theta: F.affine_grid(theta, size, corners),
        lambda theta: T.affine_grid(theta, size, corners),
        draw((2, rank, rank + 1)),
    )


def test_the_identity_reads_the_image_itself():
    x = tw.tensor(draw(PLANE))
    theta = tw.tensor(np.eye(2, 3)[None].repeat(2, 0))
    for corners in (False, True):
        found = F.grid_sample(x, F.affine_grid(theta, PLANE, corners), align_corners=corners)
        np.testing.assert_allclose(found.numpy(), x.numpy(), atol=1e-12)


def test_places_that_are_none_give_nan():
    x, grid = tw.ones(1, 1, 2, 2), tw.tensor([[[[float("nan"), 0.0], [0.0, float("inf")], [0.0, 0.0]]]])
    for mode in ("bilinear", "nearest", "bicubic"):
        assert np.isnan(F.grid_sample(x, grid, mode).numpy()).tolist() == [[[[True, True, False]]]]


RESIZED = [
    (size, mode, corners)
    for size, mode, corners in product(
        ((3, 4), (2, 11), (9, 3), (1, 2), (5, 7)), ("bilinear", "bicubic"), (False, True)
    )
]


@pytest.mark.parametrize(
    ("size", "mode", "corners"), some(RESIZED, {((3, 4), "bilinear", False), ((9, 3), "bicubic", True)})
)
def test_antialias(size, mode, corners):
    options = {"mode": mode, "align_corners": corners, "antialias": True}
    compare(
        lambda x: F.interpolate(x, size, **options), lambda x: T.interpolate(x, size, **options), draw(PLANE)
    )


RECOMPUTED = list(product(("nearest-exact", "area", "bilinear", "bicubic"), (0.6, (1.5, 0.4))))


@pytest.mark.parametrize(("mode", "scale"), some(RECOMPUTED, {("area", 0.6), ("bilinear", (1.5, 0.4))}))
def test_recomputed_scales(mode, scale):
    corners = {"align_corners": False} if mode.startswith("bi") else {}
    options = {"scale_factor": scale, "mode": mode, "recompute_scale_factor": True, **corners}
    compare(lambda x: F.interpolate(x, **options), lambda x: T.interpolate(x, **options), draw(PLANE))


@pytest.mark.parametrize(
    "shape", [(2, 3, 7), pytest.param(PLANE, marks=pytest.mark.exhaustive), VOLUME], ids=str
)
@pytest.mark.parametrize("mode", ["nearest-exact", "area"])
@pytest.mark.parametrize("options", [{"size": 4}, {"scale_factor": 1.5}], ids=str)
def test_modes_of_every_rank(shape, mode, options):
    compare(
        lambda x: F.interpolate(x, mode=mode, **options),
        lambda x: T.interpolate(x, mode=mode, **options),
        draw(shape),
    )


WINDOWS = ((8, 2, None, 0), (7, 3, 2, 1), (7, 2, 1, 0))  # extent, window, stride, padding
POOLS = [(rank, *window) for rank, window in product((1, 2, 3), WINDOWS)]
COMMON_POOLS = {(1, 7, 3, 2, 1), (2, 8, 2, None, 0)}


@pytest.mark.parametrize(("rank", "extent", "window", "stride", "padding"), some(POOLS, COMMON_POOLS))
def test_unpooling_undoes_pooling(rank, extent, window, stride, padding):
    """Overlapping windows share maxima: torch keeps one of the equal values, and here stands their mean."""
    shape = (2, 3, *(extent,) * rank)
    x = np.random.default_rng(0).permutation(np.arange(float(np.prod(shape)))).reshape(shape)
    pool, unpool = f"max_pool{rank}d_with_indices", f"max_unpool{rank}d"
    values, places = getattr(F, pool)(tw.tensor(x), window, stride, padding)
    expected, numbers = getattr(T, pool)(to_torch(x), window, stride, padding)
    assert np.array_equal(values.numpy(), expected.numpy())
    assert np.array_equal(places.numpy(), numbers.numpy())
    for size in (None, shape):
        found = getattr(F, unpool)(values, places, window, stride, padding, size)
        wanted = getattr(T, unpool)(expected, numbers, window, stride, padding, size)
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-12)
    if stride is None:
        compare(
            lambda v: getattr(F, unpool)(v, places, window),
            lambda v: getattr(T, unpool)(v, numbers, window),
            values.numpy(),
        )


def test_the_gradient_through_overlapping_windows_is_counted_once():
    """Pooled and unpooled, each maximum is itself: a gradient of 1, however many windows share it."""
    x = tw.tensor(np.random.default_rng(0).permuted(np.arange(9.0)), requires_grad=True)
    values, places = F.max_pool1d_with_indices(x.reshape(1, 1, 9), 3, 1)
    F.max_unpool1d(values, places, 3, 1).sum().backward()
    chosen = np.zeros(9)
    chosen[np.unique(places.numpy())] = 1
    np.testing.assert_allclose(x.grad.numpy(), chosen)


@pytest.mark.parametrize(
    ("rank", "size"), some([(1, 4), (2, (3, 5)), (3, (2, 3, None))], {(1, 4), (2, (3, 5))})
)
def test_adaptive_pools_with_places(rank, size):
    x = draw((2, 3, 7, 6, 5)[: rank + 2])
    name = f"adaptive_max_pool{rank}d"
    values, places = getattr(F, f"{name}_with_indices")(tw.tensor(x), size)
    expected, numbers = getattr(T, f"{name}_with_indices")(to_torch(x), size)
    assert_close(values, expected, 1e-12)
    assert np.array_equal(places.numpy(), numbers.numpy())
    assert np.array_equal(getattr(F, name)(tw.tensor(x), size, True)[1].numpy(), numbers.numpy())
    compare(
        lambda x: getattr(F, name)(x, size, return_indices=True)[0],
        lambda x: getattr(T, name)(x, size, return_indices=True)[0],
        x,
    )


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (2, {"kernel_size": 2, "output_size": (4, 5)}),
        (2, {"kernel_size": (3, 2), "output_ratio": (0.5, 0.7)}),
        (2, {"kernel_size": 2, "output_size": (1, 3)}),
        (3, {"kernel_size": 2, "output_size": (3, 2, 4)}),
    ],
    ids=str,
)
@pytest.mark.everyday(2)
def test_fractional_max_pool(rank, options):
    shape = (2, 3, 9, 8) if rank == 2 else (2, 2, 5, 4, 6)
    x, samples = draw(shape), draw((*shape[:2], rank), seed=1, low=0, high=1)
    name = f"fractional_max_pool{rank}d"
    compare(
        lambda x: getattr(F, name)(x, **options, _random_samples=tw.tensor(samples)),
        lambda x: getattr(T, name)(x, **options, _random_samples=to_torch(samples)),
        x,
    )
    _, places = getattr(F, f"{name}_with_indices")(tw.tensor(x), **options, _random_samples=samples)
    _, numbers = getattr(T, f"{name}_with_indices")(to_torch(x), **options, _random_samples=to_torch(samples))
    assert np.array_equal(places.numpy(), numbers.numpy())


def test_fractional_max_pool_draws_its_windows():
    x = tw.tensor(draw((1, 40, 30, 30)))
    first, again, other = (
        F.fractional_max_pool2d(x, 2, (11, 17), generator=tw.Generator(seed)).numpy() for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (1, 40, 11, 17)


@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 6, 2, 3)], ids=str)
def test_channel_shuffle(shape):
    compare(lambda x: F.channel_shuffle(x, 3), lambda x: T.channel_shuffle(x, 3), draw(shape))


def test_refusals():
    x = tw.tensor(draw(PLANE))
    with pytest.raises(ShapeError, match="grid_sample reads"):
        F.grid_sample(x, tw.ones(2, 4, 6, 3))
    with pytest.raises(ArgumentError, match="grid_sample has bilinear, nearest for 5"):
        F.grid_sample(tw.ones(*VOLUME), tw.ones(*GRID_OF_VOLUME), "bicubic")
    with pytest.raises(ArgumentError, match="a padding of grid_sample is one of"):
        F.grid_sample(x, tw.ones(*GRID), padding_mode="wrap")
    with pytest.raises(ShapeError, match="affine_grid has maps"):
        F.affine_grid(tw.ones(2, 2, 2), (1, 1, 2, 2))
    with pytest.raises(ArgumentError, match="antialias is for the modes"):
        F.interpolate(x, 3, antialias=True)
    with pytest.raises(ArgumentError, match="within one stride of"):
        F.max_unpool2d(x, tw.zeros(*PLANE, dtype="int64"), 2, output_size=(3, 3))
    with pytest.raises(ArgumentError, match="either output_size or output_ratio"):
        F.fractional_max_pool2d(x, 2)
    with pytest.raises(ShapeError, match="a multiple of 2 channels"):
        F.channel_shuffle(x, 2)
