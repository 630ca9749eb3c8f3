"""Small ops of every kernel family with operands, for the interpreter, the compiler and devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.compare import check_results
from tilewright.autograd.derive import jvp
from tilewright.compiler.pipeline import lower
from tilewright.op.op import Call, Op

FLOATS = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


@tw.op
def blend(x: tw.Tile["..."], y: tw.Tile["..."], *, alpha: tw.Scalar = 0.3):
    return tw.where(x > y, x * tw.sigmoid(y), alpha * x - y)


@tw.op
def turn(x: tw.Tile["i j"], y: tw.Tile["j i"]):
    return x + y * 2


@tw.op
def positions(x: tw.Tile["i j"]):
    chosen = tw.where(tw.index("i") >= tw.index("j"), x, -tw.inf)
    return chosen, tw.index("i") * tw.size("j") + tw.index("j")


@tw.op
def whole_numbers(x: tw.Tile["n"], y: tw.Tile["n"]):
    return x // y, x % y, (x & y) ^ (x | 3), x << y, x >> y, -abs(x), tw.sign(x)


@tw.op
def conversions(x: tw.Tile["n"]):
    return tuple(
        tw.cast(x, kind) for kind in ("int8", "uint8", "int32", "int64", "bool", "float16", "bfloat16")
    )


@tw.op
def comparisons(x: tw.Tile["n"], y: tw.Tile["n"]):
    return x < y, x <= y, x == y, x != y, (x > y) | tw.isnan(x), tw.maximum(x, y), tw.minimum(x, y)


@tw.op
def soften(x: tw.Tile["... d"]):
    e = tw.exp(x - tw.max(x, "d"))
    return e / tw.sum(e, "d")


@tw.op
def normalise(x: tw.Tile["n d"], w: tw.Tile["d"]):
    centred = x - tw.mean(x, "d")
    return centred * tw.rsqrt(tw.mean(centred * centred, "d") + 1e-5) * w


@tw.op
def every_way(x: tw.Tile["n d"]):
    positive = x > 0
    return (
        tw.sum(x, "d"),
        tw.prod(x, "d"),
        tw.max(x, "d"),
        tw.min(x, "d"),
        tw.any(positive, "d"),
        tw.all(positive, "d"),
        tw.argmax(x, "d"),
    )


@tw.op
def columns(x: tw.Tile["n d"]):
    return tw.sum(x, "n"), tw.max(x, "n")


@tw.op
def planes(x: tw.Tile["b c h w"], w: tw.Tile["c"]):
    """Statistics over axes that are not neighbours."""
    centred = x - tw.mean(x, ("b", "h", "w"))
    return centred * tw.rsqrt(tw.mean(centred * centred, ("b", "h", "w")) + 1e-5) * w


@tw.op
def total(x: tw.Tile["n d"]):
    return tw.sum(x * x), tw.max(x)


@tw.op
def layer(x: tw.Tile["... k"], w: tw.Tile["n k"], b: tw.Tile["n"]):
    return tw.tanh(tw.sum(x * w, "k") + b)


@tw.op
def product(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    return tw.sum(a * b, "k")


@tw.op
def scores(q: tw.Tile["b i h d"], k: tw.Tile["b j h d"]):
    s = tw.sum(tw.exp(q) * k, "d") * tw.rsqrt(tw.size("d"))
    return tw.where(tw.index("i") >= tw.index("j"), s, -tw.inf)


@tw.op
def several(a: tw.Tile["p q r s"], b: tw.Tile["r s t u"]):
    return tw.sum(a * b, ("r", "s"))


@dataclass(frozen=True)
class Family:
    """An op, the shapes of its operands for an extent, and how they are drawn."""

    op: Op
    shapes: Callable[..., list[tuple[int, ...]]]
    extents: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...] = tuple(FLOATS.values())
    scalars: Mapping[str, float] = field(default_factory=dict)
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] = lambda rng, s: rng.standard_normal(s)
    differentiable: bool = True

    def __str__(self) -> str:
        return self.op.name

    def operands(self, extents: tuple[int, ...], dtype: Any, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [np.asarray(self.draw(rng, shape)).astype(dtype) for shape in self.shapes(*extents)]


def _whole(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Small integers with those among them that divisions and shifts trip over."""
    edges = rng.choice([-128, -5, -1, 0, 7, 8, 31, 63, 64, 127], shape)
    return np.where(rng.random(shape) < 0.5, edges, rng.integers(-9, 9, shape))


