"""Matrix products and linear layers. Sums of half-precision products accumulate in float32."""

import tilewright as tw
from tilewright.kernels.activations import activate


@tw.op
def matmul(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    """C = A·B; batch axes broadcast."""
    return tw.sum(a * b, "k")


@tw.op
def linear(
    x: tw.Tile["... k"], weight: tw.Tile["n k"], bias: tw.Tile["n"] = None, *, activation: str | None = None
) -> tw.Tile["... n"]:
    """activation(x·weightᵀ + bias); `activation` names one of `kernels.ACTIVATIONS`, or is None."""
    y = tw.sum(x * weight, "k")
    if bias is not None:
        y = y + bias
    return activate(y, activation)


@tw.op
def bilinear(
    x: tw.Tile["... i"], z: tw.Tile["... j"], weight: tw.Tile["n i j"], bias: tw.Tile["n"] = None
) -> tw.Tile["... n"]:
    """xᵀ·weight[n]·z + bias[n] for every n."""
    y = tw.sum(x * weight * z, "i j")
    return y if bias is None else y + bias
