"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tilewright import kernels
from tilewright.errors import ArgumentError
from tilewright.optim.optimizer import Group, Optimizer, checked
from tilewright.tensor.creation import empty_like
from tilewright.tensor.tensor import Tensor


class SGD(Optimizer):
    """g ← g + weight_decay · p,  b ← momentum · b + (1 - dampening) · g  (b ← g at first),  p ← p - lr · b.

    With `nesterov` p ← p - lr · (g + momentum · b) (Sutskever et al., 2013).
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False,
    ):  # fmt: skip
        checked("lr", lr, 0)
        checked("momentum", momentum, 0)
        checked("weight_decay", weight_decay, 0)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError("Nesterov momentum needs a momentum and no dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, param: Tensor, gradient: Tensor, state: dict[str, Any], group: Group) -> None:
        options = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        if not group["momentum"]:
            self.write(kernels.sgd_step, (param, gradient), (param,), options)
            return
        buffer = state.get("momentum_buffer")
        first = buffer is None
        if buffer is None:
            buffer = state["momentum_buffer"] = empty_like(param)
        options |= {"momentum": group["momentum"], "dampening": group["dampening"]}
        self.write(
            kernels.sgd_step, (param, gradient, buffer), (param, buffer), options,
            nesterov=group["nesterov"], first=first,
        )  # fmt: skip
