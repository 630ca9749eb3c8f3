"""An op of one's own: called, printed, differentiated, checked.

python examples/custom_op.py
"""

from __future__ import annotations

import numpy as np

import tilewright as tw


@tw.op
def rms_norm(x: tw.Tile["... d"], weight: tw.Tile["d"], *, eps: float = 1e-6):
    """y = x / √(mean(x²) + eps) · weight, along d."""
    return x * tw.rsqrt(tw.mean(x * x, "d") + eps) * weight


def main() -> bool:
    x = np.random.default_rng(0).standard_normal((4, 256)).astype(np.float32)
    weight = np.ones(256, np.float32)

    y = rms_norm(x, weight)  # a kernel was generated, compiled and cached
    print("mean of y² by row:", np.mean(y * y, axis=1).round(5))

    dx, dweight = rms_norm.vjp(x, weight, np.ones_like(y))  # and so was its gradient
    print("gradients:", dx.shape, dweight.shape)

    print(rms_norm.explain(x, weight))
    report = rms_norm.check(x, weight)
    print(report)
    return report.ok


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
