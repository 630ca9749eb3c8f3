"""Tensors: arrays with operators that run generated kernels, on the tape."""

from tilewright.autograd.tape import enable_grad, is_recording, no_grad, set_grad_enabled
from tilewright.tensor import eager as _eager
from tilewright.tensor.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from tilewright.tensor.draws import randperm
from tilewright.tensor.files import load, save
from tilewright.tensor.generator import Generator, default_generator, manual_seed
from tilewright.tensor.gradients import grad
from tilewright.tensor.graph import Graph, graph
from tilewright.tensor.joining import cat, split, stack, unbind
from tilewright.tensor.tensor import Tensor

_eager.install()
is_grad_enabled = is_recording

__all__ = [
    "Generator", "Graph", "Tensor", "arange", "as_tensor", "cat", "default_generator", "empty", "empty_like",
    "enable_grad", "eye", "from_dlpack", "from_numpy", "full", "full_like", "grad", "graph",
    "is_grad_enabled", "linspace", "load", "manual_seed", "no_grad", "ones", "ones_like", "randperm", "save",
    "set_grad_enabled", "split", "stack", "tensor", "unbind", "zeros", "zeros_like",
]  # fmt: skip
