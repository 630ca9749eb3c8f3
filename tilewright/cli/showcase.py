"""The op that `tilewright demo` defines: nothing like it is in the library."""

import tilewright as tw


@tw.op
def gated_norm(x: tw.Tile["... d"], gate: tw.Tile["... d"], weight: tw.Tile["d"], *, eps: float = 1e-6):
    """x / √(mean(x²) + eps) · weight · gate · σ(gate), along d: an RMS norm behind a SiLU gate."""
    return x * tw.rsqrt(tw.mean(x * x, "d") + eps) * weight * gate * tw.sigmoid(gate)
