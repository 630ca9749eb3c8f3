"""Losses as modules."""

from __future__ import annotations

from typing import Any

from tilewright.errors import ArgumentError
from tilewright.nn import functional as F
from tilewright.nn.module import Module
from tilewright.tensor.tensor import Tensor


class Loss(Module):
    """A module of (input, target); `reduction` is "mean", "sum" or "none"."""

    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in self.reductions:
            known = ", ".join(map(repr, self.reductions))
            raise ArgumentError(f"reduction is one of {known}, not {reduction!r}")
        self.reduction = reduction


class CrossEntropyLoss(Loss):
    """-log softmax(input)[target]; classes are dimension 1 (0 of a vector), targets are class numbers."""

    def __init__(
        self, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return F.cross_entropy(input, target, self.ignore_index, self.reduction, self.label_smoothing)


class MSELoss(Loss):
    """(x - target)²"""

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return F.mse_loss(input, target, self.reduction)


class L1Loss(Loss):
    """|x - target|"""

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return F.l1_loss(input, target, self.reduction)


class HuberLoss(Loss):
    """½ e² where |e| ≤ delta, else delta (|e| - ½ delta), with e = x - target"""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return F.huber_loss(input, target, self.reduction, self.delta)


class BCEWithLogitsLoss(Loss):
    """-(target · log σ(x) + (1 - target) · log(1 - σ(x)))"""

    def __init__(
        self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


class KLDivLoss(Loss):
    """target · (log target - x), for x = log of the other distribution; "batchmean" divides by the first
    dimension
    """

    reductions = ("mean", "sum", "none", "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return F.kl_div(input, target, self.reduction, self.log_target)
