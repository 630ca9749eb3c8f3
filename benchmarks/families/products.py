"""Matrix products: plain, with everything that follows fused, square, skinny and odd."""

from __future__ import annotations

import ml_dtypes

from benchmarks.work import Bench, both, find, forward
from tests.kernels.cases_products import CASES
from tilewright import kernels as K

MATMUL = find(CASES, K.matmul)
LINEAR = find(CASES, K.linear)
GELU = find(CASES, K.linear, activation="gelu")


def matmul(m: int, k: int, n: int, **options: bool) -> Bench:
    return forward(f"matmul {m}×{k}×{n}", "products", MATMUL, {"...": (), "m": m, "k": k, "n": n}, **options)


BENCHES = [
    matmul(64, 64, 64, quick=False),
    matmul(256, 256, 256),
    matmul(512, 512, 512, quick=False),
    matmul(1024, 1024, 1024),
    matmul(1000, 1001, 999, quick=False),
    matmul(2048, 2048, 2048, quick=False),
    matmul(4096, 64, 64),
    matmul(16, 4096, 4096, quick=False),
    matmul(1, 4096, 4096, quick=False),
    matmul(2048, 16, 2048, quick=False),
    forward(
        "64 matmuls 128×64×128", "products", MATMUL, {"...": (64,), "m": 128, "k": 64, "n": 128}, quick=False
    ),
    forward(
        "matmul 1024×1024×1024, bfloat16", "products", MATMUL, {"...": (), "m": 1024, "k": 1024, "n": 1024},
        dtype=ml_dtypes.bfloat16, quick=False,
    ),
    forward("linear 512×1024→1024", "products", LINEAR, {"...": (512,), "k": 1024, "n": 1024}),
    forward(
        "linear + GELU 512×1024→1024", "products", GELU, {"...": (512,), "k": 1024, "n": 1024},
        compiled_in_quick=True,
    ),
    both("linear + GELU 512×1024→1024", "products", GELU, {"...": (512,), "k": 1024, "n": 1024}, quick=False),
]  # fmt: skip