def _special(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    edges = rng.choice(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -1.5, 127.5, 200.0, -129.0, 3e9, -3e9], shape
    )
    return np.where(rng.random(shape) < 0.6, edges, rng.standard_normal(shape) * 3)


INTEGERS = (np.int64, np.int32, np.int16, np.int8)
WIDE = (np.float64, np.float32)
ROWS = ((0, 3), (3, 0), (1, 1), (2, 7), (64, 64), (5, 65), (3, 1025))
FAMILIES = [
    Family(blend, lambda n, d: [(n, d), (n, d)], ROWS, scalars={"alpha": 0.7}),
    Family(blend, lambda n, d: [(n, 1, d), (2, d)], ((1, 7), (64, 2)), scalars={"alpha": 0.7}),
    Family(turn, lambda n, d: [(n, d), (d, n)], ROWS),
    Family(positions, lambda n, d: [(n, d)], ROWS, WIDE, differentiable=False),
    Family(whole_numbers, lambda n: [(n,), (n,)], ((300,),), INTEGERS, draw=_whole, differentiable=False),
    Family(conversions, lambda n: [(n,)], ((300,),), WIDE, draw=_special, differentiable=False),
    Family(comparisons, lambda n: [(n,), (n,)], ((300,),), WIDE, draw=_special, differentiable=False),
    Family(soften, lambda n, d: [(n, d)], (*ROWS, (2, 70000))),
    Family(normalise, lambda n, d: [(n, d), (d,)], ROWS[1:]),
    Family(every_way, lambda n, d: [(n, d)], (ROWS[0], *ROWS[2:]), WIDE, differentiable=False),
    Family(columns, lambda n, d: [(n, d)], ROWS, differentiable=False),
    Family(planes, lambda b, c, s: [(b, c, s, s), (c,)], ((2, 3, 5), (1, 1, 1), (3, 7, 8)), WIDE),
    Family(total, lambda n, d: [(n, d)], (*ROWS, (70, 650))),
    Family(
        layer,
        lambda m, n, k: [(m, k), (n, k), (n,)],
        ((2, 3, 7), (65, 33, 70), (1, 1, 1), (3, 2, 0), (0, 2, 3)),
    ),
    Family(product, lambda m, n, k: [(2, m, k), (k, n)], ((17, 64, 33), (1, 1, 1), (64, 64, 64), (2, 0, 3))),
    Family(product, lambda m, n, k: [(2, m, k), (2, k, n)], ((7, 65, 3),), (*FLOATS.values(), np.int32)),
    Family(
        scores,
        lambda i, j, d: [(2, i, 3, d), (2, j, 3, d)],
        ((7, 5, 16), (33, 33, 3)),
        (np.float32, np.float16),
    ),
    Family(several, lambda p, r: [(p, 2, r, 3), (r, 3, 2, 5)], ((3, 4), (9, 1)), WIDE),
]


def call_of(family: Family, operands: list[np.ndarray]) -> Call:
    """The call of the family's op on these operands."""
    return family.op.bind(family.op.arguments(tuple(operands), dict(family.scalars)))


def derived(rule: str, call: Call, seed: int = 1) -> Call:
    """The call of the derivative ("vjp" or "jvp") of a call's Program, its further operands drawn."""
    program = backward_of(call.program) if rule == "vjp" else jvp(call.program)
    given = {**call.arrays, **call.scalars}
    arrays = with_cotangents(program, given, extents_of(call.program, given), seed)
    tiles = {p.name: arrays[p.name] for p in program.tiles}
    scalars = {p.name: arrays[p.name] for p in program.scalars}
    return replace(call, program=program, arrays=tiles, scalars=scalars)


def check(call: Call, executable: Callable[[Any], Any], ulps: float = 8.0) -> None:
    """A call's results on a target against the float64 reference."""
    actual = executable(lower(call.program)).run(call.arrays, call.scalars)
    check_results(call.program, {**call.arrays, **call.scalars}, actual, ulps=ulps)
