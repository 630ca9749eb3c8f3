"""Steps whose length adapts to each element, or each row and column, by its gradients so far."""

import tilewright as tw
from tilewright.kernels.optim.formulas import averaged, decayed, root_mean_square, slope_of, stored


@tw.op
def adagrad_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], square_sum: tw.Tile["..."], *,
    step: tw.Scalar, lr: tw.Scalar = 1e-2, lr_decay: tw.Scalar = 0.0, weight_decay: tw.Scalar = 0.0,
    eps: float = 1e-10, maximize: bool = False,
):  # fmt: skip
    """One step of AdaGrad (Duchi et al., 2011).

    g ← g + weight_decay · p,  v ← v + g²,  p ← p - lr / (1 + (s - 1) lr_decay) · g / (√v + eps), s = `step`.
    Gives (param, square_sum).
    """
    slope = slope_of(param, grad, weight_decay, maximize)
    total = square_sum + slope * slope
    rate = lr / (1 + (step - 1) * lr_decay)
    moved = param - rate * slope / (tw.sqrt(total) + eps)
    return stored(moved, param), stored(total, square_sum)


@tw.op
def adadelta_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], square_avg: tw.Tile["..."], delta_avg: tw.Tile["..."], *,
    lr: tw.Scalar = 1.0, weight_decay: tw.Scalar = 0.0,
    rho: float = 0.9, eps: float = 1e-6, maximize: bool = False,
):  # fmt: skip
    """One step of AdaDelta, whose length has the unit of the parameter (Zeiler, 2012).

    g ← g + weight_decay · p,  v ← ρ v + (1 - ρ) g²,  δ = g √(u + eps) / √(v + eps),
    u ← ρ u + (1 - ρ) δ²,  p ← p - lr · δ. Gives (param, square_avg, delta_avg).
    """
    slope = slope_of(param, grad, weight_decay, maximize)
    square = averaged(square_avg, slope * slope, rho)
    delta = slope * (tw.sqrt(delta_avg + eps) / tw.sqrt(square + eps))
    moved = param - lr * delta
    delta_square = averaged(delta_avg, delta * delta, rho)
    return stored(moved, param), stored(square, square_avg), stored(delta_square, delta_avg)


@tw.op
def rmsprop_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], square_avg: tw.Tile["..."], buffer: tw.Tile["..."] = None,
    grad_avg: tw.Tile["..."] = None, *,
    lr: tw.Scalar = 1e-2, momentum: tw.Scalar = 0.0, weight_decay: tw.Scalar = 0.0,
    alpha: float = 0.99, eps: float = 1e-8, maximize: bool = False,
):  # fmt: skip
    """One step of RMSprop (Hinton, 2012), with momentum if `buffer` is given, centred if `grad_avg` is.

    g ← g + weight_decay · p,  v ← α v + (1 - α) g²,  centred: a ← α a + (1 - α) g,  b ← momentum · b + u,
    p ← p - lr · b, where u = g / (√v + eps), centred g / (√(v - a²) + eps), and b = u without momentum.
    Gives (param, square_avg) and those of buffer and grad_avg that are given.
    """
    slope = slope_of(param, grad, weight_decay, maximize)
    square = averaged(square_avg, slope * slope, alpha)
    mean = None if grad_avg is None else averaged(grad_avg, slope, alpha)
    variance = square if mean is None else square - mean * mean
    update = slope / (tw.sqrt(variance) + eps)
    if buffer is not None:
        update = momentum * buffer + update
    state = [(square, square_avg), (update, buffer), (mean, grad_avg)]
    kept = (stored(value, old) for value, old in state if old is not None)
    return stored(param - lr * update, param), *kept


@tw.op
def adafactor_step(
    param: tw.Tile["... i j"], grad: tw.Tile["... i j"], row_avg: tw.Tile["... i"],
    column_avg: tw.Tile["... j"], *,
    step: tw.Scalar, lr: tw.Scalar = 1e-2, weight_decay: tw.Scalar = 0.0,
    beta2_decay: float = -0.8, eps: float | None = None, smallest: float = 1e-3, clip: float = 1.0,
    maximize: bool = False,
):  # fmt: skip
    """One step of Adafactor for matrices: mean squares by row and by column (Shazeer & Stern, 2018).

    β = 1 - s^beta2_decay,  r ← β r + (1 - β) mean_j g²,  c ← β c + (1 - β) mean_i g²,
    u = g / √max(r c / max(mean_i r, eps), eps²),
    p ← p (1 - lr · weight_decay) - min(lr, 1/√s) · max(smallest, rms p) · u / max(1, rms u / clip),
    with s = `step` and rms over all elements, those of batch axes too. `eps` is the distance of 1 from
    the next number of the parameter's dtype unless it is given. Gives (param, row_avg, column_avg).
    """
    eps = param.dtype.epsilon if eps is None else eps
    slope, start = decayed(param, grad, lr, weight_decay, True, maximize)
    beta = 1 - step**beta2_decay
    rows = averaged(row_avg, tw.mean(slope * slope, "j"), beta)
    columns = averaged(column_avg, tw.mean(slope * slope, "i"), beta)
    square = rows * columns / tw.maximum(tw.mean(rows, "i"), eps)
    moved = start - adafactor_update(param, slope, square, step, lr, eps, smallest, clip)
    return stored(moved, param), stored(rows, row_avg), stored(columns, column_avg)


@tw.op
def adafactor_vector_step(
    param: tw.Tile["..."], grad: tw.Tile["..."], square_avg: tw.Tile["..."], *,
    step: tw.Scalar, lr: tw.Scalar = 1e-2, weight_decay: tw.Scalar = 0.0,
    beta2_decay: float = -0.8, eps: float | None = None, smallest: float = 1e-3, clip: float = 1.0,
    maximize: bool = False,
):  # fmt: skip
    """One step of Adafactor for parameters that are no matrix: `adafactor_step` with all mean squares kept.

    v ← β v + (1 - β) g² stands for r c / mean_i r. Gives (param, square_avg).
    """
    eps = param.dtype.epsilon if eps is None else eps
    slope, start = decayed(param, grad, lr, weight_decay, True, maximize)
    square = averaged(square_avg, slope * slope, 1 - step**beta2_decay)
    moved = start - adafactor_update(param, slope, square, step, lr, eps, smallest, clip)
    return stored(moved, param), stored(square, square_avg)


def adafactor_update(param, slope, square, step, lr, eps, smallest, clip):
    """What a step of Adafactor whose mean squares are `square` takes from the parameter."""
    update = slope * tw.rsqrt(tw.maximum(square, eps * eps))
    rate = tw.minimum(lr, tw.rsqrt(step)) * tw.maximum(root_mean_square(param), smallest)
    clipped = update / tw.maximum(root_mean_square(update) / clip, 1)
    return rate * clipped
