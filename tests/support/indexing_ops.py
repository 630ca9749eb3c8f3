"""Ops that index: convolutions, pooling, gathers, views, as users write them, for every target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tilewright as tw


def windows(x, stride, pad, dilation):
    """x along (h, w) at taps (r, s) of windows at (oh, ow), with zeros around it."""
    oh = tw.axis("oh", (tw.size("h") + 2 * pad - dilation * (tw.size("r") - 1) - 1) // stride + 1)
    ow = tw.axis("ow", (tw.size("w") + 2 * pad - dilation * (tw.size("s") - 1) - 1) // stride + 1)
    rows = oh * stride + tw.index("r") * dilation - pad
    columns = ow * stride + tw.index("s") * dilation - pad
    return x.at(h=rows, w=columns)


@tw.op
def conv2d(x: tw.Tile["... c h w"], k: tw.Tile["o c r s"], *, stride=1, pad=0, dilation=1):
    return tw.sum(windows(x, stride, pad, dilation) * k, "c r s")


@tw.op
def channels_last(
    x: tw.Tile["n h w c"], k: tw.Tile["o r s c"], *, stride=1, before=0, behind=0, dilation=1, wide=0
) -> tw.Tile["n oh ow o"]:
    """Windows with zeros before and behind; `wide` further ones along the lines alone."""
    reach = tw.size("h") + before + behind - dilation * (tw.size("r") - 1) - 1
    oh = tw.axis("oh", reach // stride + 1)
    across = tw.size("w") + before + behind + 2 * wide - dilation * (tw.size("s") - 1) - 1
    ow = tw.axis("ow", across // stride + 1)
    rows = oh * stride + tw.index("r") * dilation - before
    columns = ow * stride + tw.index("s") * dilation - before - wide
    return tw.sum(x.at(h=rows, w=columns) * k, "r s c")


@tw.op
def by_channel(x: tw.Tile["n c h w"], k: tw.Tile["c r s"], *, stride=1, pad=0, dilation=1):
    return tw.sum(windows(x, stride, pad, dilation) * k, "r s")


@tw.op
def in_line(x: tw.Tile["n t"], k: tw.Tile["j"], *, stride=1, pad=0):
    i = tw.axis("i", (tw.size("t") + 2 * pad - tw.size("j")) // stride + 1)
    return tw.sum(x.at(t=i * stride + tw.index("j") - pad) * k, "j")


@tw.op
def conv_relu_conv(x: tw.Tile["n c t"], k: tw.Tile["d c r"], l: tw.Tile["e d r"]):
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    hidden = tw.maximum(tw.sum(x.at(t=a + tw.index("r")) * k, "c r"), 0)
    b = tw.axis("b", tw.size("a") - tw.size("r") + 1)
    return tw.sum(hidden.at(a=b + tw.index("r")) * l, "d r")


@tw.op
def depthwise(x: tw.Tile["... c h w"], k: tw.Tile["c r s"]):
    oh = tw.axis("oh", tw.size("h") - tw.size("r") + 1)
    ow = tw.axis("ow", tw.size("w") - tw.size("s") + 1)
    window = tw.exp(-x * x).at(h=oh + tw.index("r"), w=ow + tw.index("s"))
    return tw.sum(window * k, "r s")


@tw.op
def grouped(x: tw.Tile["n c t"], k: tw.Tile["g o i r"]):
    a = tw.axis("a", tw.size("t") - tw.size("r") + 1)
    channel = tw.index("g") * tw.size("i") + tw.index("i")
    y = tw.sum(x.at(c=channel, t=a + tw.index("r")) * k, "i r")
    co = tw.axis("co", tw.size("g") * tw.size("o"))
    return y.at(g=co // tw.size("o"), o=co % tw.size("o"))


@tw.op
def transposed_conv(x: tw.Tile["n c t"], k: tw.Tile["c o r"], *, stride=2):
    u = tw.axis("u", (tw.size("t") - 1) * stride + tw.size("r"))
    distance = u - tw.index("r")
    read = x.at(t=distance // stride)
    return tw.sum(tw.where(distance % stride == 0, read, 0) * k, "c r")


@tw.op
def max_pool(x: tw.Tile["... h w"], *, k=2, stride=2, pad=0):
    oh = tw.axis("oh", (tw.size("h") + 2 * pad - k) // stride + 1)
    ow = tw.axis("ow", (tw.size("w") + 2 * pad - k) // stride + 1)
    rows, columns = oh * stride + tw.axis("r", k) - pad, ow * stride + tw.axis("s", k) - pad
    return tw.max(x.at(h=rows, w=columns, fill=-tw.inf), "r s")


@tw.op
def unfold(x: tw.Tile["... t"], *, k=3, stride=2):
    i = tw.axis("i", (tw.size("t") - k) // stride + 1)
    return x.at(t=i * stride + tw.axis("k", k))


@tw.op
def reflect_pad(x: tw.Tile["... t"], *, pad=2):
    u = tw.axis("u", tw.size("t") + 2 * pad) - pad
    last = tw.size("t") - 1
    return x.at(t=last - tw.abs(last - tw.abs(u)))


@tw.op
def roll(x: tw.Tile["... t"], *, shift=2):
    return x.at(t=(tw.index("t") - shift) % tw.size("t"))


@tw.op
def second_difference(x: tw.Tile["... t"]):
    i = tw.index("t")
    y = tw.tanh(x)
    return y.at(t=i + 1) - 2 * y + y.at(t=i - 1)


@tw.op
def flip(x: tw.Tile["... t"]):
    return x.at(t=tw.size("t") - 1 - tw.index("t"))


@tw.op
def diagonal(x: tw.Tile["i j"]):
    t = tw.axis("t", tw.minimum(tw.size("i"), tw.size("j")))
    return x.at(i=t, j=t)


@tw.op
def pixel_shuffle(x: tw.Tile["n c h w"], *, r=2):
    co = tw.axis("co", tw.size("c") // (r * r))
    oh, ow = tw.axis("oh", tw.size("h") * r), tw.axis("ow", tw.size("w") * r)
    return x.at(c=co * (r * r) + oh % r * r + ow % r, h=oh // r, w=ow // r)


@tw.op
def nearest(x: tw.Tile["... t"], *, to=7):
    u = tw.axis("u", to)
    return x.at(t=u * tw.size("t") // to)


@tw.op
def embedding(table: tw.Tile["row d"], ids: tw.Tile["... n"]):
    return table.at(row=ids)


@tw.op
def take_along(x: tw.Tile["i j"], ids: tw.Tile["i k"]):
    return x.at(j=ids)


@tw.op
def pick_softmax(x: tw.Tile["n c"], t: tw.Tile["n"]):
    return tw.logsumexp(x, "c") - x.at(c=t)


@tw.op
def histogram(w: tw.Tile["n"], ids: tw.Tile["n"], *, bins=5):
    return tw.scatter_add(w, {"bin": ids}, bins)


@tw.op
def segment_mean(x: tw.Tile["n d"], ids: tw.Tile["n"], *, segments=4):
    total = tw.scatter_add(x, {"s": ids}, segments)
    count = tw.scatter_add(tw.where(ids >= 0, tw.cast(1, x.dtype), 0), {"s": ids}, segments)
    return total / tw.maximum(count, 1)


@tw.op
def batched_scatter(x: tw.Tile["b n"], ids: tw.Tile["b n"], *, size=6):
    return tw.scatter_add(x, {"m": ids}, size, over="n")


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def _below(limit: int) -> Draw:
    """Whole numbers of which some are outside: -1 and `limit`."""
    return lambda rng, shape: rng.integers(-1, limit + 1, shape)


@dataclass(frozen=True)
class IndexingCase:
    op: Any
    shapes: tuple[tuple[int, ...], ...]
    constants: dict[str, Any] = field(default_factory=dict)
    draws: tuple[Draw, ...] = ()

    def __str__(self) -> str:
        given = "-".join(f"{k}{v}" for k, v in self.constants.items())
        shapes = "_".join("x".join(map(str, s)) for s in self.shapes)
        return f"{self.op.name}-{shapes}" + (f"-{given}" if given else "")

    def arguments(self, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        draws = self.draws or (_normal,) * len(self.shapes)
        return [draw(rng, shape) for draw, shape in zip(draws, self.shapes, strict=True)]


CASES = [
    IndexingCase(conv2d, ((2, 3, 7, 6), (4, 3, 3, 3))),
    IndexingCase(conv2d, ((2, 3, 7, 6), (4, 3, 3, 3)), {"pad": 1}),
    IndexingCase(conv2d, ((1, 2, 9, 8), (3, 2, 3, 2)), {"stride": 2, "pad": 1}),
    IndexingCase(conv2d, ((2, 9, 11), (1, 2, 3, 3)), {"dilation": 2, "pad": 2}),
    IndexingCase(conv2d, ((1, 2, 5, 5), (3, 2, 1, 1)), {"stride": 3}),
    IndexingCase(conv2d, ((0, 2, 5, 5), (3, 2, 3, 3))),
    IndexingCase(conv2d, ((1, 0, 5, 5), (3, 0, 3, 3))),
    IndexingCase(conv_relu_conv, ((2, 3, 9), (4, 3, 3), (2, 4, 3))),
    IndexingCase(depthwise, ((2, 3, 6, 19), (3, 3, 2))),
    IndexingCase(grouped, ((2, 6, 9), (3, 4, 2, 3))),
    IndexingCase(transposed_conv, ((2, 3, 5), (3, 2, 3))),
    IndexingCase(transposed_conv, ((2, 3, 5), (3, 2, 3)), {"stride": 1}),
    IndexingCase(max_pool, ((2, 3, 8, 9),)),
    IndexingCase(max_pool, ((3, 8, 9),), {"k": 3, "stride": 2, "pad": 1}),
    IndexingCase(max_pool, ((8, 40),), {"k": 3, "stride": 1, "pad": 1}),
    IndexingCase(unfold, ((3, 20),)),
    IndexingCase(unfold, ((3, 4),), {"k": 5, "stride": 1}),
    IndexingCase(reflect_pad, ((3, 7),)),
    IndexingCase(roll, ((3, 37),)),
    IndexingCase(roll, ((0,),)),
    IndexingCase(second_difference, ((3, 37),)),
    IndexingCase(second_difference, ((1,),)),
    IndexingCase(flip, ((3, 37),)),
    IndexingCase(diagonal, ((5, 7),)),
    IndexingCase(pixel_shuffle, ((2, 8, 3, 5),)),
    IndexingCase(nearest, ((3, 5),)),
    IndexingCase(nearest, ((3, 0),)),
    IndexingCase(embedding, ((5, 33), (7,)), draws=(_normal, _below(5))),
    IndexingCase(embedding, ((5, 3), (2, 3, 4)), draws=(_normal, _below(5))),
    IndexingCase(embedding, ((0, 3), (4,)), draws=(_normal, _below(1))),
    IndexingCase(take_along, ((4, 6), (4, 9)), draws=(_normal, _below(6))),
    IndexingCase(pick_softmax, ((5, 21), (5,)), draws=(_normal, _below(21))),
    IndexingCase(histogram, ((23,), (23,)), draws=(_normal, _below(5))),
    IndexingCase(segment_mean, ((19, 35), (19,)), draws=(_normal, _below(4))),
    IndexingCase(batched_scatter, ((3, 11), (3, 11)), draws=(_normal, _below(6))),
]
