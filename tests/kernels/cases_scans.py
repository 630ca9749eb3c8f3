"""Ops along the last axis that keep its positions, or put them in order: scans, recurrences, sorting."""

from __future__ import annotations

import math

import torch

from tests.support.cases import Case, positive
from tilewright import kernels as K

INF, NAN = math.inf, math.nan
AXES = {"...": (2, 3), "d": 7}
MORE = ({"...": (17,), "d": 20}, {"...": (), "d": 33})
SPECIAL = (-INF, 1e4, NAN, INF)
PROPER = (50.0, NAN)  # torch's slopes of cumprod and logcumsumexp at infinities are quotients of them: NaN
TIMES = {"...": (2, 3), "t": 7}
LATER = ({"...": (17,), "t": 20}, {"...": (), "t": 33})


def apart(rng, shape):
    """Values with gaps between them, which a finite difference does not cross."""
    count = math.prod(shape)
    return 4.0 * rng.permutation(count).reshape(shape) / max(count, 1) - 2.0


def reversed_(function):
    """A torch scan along the last dimension, from its end."""
    return lambda x, **_: function(x.flip(-1), -1).flip(-1)


def before(function, first):
    """A torch scan along the last dimension of what stands before each position."""

    def scan(x, **_):
        start = torch.full_like(x[..., :1], first)
        return torch.cat([start, function(x, -1)], -1)[..., : x.shape[-1]]

    return scan


def smallest(x, dim):
    return x.cummin(dim)[0]


def descending(x, descending):
    return x.sort(dim=-1, stable=True, descending=descending)


def recurrence(a, b, initial=None):
    h, found = torch.zeros_like(b[..., 0]) if initial is None else initial, []
    for t in range(b.shape[-1]):
        h = a[..., t] * h + b[..., t]
        found.append(h)
    return torch.stack(found, -1)


def backwards(a, b, **_):
    return recurrence(a.flip(-1), b.flip(-1)).flip(-1)


APART = {"x": apart}
REVERSE, EXCLUSIVE = {"reverse": True}, {"exclusive": True}
CASES = [
    Case(K.cumsum, AXES, more=MORE, special=SPECIAL, torch=lambda x: x.cumsum(-1)),
    Case(K.cumsum, AXES, constants=REVERSE, torch=reversed_(torch.cumsum), rare=True),
    Case(K.cumsum, AXES, constants=EXCLUSIVE, torch=before(torch.cumsum, 0), rare=True),
    Case(K.cumprod, AXES, more=MORE, special=PROPER, torch=lambda x: x.cumprod(-1)),
    Case(K.cumprod, AXES, constants=REVERSE | EXCLUSIVE, draw={"x": positive}, rare=True),
    Case(K.cummax, AXES, draw=APART, special=SPECIAL, torch=lambda x: x.cummax(-1)[0]),
    Case(K.cummin, AXES, draw=APART, constants=REVERSE, torch=reversed_(smallest), rare=True),
    Case(K.logcumsumexp, AXES, special=PROPER, torch=lambda x: x.logcumsumexp(-1)),
    Case(K.logcumsumexp, AXES, constants=REVERSE, torch=reversed_(torch.logcumsumexp), rare=True),
    Case(K.cummax_with_index, AXES, draw=APART, torch=lambda x: x.cummax(-1), rare=True),
    Case(K.cummin_with_index, AXES, draw=APART, torch=lambda x: x.cummin(-1), rare=True),
    Case(K.linear_recurrence, TIMES, more=LATER, torch=recurrence, typical=True),
    Case(K.linear_recurrence, TIMES, absent=("initial",), torch=recurrence, rare=True),
    Case(K.linear_recurrence, TIMES, absent=("initial",), constants=REVERSE, torch=backwards, rare=True),
    Case(K.differences, AXES, torch=lambda x: x.diff(), special=(INF, NAN)),
    Case(K.max_with_index, AXES, draw=APART, more=MORE, special=SPECIAL, torch=lambda x: x.max(-1)),
    Case(K.min_with_index, AXES, draw=APART, torch=lambda x: x.min(-1), rare=True),
    Case(K.sort, AXES, draw=APART, more=MORE, torch=lambda x: x.sort(dim=-1, stable=True)),
    Case(K.sort, AXES, draw=APART, constants={"descending": True}, torch=descending, rare=True),
    Case(K.topk, AXES, draw=APART, constants={"k": 3}, torch=torch.topk),
    Case(K.topk, AXES, draw=APART, constants={"k": 2, "largest": False}, torch=torch.topk, rare=True),
    Case(K.median, AXES, draw=APART, torch=lambda x: x.median(-1)),
]
