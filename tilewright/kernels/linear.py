"""Matrix products and linear layers. Sums of half-precision products are float32, of integers int64."""

import tilewright as tw
from tilewright.kernels.activations import activate


def product(x, y):
    """x · y; of integers in int64, where it does not wrap."""
    both = x.dtype.is_integer and y.dtype.is_integer
    return tw.cast(x, tw.int64) * y if both else x * y


@tw.op
def matmul(a: tw.Tile["... m k"], b: tw.Tile["... k n"]):
    """C = A·B; batch axes broadcast."""
    return tw.sum(product(a, b), "k")


@tw.op
def linear(
    x: tw.Tile["... k"], weight: tw.Tile["n k"], bias: tw.Tile["n"] = None, *, activation: str | None = None
) -> tw.Tile["... n"]:
    """activation(x·weightᵀ + bias); `activation` names one of `kernels.ACTIVATIONS`, or is None."""
    y = tw.sum(product(x, weight), "k")
    if bias is not None:
        y = y + bias
    return activate(y, activation)


@tw.op
def bilinear(
    x: tw.Tile["... i"], z: tw.Tile["... j"], weight: tw.Tile["n i j"], bias: tw.Tile["n"] = None
) -> tw.Tile["... n"]:
    """xᵀ·weight[n]·z + bias[n] for every n."""
    y = tw.sum(product(product(x, weight), z), "i j")
    return y if bias is None else y + bias
