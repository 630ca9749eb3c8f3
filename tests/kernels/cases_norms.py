"""Norms over other axes than the last one, with running statistics, and norms of weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.support.cases import Case, positive
from tilewright import kernels as K

CHANNELS = {"n": 3, "c": 4, "s": 5}
MORE = ({"s": 1}, {"n": 7, "c": 33, "s": 65}, {"n": 1, "c": 1, "s": 1025})
POSITIVE = {"running_var": positive}
RUNNING, WEIGHTS = ("running_mean", "running_var"), ("weight", "bias")


def torch_norm(norm, over):
    """torch's norm, which writes running statistics, and has no gradient for them; here they are results."""

    def call(x, *given, momentum=0.1, training=True, eps=1e-5, names):
        operands = dict(zip(names, given, strict=True))
        mean, var = (operands.get(name) for name in RUNNING)
        mean, var = (None if t is None else t.detach().clone() for t in (mean, var))
        weights = (operands.get(name) for name in WEIGHTS)
        y = norm(x, mean, var, *weights, training, momentum, eps)
        if not training or mean is None:
            return y
        old = (operands[name] for name in RUNNING)
        now = x.mean(over), x.var(over, correction=1)
        now = (t.mean(0) if t.ndim == 2 else t for t in now)
        moved = [o + momentum * (n - o) for o, n in zip(old, now, strict=True)]
        for mine, written in zip(moved, (mean, var), strict=True):
            torch.testing.assert_close(mine.detach(), written)
        return y, *moved

    return call


TORCH = {
    K.batch_norm: torch_norm(F.batch_norm, (0, 2)),
    K.instance_norm: torch_norm(F.instance_norm, 2),
}


def norm(op, absent=(), more=(), momentum=0.1, **fields) -> Case:
    names = [t.name for t in op.tiles if t.name not in ("x", *absent)]
    return Case(
        op,
        CHANNELS,
        more=more,
        absent=absent,
        draw=POSITIVE,
        scalars={"momentum": momentum},
        torch=lambda *given, **options: TORCH[op](*given, names=names, **options),
        tolerance=64,
        **fields,
    )


def torch_group_norm(x, weight=None, bias=None, groups=1, eps=1e-5):
    return F.group_norm(x, groups, weight, bias, eps)


def torch_weight_norm(v, g):
    return torch._weight_norm(v, g[:, None])


def torch_power_iteration(weight, u):
    v = F.normalize(weight.T @ u, dim=0, eps=1e-12)
    return F.normalize(weight @ v, dim=0, eps=1e-12), v


def torch_spectral_norm(weight, u, v):
    return weight / (u @ weight @ v)


MATRIX = {"o": 4, "i": 5}
GROUPS = {"...": (2,), "groups": 3, "c": 2, "s": 5}
GROUPED = {"constants": {"groups": 3}, "torch": torch_group_norm, "tolerance": 64}

CASES = [
    norm(K.batch_norm, more=MORE, typical=True, heavy=True),
    norm(K.batch_norm, RUNNING, rare=True, constants={"eps": 0.1}, special=(math.nan, 1e4)),
    norm(K.batch_norm, WEIGHTS, rare=True, momentum=0.5),
    norm(K.batch_norm, rare=True, constants={"training": False}, special=(math.nan, math.inf, 1e4)),
    norm(K.instance_norm, rare=True, more=MORE),
    norm(K.instance_norm, RUNNING + WEIGHTS, rare=True),
    norm(K.instance_norm, rare=True, constants={"training": False}),
    Case(K.group_norm, GROUPS, more=({"c": 1}, {"c": 11, "s": 65}), **GROUPED),
    Case(K.group_norm, {**GROUPS, "...": (4,)}, absent=WEIGHTS, rare=True, **GROUPED),
    Case(K.weight_norm, MATRIX, more=({"o": 33, "i": 1025},), torch=torch_weight_norm, rare=True),
    Case(K.power_iteration, MATRIX, torch=torch_power_iteration, rare=True, heavy=True),
    Case(K.spectral_norm, MATRIX, draw={"u": positive, "v": positive, "weight": positive},
         torch=torch_spectral_norm, rare=True, heavy=True),
]  # fmt: skip
