"""Ops along the last axis: softmax and normalisation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.support.cases import Case
from tilewright import kernels as K

INF, NAN = math.inf, math.nan
AXES = {"...": (2, 3), "d": 7}
MORE = (
    {"d": 1},
    {"d": 2},
    {"d": 1025},
    {"...": (), "d": 33},
    {"...": (5,), "d": 64},
    {"...": (0,), "d": 3},
    {"...": (3,), "d": 0},
)
SPECIAL = (-INF, 1e4, -1e4, NAN, INF)


def torch_layer_norm(x, weight=None, bias=None, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def torch_rms_norm(x, weight=None, eps=1e-6):
    return F.rms_norm(x, x.shape[-1:], weight, eps)


CASES = [
    Case(K.softmax, AXES, more=MORE, special=SPECIAL, torch=lambda x: torch.softmax(x, -1), typical=True),
    Case(K.log_softmax, AXES, more=MORE, special=SPECIAL, torch=lambda x: torch.log_softmax(x, -1)),
    Case(K.logsumexp, AXES, more=MORE, special=SPECIAL, torch=lambda x: torch.logsumexp(x, -1), typical=True),
    Case(K.layer_norm, AXES, more=MORE, torch=torch_layer_norm, typical=True, special=(NAN, 1e4)),
    Case(K.layer_norm, AXES, more=MORE, torch=torch_layer_norm, absent=("bias",)),
    Case(K.layer_norm, AXES, more=MORE, torch=torch_layer_norm, absent=("weight", "bias")),
    Case(K.layer_norm, AXES, constants={"eps": 0.1}, torch=torch_layer_norm),
    Case(K.rms_norm, AXES, more=MORE, torch=torch_rms_norm, typical=True, special=(NAN, 1e4)),
    Case(K.rms_norm, AXES, more=MORE, torch=torch_rms_norm, absent=("weight",)),
]

CASES += [Case(K.softmin, AXES, special=SPECIAL, torch=lambda x: F.softmin(x, -1), rare=True)]
