"""Ops that no kernel family has by itself: mixed dtypes, scans inside of contractions, ties, three operands,
wide integers, rows that fit no block. Values and gradients in the interpreter; compiled ahead of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tests.support.checks import backward_of, extents_of, with_cotangents
from tests.support.compare import check_results
from tilewright.compiler.pipeline import lower
from tilewright.compiler.targets.triton.binaries import compile_plan
from tilewright.compiler.targets.triton.executable import InterpreterExecutable
from tilewright.compiler.targets.triton.launch import whole_elements
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.dsl.program import Program
from tilewright.errors import DerivativeError
from tilewright.op.op import Call

RNG = np.random.default_rng(5)
HALF, BRAIN = np.float16, ml_dtypes.bfloat16
TARGETS = ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"]


def drawn(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def whole(end: int, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    return RNG.integers(0, end, shape).astype(dtype)


@tw.op
def scaled_product(a: tw.Tile["m k"], b: tw.Tile["k n"], c: tw.Tile["n"], chosen: tw.Tile["m"]):
    return tw.where(chosen, tw.sum(a * b, "k") * c, -1)


@tw.op
def trilinear(x: tw.Tile["b i"], y: tw.Tile["b j"], w: tw.Tile["i j o"]):
    return tw.sum(x * y * w, "i j")


@tw.op
def windows_of_sums(x: tw.Tile["n t"], w: tw.Tile["n k"], *, stride: int = 3):
    u = tw.axis("u", tw.size("t") // stride)
    sums = tw.cumsum(x * x, "t")
    return tw.sum(sums.at(t=u * stride + tw.index("k") - 1) * w, "k")


@tw.op
def scans_in_a_product(a: tw.Tile["m k"], b: tw.Tile["k n"]):
    return tw.sum(tw.cumsum(a, "k") * tw.cummax(b, "k"), "k")


@tw.op
def ties(x: tw.Tile["n d"], v: tw.Tile["d e"]):
    """Rounded values are equal here and there: the first of them counts."""
    best = tw.argmax(tw.round(x), "d")
    return best, v.at(d=best), tw.max(tw.round(x), "d") * x.at(d=best)


@tw.op
def wide_rows(x: tw.Tile["n d"], w: tw.Tile["d"]):
    centred = x - tw.mean(x, "d")
    return centred * tw.rsqrt(tw.mean(centred * centred, "d") + 1e-5) * w, tw.logsumexp(x, "d")


@tw.op
def far_positions(x: tw.Tile["n"], ids: tw.Tile["m"]):
    """Positions that wrap in 64 bits before they are in place."""
    p = ids * ids * 1000003 - ids * 4
    return x.at(n=p % tw.size("n")) * tw.cast(p % 7, "float32")


@tw.op
def banded(q: tw.Tile["... i d"], k: tw.Tile["... j d"], v: tw.Tile["... j e"], g: tw.Tile["... i"]):
    s = tw.sum(q * k, "d")
    s = tw.where(tw.index("i") - tw.index("j") < 5, s, -tw.inf)
    s = tw.where(tw.index("j") <= tw.index("i"), s, -tw.inf)
    p = tw.exp(s - tw.max(s, "j"))
    return tw.sum(p / tw.sum(p, "j") * v, "j") * tw.sigmoid(g)


@tw.op
def flipped(x: tw.Tile["n r c"], y: tw.Tile["n"]):
    f = x.at(n=tw.size("n") - 1 - tw.index("n"), r=tw.index("n") // 2)
    return tw.sum(f * y, "n"), tw.cumprod(tw.cos(f), "c")


@tw.op
def histogram(ids: tw.Tile["n"], w: tw.Tile["n c"]):
    return tw.scatter_add(w * w, {"row": ids}, 9)


@tw.op
def gated(x: tw.Tile["b t c"], a: tw.Tile["c"], w: tw.Tile["c o"]):
    def step(l, r):
        return l[0] * r[0], l[1] * r[0] + r[1]

    h = tw.scan(step, (tw.sigmoid(a) + 0 * x, x), "t")[1]
    return tw.sum(tw.tanh(h) * w, "c")


@tw.op
def every_direction(x: tw.Tile["a b c d"]):
    return tw.sum((x - tw.max(x, "b d")) ** 2, "a c"), tw.prod(tw.sign(x) + 0.5 * x, "a b c d")


@tw.op
def pooled(x: tw.Tile["n c h w"]):
    oh, ow = tw.axis("oh", (tw.size("h") - 3) // 2 + 1), tw.axis("ow", (tw.size("w") - 2) // 3 + 1)
    p = tw.max(x.at(h=oh * 2 + tw.axis("r", 3), w=ow * 3 + tw.axis("s", 2)), "r s")
    return p * tw.rsqrt(tw.mean(p * p, "oh ow") + 1e-3)


@tw.op
def quantised(x: tw.Tile["m k"], w: tw.Tile["k n"], s: tw.Tile["n"]):
    return tw.cast(tw.sum(tw.cast(x, "int32") * w, "k"), "float32") * s


@tw.op
def sorted_weights(x: tw.Tile["n d"], w: tw.Tile["d"]):
    return tw.sort(x, "d") * w


@tw.op
def bits(a: tw.Tile["n"], b: tw.Tile["m"]):
    return (a ^ (b << 3)) % 5, tw.sum(tw.cast((a & b) > 2, "int32"), "m")


@tw.op
def outer_sums(a: tw.Tile["b m"], b: tw.Tile["b n"]):
    both = a * b
    return tw.sum(both * both, "b") * tw.size("n") + tw.sum(a, "b")


@tw.op
def gram(x: tw.Tile["n d"]):
    y = x["m d"]
    g = tw.sum(x * y, "d")
    return tw.sum(tw.exp(-g * g) * y, "m"), tw.max(g, "m")


@tw.op
def looked_up(q: tw.Tile["n d"], table: tw.Tile["v d"], ids: tw.Tile["n k"]):
    s = tw.sum(q * table.at(v=ids), "d")
    return tw.exp(s - tw.logsumexp(s, "k"))


def bound(op: tw.Op, *arrays: np.ndarray, **constants: Any) -> Call:
    return op.bind(op.arguments(arrays, constants))


BYTES = whole(5, 20, dtype=np.int8)
CHOSEN = whole(2, 33, dtype=np.bool_)
CASES = {
    "mixed_halves": bound(
        scaled_product, drawn(33, 40, dtype=BRAIN), drawn(40, 20, dtype=HALF), BYTES, CHOSEN
    ),
    "trilinear": bound(trilinear, drawn(7, 9), drawn(7, 5), drawn(9, 5, 11)),
    "windows_of_sums": bound(windows_of_sums, drawn(5, 50), drawn(5, 4)),
    "scans_in_a_product": bound(scans_in_a_product, drawn(20, 33), drawn(33, 12)),
    "ties": bound(ties, drawn(9, 40), drawn(40, 6)),
    "wide_rows": bound(wide_rows, drawn(3, 5001), drawn(5001)),
    "far_positions": bound(far_positions, drawn(37), whole(4_000_000_000, 50)),
    "attention": bound(banded, drawn(2, 9, 16), drawn(2, 9, 16), drawn(2, 9, 8), drawn(2, 9)),
    "flipped": bound(flipped, drawn(6, 4, 5), drawn(6)),
    "histogram": bound(histogram, whole(11, 60) - 1, drawn(60, 5, dtype=HALF)),
    "gated": bound(gated, drawn(2, 20, 8), drawn(8), drawn(8, 5)),
    "every_direction": bound(every_direction, drawn(3, 2, 4, 5)),
    "pooled": bound(pooled, drawn(2, 3, 9, 11)),
    "quantised": bound(
        quantised, whole(127, 17, 20, dtype=np.int8), -whole(127, 20, 9, dtype=np.int8), drawn(9)
    ),
    "sorted": bound(sorted_weights, np.round(drawn(4, 19)), drawn(19)),
    "bits": bound(bits, whole(1000, 40, dtype=np.int32), whole(200, 30, dtype=np.uint8)),
    "outer_sums": bound(outer_sums, drawn(4, 6, dtype=np.float64), drawn(4, 9)),
    "gram": bound(gram, drawn(19, 6)),
    "looked_up": bound(looked_up, drawn(9, 12), drawn(20, 12, dtype=HALF), whole(22, 9, 5) - 1),
    "no_terms": bound(scans_in_a_product, drawn(20, 0), drawn(0, 12)),
    "no_steps": bound(gated, drawn(2, 0, 8), drawn(8), drawn(8, 5)),
}
FURTHER = {
    "strided_halves": bound(
        scaled_product, drawn(40, 33, dtype=BRAIN).T, drawn(40, 50, dtype=HALF)[:, ::2][:, :20],
        BYTES.astype(np.int16), CHOSEN,
    ),
    "trilinear_halves": bound(trilinear, *(drawn(*s, dtype=HALF) for s in ((20, 9), (20, 5), (9, 5, 17)))),
    "trilinear_vectors": bound(trilinear, drawn(1, 9), drawn(1, 5), drawn(9, 5, 1)),
    "backwards": bound(windows_of_sums, drawn(5, 50)[:, ::-1], drawn(5, 4), stride=1),
    "scans_and_a_vector": bound(scans_in_a_product, drawn(20, 33), drawn(33, 1)),
    "a_query": bound(banded, *(drawn(2, n, d, dtype=BRAIN) for n, d in ((1, 16), (33, 16), (33, 8))),
                     drawn(2, 1, dtype=BRAIN)),
    "rows_in_parts": bound(wide_rows, drawn(2, 150_001, dtype=HALF), drawn(150_001, dtype=HALF)),
    "gram_of_one": bound(gram, drawn(1, 6)),
    "no_queries": bound(banded, drawn(2, 0, 16), drawn(2, 33, 16), drawn(2, 33, 8), drawn(2, 0)),
    "no_features": bound(trilinear, drawn(7, 0), drawn(7, 5), drawn(0, 5, 11)),
    "no_choices": bound(looked_up, drawn(9, 12), drawn(20, 12), whole(22, 9, 0)),
}  # fmt: skip
EVERY_CASE = [*CASES, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in FURTHER)]


def programs(name: str) -> Iterator[tuple[Program, dict[str, Any]]]:
    """The Program of a case and its backward, with operands for them."""
    call = (CASES | FURTHER)[name]
    yield call.program, {**call.arrays, **call.scalars}
    try:
        backward = backward_of(call.program)
    except DerivativeError:
        assert not any(result.dtype.is_float for result in call.program.results)
        return
    given = with_cotangents(backward, dict(call.arrays), extents_of(call.program, call.arrays))
    yield backward, {p.name: given[p.name] for p in backward.tiles}


@pytest.mark.parametrize("name", EVERY_CASE)
def test_values_and_gradients(name):
    for program, arrays in programs(name):
        results = InterpreterExecutable(lower(program)).run(arrays)
        check_results(program, arrays, results, ulps=8.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*CASES, *FURTHER])
def test_they_compile_and_fit(name, target):
    gpu = Target.parse(target)
    for program, arrays in programs(name):
        _, shapes, strides = whole_elements(arrays)
        for _, artefact in compile_plan(lower(program), gpu, shapes, strides):
            assert artefact.shared_bytes <= gpu.shared_memory_limit
