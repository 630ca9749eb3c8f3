"""Random floating-point expressions over three operands, for fuzzing passes against the reference."""

from __future__ import annotations

import random

import numpy as np

from tilewright.dsl import language as tw
from tilewright.dsl.dtypes import float64
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.program import Node, Param, Program, Read, Result
from tilewright.dsl.reference import reference

PARAMS = (
    Param("x", ("i", "d"), float64),
    Param("w", ("d",), float64),
    Param("s", ("i",), float64),
)
EXTENTS = {"i": 3, "d": 4}

UNARY = (
    tw.exp, tw.tanh, tw.sigmoid, tw.abs, tw.sin,
    lambda a: -a, lambda a: a * a, lambda a: 2 * a, lambda a: a / 3,
    lambda a: tw.sqrt(a * a + 0.5), lambda a: tw.rsqrt(a * a + 1), lambda a: 1 / (a * a + 1),
    lambda a: tw.sqrt(a * a), lambda a: tw.log(a * a + 1), lambda a: tw.log(tw.exp(a)),
    lambda a: tw.pow(a * a + 1, 1.5), lambda a: tw.where(a > 0, a, 0), lambda a: tw.where(a > 0.3, 0, a),
    lambda a: tw.maximum(a, 0.1), tw.stop_gradient,
)  # fmt: skip
BINARY = (
    lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (b * b + 1),
    lambda a, b: a * tw.rsqrt(b * b + 2), lambda a, b: a / tw.exp(b), lambda a, b: tw.exp(a - b),
    lambda a, b: tw.where(a < b, a, b), lambda a, b: tw.where(a > 0, a, 0) + tw.where(a > 0, 0, b),
    lambda a, b: a * (a + b) - a * b, tw.minimum,
)  # fmt: skip


def random_expression(rng: random.Random, steps: int = 12) -> Expr:
    """An expression of about `steps` operations in which subexpressions are used again."""
    pool = [Expr(Read(p.name, p.axes, p.dtype)) for p in PARAMS]
    pool.append(constant(rng.choice((0.5, 2.0, -1.0)), float64))
    for _ in range(steps):
        kind = rng.random()
        if kind < 0.3:
            pool.append(rng.choice(UNARY)(rng.choice(pool)))
        elif kind < 0.75:
            pool.append(rng.choice(BINARY)(rng.choice(pool), rng.choice(pool)))
        else:
            pool.append(_reduced(rng, rng.choice(pool)))
    return pool[-1] + rng.choice(pool) * rng.choice(pool)


def _reduced(rng: random.Random, value: Expr) -> Expr:
    if not value.axes:
        return value * cast(tw.size("d"), float64)
    axes = rng.choice((*value.axes, " ".join(value.axes)))
    return rng.choice((tw.sum, tw.sum, tw.sum, tw.mean, tw.max))(value, axes)


def program_of(node: Node) -> Program:
    return Program("random", PARAMS, (Result("y", node, node.axes),))


def arguments(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {p.name: rng.standard_normal([EXTENTS[a] for a in p.axes]) for p in PARAMS}


def value_of(node: Node, given: dict[str, np.ndarray]) -> np.ndarray:
    wide = tuple(a for a in ("i", "d") if a in node.axes)
    (value,) = reference(Program("random", PARAMS, (Result("y", node, wide),)), given)
    return value
