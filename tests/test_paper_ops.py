"""Ops of papers, as a reader would write them down: against torch, and their slopes to second order."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tests.support import checks
from tests.support.cases import Case, labels, positive

pytestmark = pytest.mark.exhaustive

torch = pytest.importorskip("torch")


@tw.op
def selective_scan(
    u: tw.Tile["b t d"],
    delta: tw.Tile["b t d"],
    rate: tw.Tile["d n"],
    into: tw.Tile["b t n"],
    out_of: tw.Tile["b t n"],
):
    """Mamba: h = exp(-Δ·rate)·h + Δ·B·u, y = C·h."""
    step = tw.softplus(delta)
    decayed = (tw.exp(-step * rate), step * into * u)
    state = tw.scan(lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1]), decayed, "t")[1]
    return tw.sum(state * out_of, "n")


def selective_scan_in_torch(u, delta, rate, into, out_of):
    step, state, rows = torch.nn.functional.softplus(delta), 0, []
    for t in range(u.shape[1]):
        decay = torch.exp(-step[:, t, :, None] * rate)
        state = decay * state + (step[:, t] * u[:, t])[:, :, None] * into[:, t, None, :]
        rows.append((state * out_of[:, t, None, :]).sum(-1))
    return torch.stack(rows, 1)


@tw.op
def weighted_keys(k: tw.Tile["t c"], v: tw.Tile["t c"], decay: tw.Tile["c"]):
    """RWKV: Σ exp(k)·v / Σ exp(k) with weights that decay, beside a running maximum."""

    def step(left, right):
        top = tw.maximum(left[1] + right[0], right[1])
        old, new = tw.exp(left[1] + right[0] - top), tw.exp(right[1] - top)
        return left[0] + right[0], top, left[2] * old + right[2] * new, left[3] * old + right[3] * new

    _, _, above, below = tw.scan(step, (0 * k - decay, k, v, 1 + 0 * k), "t")
    return above / below


def weighted_keys_in_torch(k, v, decay):
    above, below, rows = 0, 0, []
    for t in range(len(k)):
        above = above * torch.exp(-decay) + torch.exp(k[t]) * v[t]
        below = below * torch.exp(-decay) + torch.exp(k[t])
        rows.append(above / below)
    return torch.stack(rows)


@tw.op
def mixture_of_experts(x: tw.Tile["n d"], gate: tw.Tile["d e"], up: tw.Tile["e d f"], down: tw.Tile["e f o"]):
    """The two best experts of each token, weighted by a softmax over both."""
    score, expert = tw.topk(tw.sum(x * gate, "d"), 2, "e", into="s")
    share = tw.exp(score - tw.logsumexp(score, "s"))
    hidden = tw.maximum(tw.sum(x * up.at(e=expert), "d"), 0)
    return tw.sum(tw.sum(hidden * down.at(e=expert), "f") * share, "s")


def mixture_of_experts_in_torch(x, gate, up, down):
    score, expert = torch.topk(x @ gate, 2, -1)
    hidden = torch.relu(torch.einsum("nd,nsdf->nsf", x, up[expert]))
    return torch.einsum("nsf,nsfo,ns->no", hidden, down[expert], torch.softmax(score, -1))


@tw.op
def dispatch(x: tw.Tile["n d"], expert: tw.Tile["n"], *, experts: int = 3, capacity: int = 4):
    """Tokens in the buffers of their experts, in order, until these are full."""
    chosen = tw.cast(expert == tw.axis("e", experts), tw.int64)
    place = tw.sum((tw.cumsum(chosen, "n") - chosen) * chosen, "e")
    slot = tw.where(place < capacity, expert * capacity + place, -1)
    return tw.scatter_add(x, {"slot": slot}, experts * capacity)


def dispatch_in_torch(x, expert, experts=3, capacity=4):
    filled, slots, tokens = [0] * experts, [], []
    for token, e in enumerate(expert.tolist()):
        if filled[e] < capacity:
            slots.append(e * capacity + filled[e])
            tokens.append(token)
        filled[e] += 1
    empty = torch.zeros(experts * capacity, x.shape[1], dtype=x.dtype)
    return empty.index_add(0, torch.tensor(slots), x[torch.tensor(tokens)])


@tw.op
def sinkhorn(cost: tw.Tile["i j"], *, eps: float = 0.5, steps: int = 3):
    """The transport cost after some steps of the scaling algorithm, unrolled."""
    f = 0 * tw.sum(cost, "j")
    for _ in range(steps):
        g = -eps * tw.logsumexp((f - cost) / eps, "i")
        f = -eps * tw.logsumexp((g - cost) / eps, "j")
    return tw.sum(tw.exp((f + g - cost) / eps) * cost)


def sinkhorn_in_torch(cost, eps=0.5, steps=3):
    f = torch.zeros(len(cost), dtype=cost.dtype)
    for _ in range(steps):
        g = -eps * torch.logsumexp((f[:, None] - cost) / eps, 0)
        f = -eps * torch.logsumexp((g - cost) / eps, 1)
    return (torch.exp((f[:, None] + g - cost) / eps) * cost).sum()


@tw.op
def splats(centre: tw.Tile["g"], width: tw.Tile["g"], opacity: tw.Tile["g"], colour: tw.Tile["g c"]):
    """Gaussians on a line of six pixels, composited front to back."""
    distance = (tw.cast(tw.axis("p", 6), centre.dtype) - centre) / width
    alpha = tw.sigmoid(opacity) * tw.exp(-distance * distance)
    return tw.sum(alpha * tw.cumprod(1 - alpha, "g", exclusive=True) * colour, "g")


def splats_in_torch(centre, width, opacity, colour):
    distance = (torch.arange(6)[:, None] - centre) / width
    alpha = torch.sigmoid(opacity) * torch.exp(-distance * distance)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], 1), 1)
    return torch.einsum("pg,gc->cp", alpha * through, colour)


CASES = [
    Case(
        selective_scan, {"b": 2, "t": 7, "d": 3, "n": 2}, draw={"rate": positive},
        torch=selective_scan_in_torch,
    ),
    Case(weighted_keys, {"t": 9, "c": 3}, draw={"decay": positive}, torch=weighted_keys_in_torch),
    Case(mixture_of_experts, {"n": 5, "d": 4, "e": 3, "f": 6, "o": 2}, torch=mixture_of_experts_in_torch),
    Case(
        dispatch, {"n": 13, "d": 3}, draw={"expert": labels(0, 3)}, dtypes={"expert": np.int64},
        torch=dispatch_in_torch,
    ),
    Case(sinkhorn, {"i": 5, "j": 7}, torch=sinkhorn_in_torch),
    Case(splats, {"g": 4, "c": 3}, draw={"width": positive}, torch=splats_in_torch),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_torch(case: Case):
    checks.check_torch(case, case.arguments())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_slopes(case: Case):
    checks.check_slopes(case)


@pytest.mark.parametrize("target", checks.targets())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_single_precision(case: Case, target: str):
    checks.check_value(case, np.float32, target)
    checks.check_backward(case, np.float32, target)
