"""The prebuilt ops, as mathematics. They act on the last axis; any others are batch axes."""

from tilewright.kernels.activations import (
    ACTIVATIONS,
    elu,
    geglu,
    gelu,
    hardswish,
    leaky_relu,
    mish,
    relu,
    sigmoid,
    silu,
    softplus,
    swiglu,
    tanh,
)
from tilewright.kernels.attention import attention
from tilewright.kernels.linear import bilinear, linear, matmul
from tilewright.kernels.losses import bce_with_logits, cross_entropy, huber, kl_div, l1, mse
from tilewright.kernels.norms import layer_norm, rms_norm
from tilewright.kernels.optim import adamw_step, sgd_step
from tilewright.kernels.softmax import log_softmax, logsumexp, softmax

__all__ = [
    "ACTIVATIONS", "adamw_step", "attention", "bce_with_logits", "bilinear", "cross_entropy", "elu", "geglu",
    "gelu", "hardswish", "huber", "kl_div", "l1", "layer_norm", "leaky_relu", "linear", "log_softmax",
    "logsumexp", "matmul", "mish", "mse", "relu", "rms_norm", "sgd_step", "sigmoid", "silu", "softmax",
    "softplus", "swiglu", "tanh",
]  # fmt: skip
