"""Save or compute again: what the minimum cut keeps, and what `tw.checkpoint` makes of it."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import assert_close
from tilewright.autograd.derive import Derivative, vjp
from tilewright.dsl.program import Map, Node


def derived(op, *shapes: tuple[int, ...]) -> Derivative:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return vjp(op.bind(op.arguments(arrays, {})).program)


def kept_nodes(derivative: Derivative) -> list[Node]:
    return [r.node for r in derivative.forward.results[1:]]


def kept(derivative: Derivative, program_results: int = 1) -> list[tuple[str, ...]]:
    """The axes of what the forward writes for the backward."""
    return [r.axes for r in derivative.forward.results[program_results:]]


@tw.op
def gated(x: tw.Tile["m a"], v: tw.Tile["a b"], w: tw.Tile["a b"]):
    return tw.tanh(tw.sum(x * v, "a")) * tw.sigmoid(tw.sum(x * w, "a"))


def test_products_are_not_repeated():
    """tanh' = 1 - y² and sigmoid' = y (1 - y): what follows each product is enough."""
    derivative = derived(gated, (3, 4), (4, 5), (4, 5))
    assert kept(derivative) == [("m", "b")] * 2
    functions = {n.function for n in kept_nodes(derivative) if isinstance(n, Map)}
    assert functions == {"tanh", "sigmoid"}


@tw.op
def two_layers(x: tw.Tile["m a"], v: tw.Tile["a b"], w: tw.Tile["b c"]):
    hidden = tw.sum(x * v, "a")
    return tw.sum(tw.tanh(hidden) * w, "b")


@tw.op
def scores(q: tw.Tile["i d"], k: tw.Tile["j d"]):
    return tw.sum(tw.sigmoid(tw.sum(q * k, "d")), "j")


def test_a_value_larger_than_every_tile_is_computed_again():
    assert kept(derived(scores, (3, 4), (5, 4))) == []


@tw.op
def best_two(x: tw.Tile["n i"]):
    values, _ = tw.topk(x, 2, "i")
    return tw.sum(values * values, "i_top")


@tw.op
def with_places(x: tw.Tile["n i"]):
    return tw.topk(x, 2, "i")


def test_a_sort_is_not_repeated():
    derivative = derived(best_two, (3, 7))
    assert not any("argsort" in line for line in _lines(derivative))
    assert derived(with_places, (3, 7)).saved == ("y1",)


def _lines(derivative: Derivative) -> list[str]:
    from tilewright.dsl.formula import formula

    return formula(derivative.backward).split("\n")


@tw.op
def again(x: tw.Tile["m a"], v: tw.Tile["a b"], w: tw.Tile["a b"]):
    return tw.tanh(tw.checkpoint(tw.sum(x * v, "a"))) * tw.sigmoid(tw.sum(x * w, "a"))


@tw.op
def held(x: tw.Tile["n"]):
    return tw.checkpoint(x * x + 1, keep=True) ** 3


@pytest.mark.parametrize(
    "op, shapes", [(again, ((3, 4), (4, 5), (4, 5))), (held, ((7,),))], ids=["again", "held"]
)
def test_checkpoint(op, shapes):
    derivative = derived(op, *shapes)
    assert kept(derivative) == ([("m", "b")] if op is again else [("n",)])
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    result = op(*arrays)
    assert_close(result, op.reference(*arrays))
    cotangent = rng.standard_normal(result.shape)
    gradients, expected = op.vjp(*arrays, cotangent), op.vjp.reference(*arrays, cotangent)
    if op is again:
        plain = gated.vjp.reference(*arrays, cotangent)
        for one, other in zip(gradients, plain, strict=True):
            assert_close(one, other)
    else:
        assert_close(gradients, expected)
