"""What the steps of optimizers have in common."""

import math

import tilewright as tw


def slope_of(param, grad, weight_decay, maximize):
    """The gradient of the loss with its penalty, g + weight_decay · p, where `maximize` negates g."""
    return (-grad if maximize else grad) + weight_decay * param


def decayed(param, grad, lr, weight_decay, decoupled, maximize):
    """(g, p) with the weight decay in g, or, `decoupled` from it, in p: p (1 - lr · weight_decay)."""
    if decoupled:
        return (-grad if maximize else grad), param * (1 - lr * weight_decay)
    return slope_of(param, grad, weight_decay, maximize), param


def averaged(average, value, beta):
    """β · average + (1 - β) · value."""
    return beta * average + (1 - beta) * value


def moments(exp_avg, exp_avg_sq, slope, beta1, beta2):
    """(m, v): β₁ m + (1 - β₁) g and β₂ v + (1 - β₂) g²."""
    return averaged(exp_avg, slope, beta1), averaged(exp_avg_sq, slope * slope, beta2)


def weight_seen(beta, step):
    """1 - βˢ: how much of a running average that began at 0 comes from values, after s steps."""
    return -tw.expm1(step * math.log(beta)) if beta else 1


def stored(value, replaced):
    """`value` in the dtype of the operand whose place it takes."""
    return tw.cast(value, replaced.dtype)


def length(x):
    """√Σx², over all elements."""
    return tw.sqrt(tw.sum(x * x))


def root_mean_square(x):
    """√(Σx² / n), over all elements."""
    return tw.sqrt(tw.mean(x * x))
