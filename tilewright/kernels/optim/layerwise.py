"""Steps that look at a whole parameter: its norm, or its singular values."""

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.kernels.optim.adam import corrected_ratio
from tilewright.kernels.optim.formulas import averaged, length, moments, slope_of, stored

NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)


def trust(one, other):
    """one / other for two norms, 1 where either is 0."""
    return tw.where((one > 0) & (other > 0), one / other, 1)


@tw.op
def lamb_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], exp_avg_sq: tw.Tile["..."], *,
    step: tw.Scalar, lr: tw.Scalar = 1e-3, weight_decay: tw.Scalar = 0.0,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-6, maximize: bool = False,
):  # fmt: skip
    """One step of LAMB: Adam's, as long as the parameter is (You et al., 2020).

    m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,
    u = m / (1 - β₁ˢ) / (√(v / (1 - β₂ˢ)) + eps) + weight_decay · p,  p ← p - lr · ‖p‖ / ‖u‖ · u,
    the ratio being 1 where a norm is 0. Gives (param, exp_avg, exp_avg_sq). torch has no LAMB.
    """
    slope = -grad if maximize else grad
    mean, square = moments(exp_avg, exp_avg_sq, slope, beta1, beta2)
    update = corrected_ratio(mean, square, step=step, beta1=beta1, beta2=beta2, eps=eps)
    update = update + weight_decay * param
    moved = param - lr * trust(length(param), length(update)) * update
    return stored(moved, param), stored(mean, exp_avg), stored(square, exp_avg_sq)


@tw.op
def lars_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], buffer: tw.Tile["..."], *,
    lr: tw.Scalar = 1e-1, momentum: tw.Scalar = 0.9, weight_decay: tw.Scalar = 0.0,
    coefficient: float = 1e-3, eps: float = 1e-8, nesterov: bool = False, maximize: bool = False,
):  # fmt: skip
    """One step of LARS: gradient descent as long as the parameter is (You et al., 2017).

    u = λ (g + weight_decay · p),  λ = coefficient · ‖p‖ / (‖g‖ + weight_decay · ‖p‖ + eps), 1 where ‖p‖ or
    ‖g‖ is 0;  b ← momentum · b + u,  p ← p - lr · b, or with `nesterov` p - lr · (u + momentum · b).
    Gives (param, buffer). torch has no LARS.
    """
    size, steepness = length(param), length(grad)
    rate = coefficient * size / (steepness + weight_decay * size + eps)
    update = tw.where((size > 0) & (steepness > 0), rate, 1) * slope_of(param, grad, weight_decay, maximize)
    velocity = momentum * buffer + update
    direction = update + momentum * velocity if nesterov else velocity
    return stored(param - lr * direction, param), stored(velocity, buffer)


@tw.op
def muon_step(
    param: tw.Tile["i j"], grad: tw.Tile["i j"], buffer: tw.Tile["i j"], *,
    lr: tw.Scalar = 1e-3, momentum: float = 0.95, weight_decay: tw.Scalar = 0.1, nesterov: bool = True,
    coefficients: tuple[float, float, float] = NEWTON_SCHULZ, iterations: int = 5, eps: float = 1e-7,
    adjust: str = "original", tall: bool = False,
):  # fmt: skip
    """One step of Muon for a matrix: momentum whose singular values are brought near 1 (Jordan et al., 2024).

    b ← momentum · b + (1 - momentum) g,  u = b, or with `nesterov` momentum · b + (1 - momentum) g,
    p ← p (1 - lr · weight_decay) - lr · a · orthogonalized(u), where a is √max(1, i/j) with the adjustment
    "original", 0.2 √max(i, j) with "match_rms_adamw", 1 with "none". `tall` says that i > j: it saves work
    and changes nothing else. Gives (param, buffer).

    torch.optim.Muon rounds the iterations to bfloat16, here they run in the dtype that the operands compute
    in.
    """
    velocity = averaged(buffer, grad, momentum)
    update = averaged(velocity, grad, momentum) if nesterov else velocity
    update = orthogonalized(update, coefficients, iterations, eps, tall)
    rows, columns = (tw.cast(tw.size(axis), update.dtype) for axis in "ij")
    if adjust == "original":
        lr_of_shape = lr * tw.sqrt(tw.maximum(rows / columns, 1))
    elif adjust == "match_rms_adamw":
        lr_of_shape = lr * 0.2 * tw.sqrt(tw.maximum(rows, columns))
    elif adjust == "none":
        lr_of_shape = lr
    else:
        raise ArgumentError(f'adjust is "original", "match_rms_adamw" or "none", not {adjust!r}')
    moved = param * (1 - lr * weight_decay) - lr_of_shape * update
    return stored(moved, param), stored(velocity, buffer)


def orthogonalized(x, coefficients, iterations, eps, tall):
    """U f(Σ) Vᵀ for x = U Σ Vᵀ, with f near 1: the iteration of Newton and Schulz.

    x ← x / max(‖x‖, eps), then as often as asked for x ← a x + (b G + c G²) x, G = x xᵀ. A `tall` matrix
    takes the smaller G = xᵀ x from the right, which is the same.
    """
    a, b, c = coefficients
    kept, summed, other = ("j", "i", "i k") if tall else ("i", "j", "k j")
    x = x / tw.maximum(length(x), eps)
    for _ in range(iterations):
        gram = tw.sum(x * x[other], summed)
        square = tw.sum(gram[f"{kept} l"] * gram["l k"], "l")
        x = a * x + tw.sum((b * gram + c * square) * x[other], "k")
    return x
