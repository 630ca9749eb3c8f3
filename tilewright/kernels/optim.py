"""Steps of optimizers: parameter, gradient and state in, parameter and state out, in one pass.

Each result has the dtype of the operand that it replaces. What changes from step to step is passed at run
time; decay rates and eps are compiled in, so that 1 - beta keeps the precision of Python's numbers.
"""

import math

import tilewright as tw


@tw.op
def adamw_step(
    param: tw.Tile["..."],
    grad: tw.Tile["..."],
    exp_avg: tw.Tile["..."],
    exp_avg_sq: tw.Tile["..."],
    *,
    step: tw.Scalar,
    lr: tw.Scalar = 1e-3,
    weight_decay: tw.Scalar = 1e-2,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
):
    """One step of Adam with decoupled weight decay (Loshchilov & Hutter, 2019).

    m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,
    p ← p (1 - lr · weight_decay) - lr · m / (1 - β₁ˢ) / (√(v / (1 - β₂ˢ)) + eps), with s = `step`, from 1.
    Gives (param, exp_avg, exp_avg_sq).
    """
    mean = beta1 * exp_avg + (1 - beta1) * grad
    square = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    correction1 = -tw.expm1(step * math.log(beta1)) if beta1 else 1
    correction2 = -tw.expm1(step * math.log(beta2)) if beta2 else 1
    update = mean / correction1 / (tw.sqrt(square) / tw.sqrt(correction2) + eps)
    moved = param * (1 - lr * weight_decay) - lr * update
    return tw.cast(moved, param.dtype), tw.cast(mean, exp_avg.dtype), tw.cast(square, exp_avg_sq.dtype)


@tw.op
def sgd_step(
    param: tw.Tile["..."],
    grad: tw.Tile["..."],
    buffer: tw.Tile["..."] = None,
    *,
    lr: tw.Scalar = 1e-3,
    momentum: tw.Scalar = 0.0,
    dampening: tw.Scalar = 0.0,
    weight_decay: tw.Scalar = 0.0,
    nesterov: bool = False,
    first: bool = False,
):
    """One step of gradient descent, with momentum if `buffer` is given (Sutskever et al., 2013).

    g ← g + weight_decay · p,  b ← momentum · b + (1 - dampening) · g  (b ← g in the `first` step),
    p ← p - lr · b, or with `nesterov` p - lr · (g + momentum · b). Gives param, or (param, buffer).
    """
    slope = grad + weight_decay * param
    if buffer is None:
        return tw.cast(param - lr * slope, param.dtype)
    velocity = slope if first else momentum * buffer + (1 - dampening) * slope
    update = slope + momentum * velocity if nesterov else velocity
    return tw.cast(param - lr * update, param.dtype), tw.cast(velocity, buffer.dtype)
