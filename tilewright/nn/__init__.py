"""Modules, functional, losses and initialisation, under torch's names."""

from tilewright.nn import functional, init
from tilewright.nn.containers import ModuleDict, ModuleList, Sequential
from tilewright.nn.layers import (
    ELU,
    GELU,
    AlphaDropout,
    Bilinear,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    Flatten,
    Hardswish,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    Mish,
    ReLU,
    RMSNorm,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tilewright.nn.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
)
from tilewright.nn.module import Module, ModuleError, StateError
from tilewright.nn.parameter import Parameter

__all__ = [
    "ELU", "GELU", "AlphaDropout", "BCEWithLogitsLoss", "Bilinear", "CrossEntropyLoss", "Dropout",
    "Dropout1d", "Dropout2d", "Dropout3d", "Flatten", "Hardswish", "HuberLoss", "Identity", "KLDivLoss",
    "L1Loss", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "Mish", "Module",
    "ModuleDict", "ModuleError", "ModuleList", "Parameter", "RMSNorm", "ReLU", "Sequential", "SiLU",
    "Sigmoid", "Softmax", "Softplus", "StateError", "Tanh", "functional", "init",
]  # fmt: skip
