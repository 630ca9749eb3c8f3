"""Steps along the gradient, its running average or its sign."""

import tilewright as tw
from tilewright.kernels.optim.formulas import averaged, decayed, slope_of, stored


@tw.op
def sgd_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], buffer: tw.Tile["..."] = None, *,
    lr: tw.Scalar = 1e-3, momentum: tw.Scalar = 0.0, dampening: tw.Scalar = 0.0,
    weight_decay: tw.Scalar = 0.0,
    nesterov: bool = False, first: bool = False, maximize: bool = False,
):  # fmt: skip
    """One step of gradient descent, with momentum if `buffer` is given (Sutskever et al., 2013).

    g ← g + weight_decay · p,  b ← momentum · b + (1 - dampening) · g  (b ← g in the `first` step),
    p ← p - lr · b, or with `nesterov` p - lr · (g + momentum · b). Gives param, or (param, buffer).
    """
    slope = slope_of(param, grad, weight_decay, maximize)
    if buffer is None:
        return stored(param - lr * slope, param)
    velocity = slope if first else momentum * buffer + (1 - dampening) * slope
    update = slope + momentum * velocity if nesterov else velocity
    return stored(param - lr * update, param), stored(velocity, buffer)


@tw.op
def asgd_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], average: tw.Tile["..."], *,
    step: tw.Scalar, lr: tw.Scalar = 1e-2, weight_decay: tw.Scalar = 0.0,
    lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6, maximize: bool = False,
):  # fmt: skip
    """One step of averaged gradient descent (Polyak & Juditsky, 1992; as Bottou's SGD has it).

    g ← g + weight_decay · p,  η = lr / (1 + lambd · lr · (s - 1))^alpha,  p ← p (1 - lambd · η) - η · g,
    a ← a + (p - a) / max(1, s - 1 - t0), with s = `step`. Gives (param, average).
    """
    slope = slope_of(param, grad, weight_decay, maximize)
    rate = lr / (1 + lambd * lr * (step - 1)) ** alpha
    moved = param * (1 - lambd * rate) - rate * slope
    mean = average + (moved - average) / tw.maximum(step - 1 - t0, 1)
    return stored(moved, param), stored(mean, average)


@tw.op
def lion_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], exp_avg: tw.Tile["..."], *,
    lr: tw.Scalar = 1e-4, weight_decay: tw.Scalar = 0.0,
    beta1: float = 0.9, beta2: float = 0.99, maximize: bool = False,
):  # fmt: skip
    """One step of Lion (Chen et al., 2023).

    p ← p (1 - lr · weight_decay) - lr · sign(β₁ m + (1 - β₁) g),  m ← β₂ m + (1 - β₂) g.
    Gives (param, exp_avg).
    """
    slope, start = decayed(param, grad, lr, weight_decay, True, maximize)
    moved = start - lr * tw.sign(averaged(exp_avg, slope, beta1))
    return stored(moved, param), stored(averaged(exp_avg, slope, beta2), exp_avg)


@tw.op
def rprop_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], previous: tw.Tile["..."], step_size: tw.Tile["..."], *,
    eta_minus: float = 0.5, eta_plus: float = 1.2, smallest: float = 1e-6, largest: float = 50.0,
    maximize: bool = False,
):  # fmt: skip
    """One step of resilient propagation, Rprop⁻ without weight backtracking (Riedmiller & Braun, 1993).

    η ← η · eta_plus where g has the sign of `previous`, η · eta_minus where it has the other one, kept in
    smallest … largest;  g ← 0 where the sign changed;  p ← p - η · sign(g). `previous` starts as zeros,
    `step_size` as the learning rate. Gives (param, previous, step_size), the gradient being the next
    step's `previous`.
    """
    slope = -grad if maximize else grad
    agreement = slope * previous
    factor = tw.where(agreement > 0, eta_plus, tw.where(agreement < 0, eta_minus, 1.0))
    size = tw.clip(step_size * factor, smallest, largest)
    kept = tw.where(agreement < 0, 0, slope)
    moved = param - size * tw.sign(kept)
    return stored(moved, param), stored(kept, previous), stored(size, step_size)
