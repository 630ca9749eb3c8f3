"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tilewright import kernels
from tilewright.optim.optimizer import Group, Optimizer, checked, count
from tilewright.tensor.creation import zeros_like
from tilewright.tensor.tensor import Tensor


class AdamW(Optimizer):
    """m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,

    p ← p (1 - lr · weight_decay) - lr · m / (1 - β₁ˢ) / (√(v / (1 - β₂ˢ)) + eps) at step s = 1, 2, …
    (Loshchilov & Hutter, 2019).

    With `capturable` steps are counted where the parameters lie, so that `step` may be part of a `tw.graph`.
    `lr` and `weight_decay` may be Tensors without axes, which are read at every step: in a graph write
    `group["lr"].fill_(1e-4)` to change one.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, capturable: bool = False,
    ):  # fmt: skip
        checked("lr", lr, 0)
        checked("eps", eps, 0)
        checked("weight_decay", weight_decay, 0)
        for number, beta in enumerate(betas):
            checked(f"betas[{number}]", beta, 0, 1)
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "capturable": capturable})

    def update(self, param: Tensor, gradient: Tensor, state: dict[str, Any], group: Group) -> None:
        if not state:
            state.update(step=0, exp_avg=zeros_like(param), exp_avg_sq=zeros_like(param))
        count(state, param, group["capturable"])
        beta1, beta2 = group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        scalars = {"step": state["step"], "lr": group["lr"], "weight_decay": group["weight_decay"]}
        self.write(
            kernels.adamw_step, (param, gradient, mean, square), (param, mean, square), scalars,
            beta1=beta1, beta2=beta2, eps=group["eps"],
        )  # fmt: skip
