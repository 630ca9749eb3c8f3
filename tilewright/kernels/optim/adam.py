"""Adam and its kin: running averages of the gradient and of its square (Kingma & Ba, 2015)."""

import tilewright as tw
from tilewright.kernels.optim.formulas import averaged, decayed, moments, slope_of, stored, weight_seen


def corrected_ratio(mean, square, *, step, beta1, beta2, eps):
    """m / (1 - β₁ˢ) / (√(v / (1 - β₂ˢ)) + eps)."""
    scale = tw.sqrt(square) / tw.sqrt(weight_seen(beta2, step)) + eps
    return mean / weight_seen(beta1, step) / scale


def adam(param, start, slope, state, *, lr, **constants):
    """The results of a step from `start` against `slope`; `state` is (m, v, largest v), the last or None."""
    exp_avg, exp_avg_sq, largest_sq = state
    mean, square = moments(exp_avg, exp_avg_sq, slope, constants["beta1"], constants["beta2"])
    largest = square if largest_sq is None else tw.maximum(largest_sq, square)
    moved = start - lr * corrected_ratio(mean, largest, **constants)
    results = stored(moved, param), stored(mean, exp_avg), stored(square, exp_avg_sq)
    return results if largest_sq is None else (*results, stored(largest, largest_sq))


@tw.op
def adam_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], exp_avg_sq: tw.Tile["..."],
    max_exp_avg_sq: tw.Tile["..."] = None, *,
    step: tw.Scalar, lr: tw.Scalar = 1e-3, weight_decay: tw.Scalar = 0.0,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, maximize: bool = False,
):  # fmt: skip
    """One step of Adam (Kingma & Ba, 2015), of AMSGrad if `max_exp_avg_sq` is given (Reddi et al., 2018).

    g ← g + weight_decay · p,  m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,
    p ← p - lr · m / (1 - β₁ˢ) / (√(v / (1 - β₂ˢ)) + eps), with s = `step`; AMSGrad divides by the largest
    v so far. Gives (param, exp_avg, exp_avg_sq) and the largest one, if it is given.
    """
    slope, start = decayed(param, grad, lr, weight_decay, False, maximize)
    state = exp_avg, exp_avg_sq, max_exp_avg_sq
    return adam(param, start, slope, state, lr=lr, step=step, beta1=beta1, beta2=beta2, eps=eps)


@tw.op
def adamw_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], exp_avg_sq: tw.Tile["..."],
    max_exp_avg_sq: tw.Tile["..."] = None, *,
    step: tw.Scalar, lr: tw.Scalar = 1e-3, weight_decay: tw.Scalar = 1e-2,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, maximize: bool = False,
):  # fmt: skip
    """One step of Adam with decoupled weight decay (Loshchilov & Hutter, 2019).

    `adam_step` of the gradient alone, from p (1 - lr · weight_decay).
    """
    slope, start = decayed(param, grad, lr, weight_decay, True, maximize)
    state = exp_avg, exp_avg_sq, max_exp_avg_sq
    return adam(param, start, slope, state, lr=lr, step=step, beta1=beta1, beta2=beta2, eps=eps)


@tw.op
def adamax_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], exp_inf: tw.Tile["..."], *,
    step: tw.Scalar, lr: tw.Scalar = 2e-3, weight_decay: tw.Scalar = 0.0,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, maximize: bool = False,
):  # fmt: skip
    """One step of AdaMax: Adam with the largest gradient in place of the mean square (Kingma & Ba, 2015).

    g ← g + weight_decay · p,  m ← β₁ m + (1 - β₁) g,  u ← max(β₂ u, |g| + eps),
    p ← p - lr · m / (1 - β₁ˢ) / u. Gives (param, exp_avg, exp_inf).
    """
    slope = slope_of(param, grad, weight_decay, maximize)
    mean = averaged(exp_avg, slope, beta1)
    largest = tw.maximum(beta2 * exp_inf, tw.abs(slope) + eps)
    moved = param - lr / weight_seen(beta1, step) * mean / largest
    return stored(moved, param), stored(mean, exp_avg), stored(largest, exp_inf)


