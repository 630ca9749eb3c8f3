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
from tilewright.kernels.convolution import (
    conv1d,
    conv2d,
    conv2d_channels_last,
    conv3d,
    depthwise_conv1d,
    depthwise_conv2d,
    depthwise_conv3d,
)
from tilewright.kernels.dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d
from tilewright.kernels.linear import bilinear, linear, matmul
from tilewright.kernels.losses import (
    bce,
    bce_with_logits,
    cosine_embedding,
    cross_entropy,
    gaussian_nll,
    hinge,
    hinge_embedding,
    huber,
    kl_div,
    l1,
    margin_ranking,
    mse,
    multi_margin,
    multilabel_soft_margin,
    nll,
    poisson_nll,
    sigmoid_focal,
    smooth_l1,
    soft_cross_entropy,
    soft_margin,
    softmax_focal,
    triplet_margin,
)
from tilewright.kernels.norms import layer_norm, rms_norm
from tilewright.kernels.optim import (
    adadelta_step,
    adafactor_step,
    adafactor_vector_step,
    adagrad_step,
    adam_step,
    adamax_step,
    adamw_step,
    asgd_step,
    lamb_step,
    lars_step,
    lion_step,
    muon_step,
    nadam_momentum,
    nadam_step,
    radam_step,
    rmsprop_step,
    rprop_step,
    sgd_step,
)
from tilewright.kernels.ordering import max_with_index, median, min_with_index, sort, topk
from tilewright.kernels.padding import pad1d, pad2d, pad3d
from tilewright.kernels.pooling import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from tilewright.kernels.scans import (
    cummax,
    cummax_with_index,
    cummin,
    cummin_with_index,
    cumprod,
    cumsum,
    differences,
    linear_recurrence,
    logcumsumexp,
)
from tilewright.kernels.softmax import log_softmax, logsumexp, softmax

__all__ = [
    "ACTIVATIONS", "adadelta_step", "adafactor_step", "adafactor_vector_step", "adagrad_step",
    "adam_step", "adamax_step", "adamw_step", "alpha_dropout", "asgd_step", "attention",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "bce", "bce_with_logits", "bilinear", "conv1d",
    "conv2d", "conv2d_channels_last", "conv3d", "cosine_embedding", "cross_entropy", "cummax",
    "cummax_with_index", "cummin", "cummin_with_index", "cumprod", "cumsum", "depthwise_conv1d",
    "depthwise_conv2d", "depthwise_conv3d", "differences", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "elu", "gaussian_nll", "geglu", "gelu", "hardswish", "hinge", "hinge_embedding",
    "huber", "kl_div", "l1", "lamb_step", "lars_step", "layer_norm", "leaky_relu", "linear",
    "linear_recurrence", "lion_step", "log_softmax", "logcumsumexp", "logsumexp", "margin_ranking",
    "matmul", "max_pool1d", "max_pool2d", "max_pool3d", "max_with_index", "median",
    "min_with_index", "mish", "mse", "multi_margin", "multilabel_soft_margin", "muon_step",
    "nadam_momentum", "nadam_step", "nll", "pad1d", "pad2d", "pad3d", "poisson_nll", "radam_step",
    "relu", "rms_norm", "rmsprop_step", "rprop_step", "sgd_step", "sigmoid", "sigmoid_focal",
    "silu", "smooth_l1", "soft_cross_entropy", "soft_margin", "softmax", "softmax_focal",
    "softplus", "sort", "swiglu", "tanh", "topk", "triplet_margin",
]  # fmt: skip
