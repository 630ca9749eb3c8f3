"""Reductions along rows and across them: softmax, norms, cross-entropy, row and column sums."""

from __future__ import annotations

import tilewright as tw
from benchmarks.work import both, find, forward
from tests.kernels.cases_losses import cross_entropy
from tests.kernels.cases_rows import CASES
from tests.kernels.cases_scans import CASES as SCANS
from tests.support.cases import Case, labels
from tilewright import kernels as K

SHAPE = {"...": (4096,), "d": 4096}
NORM = {"...": (8192,), "d": 1024}
CLASSES = {"...": (2048,), "c": 8192}
PLANE = {"i": 4096, "j": 4096}

CROSS_ENTROPY = cross_entropy(labels(0, CLASSES["c"]))


@tw.op
def column_sum(x: tw.Tile["i j"]):
    """Σ x along i."""
    return tw.sum(x, "i")


@tw.op
def row_sum(x: tw.Tile["i j"]):
    """Σ x along j."""
    return tw.sum(x, "j")


@tw.op
def column_sum_of_few(x: tw.Tile["i j"]):
    """Σ x along i, of few columns."""
    return tw.sum(x, "i")


@tw.op
def row_max(x: tw.Tile["i j"]):
    """The largest x along j."""
    return tw.max(x, "j")


@tw.op
def all_sum(x: tw.Tile["i j"]):
    """Σ x."""
    return tw.sum(x, ("i", "j"))


@tw.op
def scan_of_few(x: tw.Tile["i j"]):
    """Σ x so far along i, of few columns."""
    return tw.cumsum(x, "i")


THREE = {"i": 1_000_000, "j": 3}
BRIEF = {"i": 100_000, "j": 33}

BENCHES = [
    forward("softmax 4096²", "rows", find(CASES, K.softmax), SHAPE, compiled_in_quick=True),
    both("softmax 4096²", "rows", find(CASES, K.softmax), SHAPE, quick=False),
    forward("layer_norm 8192×1024", "rows", find(CASES, K.layer_norm), NORM),
    both("layer_norm 8192×1024", "rows", find(CASES, K.layer_norm), NORM, compiled_in_quick=True),
    forward("rms_norm 8192×1024", "rows", find(CASES, K.rms_norm), NORM),
    both("rms_norm 8192×1024", "rows", find(CASES, K.rms_norm), NORM),
    forward("cross_entropy 2048×8192", "rows", CROSS_ENTROPY, CLASSES),
    both("cross_entropy 2048×8192", "rows", CROSS_ENTROPY, CLASSES),
    forward("cumsum 4096²", "rows", find(SCANS, K.cumsum), SHAPE),
    forward("column sum 4096²", "rows", Case(column_sum, PLANE, torch=lambda x: x.sum(0)), PLANE),
    forward("row sum 4096²", "rows", Case(row_sum, PLANE, torch=lambda x: x.sum(1)), PLANE, quick=False),
    forward(
        "column sum 1M×3",
        "rows",
        Case(column_sum_of_few, THREE, torch=lambda x: x.sum(0)),
        THREE,
        quick=False,
    ),
    forward("row max 1M×3", "rows", Case(row_max, THREE, torch=lambda x: x.amax(1)), THREE, quick=False),
    forward("sum of all 1M×3", "rows", Case(all_sum, THREE, torch=lambda x: x.sum()), THREE, quick=False),
    forward(
        "column cumsum 1M×3",
        "rows",
        Case(scan_of_few, THREE, torch=lambda x: x.cumsum(0)),
        THREE,
        quick=False,
    ),
    forward("row max 100k×33", "rows", Case(row_max, BRIEF, torch=lambda x: x.amax(1)), BRIEF, quick=False),
]