def nadam_momentum(step, *, beta1=0.9, momentum_decay=4e-3):
    """μₛ = β₁ (1 - ½ · 0.96^(s · momentum_decay)), the momentum of NAdam's step s."""
    return beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))


@tw.op
def nadam_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], exp_avg_sq: tw.Tile["..."], *,
    step: tw.Scalar, momenta: tw.Scalar, lr: tw.Scalar = 2e-3, weight_decay: tw.Scalar = 0.0,
    beta1: float = 0.9, beta2: float = 0.999, momentum_decay: float = 4e-3, eps: float = 1e-8,
    decoupled: bool = False, maximize: bool = False,
):  # fmt: skip
    """One step of Adam with Nesterov's momentum (Dozat, 2016).

    m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,
    p ← p - lr · ((1 - μₛ) g / (1 - Πₛ) + μₛ₊₁ m / (1 - Πₛ μₛ₊₁)) / (√(v / (1 - β₂ˢ)) + eps),
    with μₛ = `nadam_momentum(s)` and Πₛ = μ₁ ⋯ μₛ, which the caller keeps and passes as `momenta`. Weight
    decay adds weight_decay · p to g, or with `decoupled` multiplies p by 1 - lr · weight_decay.
    Gives (param, exp_avg, exp_avg_sq).
    """
    slope, start = decayed(param, grad, lr, weight_decay, decoupled, maximize)
    mean, square = moments(exp_avg, exp_avg_sq, slope, beta1, beta2)
    now = nadam_momentum(step, beta1=beta1, momentum_decay=momentum_decay)
    next_one = nadam_momentum(step + 1, beta1=beta1, momentum_decay=momentum_decay)
    ahead = (1 - now) / (1 - momenta) * slope + next_one / (1 - momenta * next_one) * mean
    moved = start - lr * ahead / (tw.sqrt(square / weight_seen(beta2, step)) + eps)
    return stored(moved, param), stored(mean, exp_avg), stored(square, exp_avg_sq)


@tw.op
def radam_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], exp_avg_sq: tw.Tile["..."], *,
    step: tw.Scalar, lr: tw.Scalar = 1e-3, weight_decay: tw.Scalar = 0.0,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, decoupled: bool = False,
    maximize: bool = False,
):  # fmt: skip
    """One step of rectified Adam (Liu et al., 2020).

    m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,  ρ∞ = 2 / (1 - β₂) - 1,  ρ = ρ∞ - 2 s β₂ˢ / (1 - β₂ˢ),
    p ← p - lr · m / (1 - β₁ˢ) · r · √(1 - β₂ˢ) / (√v + eps), r² = (ρ-4)(ρ-2)ρ∞ / ((ρ∞-4)(ρ∞-2)ρ), if ρ > 5;
    p ← p - lr · m / (1 - β₁ˢ) before. Weight decay as `nadam_step` has it.
    Gives (param, exp_avg, exp_avg_sq).
    """
    slope, start = decayed(param, grad, lr, weight_decay, decoupled, maximize)
    mean, square = moments(exp_avg, exp_avg_sq, slope, beta1, beta2)
    seen = weight_seen(beta2, step)
    longest = 2 / (1 - beta2) - 1
    # ρ grows by about 1 a step and is the difference of numbers near ρ∞, which may be thousands.
    steps = tw.cast(step, tw.float64)
    span = longest - 2 * steps * (1 / weight_seen(beta2, steps) - 1)
    ratio = (span - 4) * (span - 2) * longest / ((longest - 4) * (longest - 2) * span)
    rectified = tw.cast(tw.where(span > 5, tw.sqrt(ratio), 0), step.dtype)
    factor = tw.where(rectified > 0, rectified * tw.sqrt(seen) / (tw.sqrt(square) + eps), 1)
    moved = start - lr / weight_seen(beta1, step) * mean * factor
    return stored(moved, param), stored(mean, exp_avg), stored(square, exp_avg_sq)
