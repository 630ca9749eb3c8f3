"""Weights that are computed from others before every call of a module, under torch's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright import kernels
from tilewright.autograd.tape import no_grad
from tilewright.errors import ArgumentError
from tilewright.nn import functional as F
from tilewright.nn.images import TransposedConvolution
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter
from tilewright.tensor.draws import randn
from tilewright.tensor.tensor import Tensor


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Trains g and v of the weight g · v / ‖v‖ (Salimans & Kingma, 2016), as `weight_g` and `weight_v`.

    There is one length g for each position of `dim`, for None one altogether. Gives the module.
    """
    weight = _taken(module, name)
    rows = _rows(weight, dim)
    lengths = (rows * rows).sum(1).sqrt()
    shape = () if dim is None else tuple(n if d == dim else 1 for d, n in enumerate(weight.shape))
    module.register_parameter(f"{name}_g", Parameter(lengths.reshape(shape)))
    module.register_parameter(f"{name}_v", Parameter(weight))

    def compute() -> Tensor:
        g, v = getattr(module, f"{name}_g"), getattr(module, f"{name}_v")
        return _like(kernels.weight_norm(_rows(v, dim), g.reshape(-1)), v, dim)

    return _computed_before_calls(module, name, weight, compute)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """Divides a weight by its largest singular value, positions of `dim` being rows (Miyato et al., 2018).

    `dim` is that of the outputs unless given: 1 for a transposed convolution, else 0.
    `weight_orig` is trained; in training every call brings the buffers `weight_u` and `weight_v` nearer to
    the singular vectors. Gives the module.
    """
    weight = _taken(module, name)
    dim = int(isinstance(module, TransposedConvolution)) if dim is None else dim
    for suffix, size in zip("uv", _rows(weight, dim).shape, strict=True):
        start = F.normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps)
        module.register_buffer(f"{name}_{suffix}", start)
    module.register_parameter(f"{name}_orig", Parameter(weight))

    def compute() -> Tensor:
        original = getattr(module, f"{name}_orig")
        u, v = (getattr(module, f"{name}_{suffix}") for suffix in "uv")
        rows = _rows(original, dim)
        if module.training:
            with no_grad():
                for _ in range(n_power_iterations):
                    for vector, value in zip((u, v), kernels.power_iteration(rows, u, eps=eps), strict=True):
                        vector.copy_(value)
        return _like(kernels.spectral_norm(rows, u.clone(), v.clone()), original, dim)

    return _computed_before_calls(module, name, weight, compute)


def _taken(module: Module, name: str) -> Tensor:
    """The values of a parameter, which the module has no more."""
    weight = module._parameters.pop(name, None)
    if weight is None:
        known = ", ".join(n for n, p in module._parameters.items() if p is not None) or "none"
        raise ArgumentError(f"{type(module).__name__} has no parameter {name!r}; its parameters are {known}")
    return weight.detach()


def _rows(weight: Tensor, dim: int | None) -> Tensor:
    if dim is None:
        return weight.reshape(1, -1)
    return weight.transpose(0, dim).reshape(weight.shape[dim], -1)


def _like(rows: Tensor, weight: Tensor, dim: int | None) -> Tensor:
    """What `_rows` made of a weight, in the weight's shape again."""
    if dim is None:
        return rows.reshape(weight.shape)
    return rows.reshape(weight.transpose(0, dim).shape).transpose(0, dim)


def _computed_before_calls(
    module: Module, name: str, weight: Tensor, compute: Callable[[], Tensor]
) -> Module:
    def hook(_: Any, arguments: Any) -> None:
        setattr(module, name, compute())

    setattr(module, name, weight)
    module.register_forward_pre_hook(hook)
    return module
