"""Dropout as modules."""

from __future__ import annotations

from tilewright.errors import ArgumentError
from tilewright.nn import functional as F
from tilewright.nn.activations import Activation
from tilewright.tensor.tensor import Tensor


class Dropout(Activation):
    """input / (1 - p) with probability 1 - p, else 0; the input itself in `eval` mode.

    What is dropped follows from the default generator (`tw.manual_seed`).
    """

    options = ("p",)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError(f"p is the probability of being dropped, between 0 and 1; got {p}")
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)


class Dropout1d(Dropout):
    """Dropout of whole channels of [… channels length]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training)


class Dropout2d(Dropout):
    """Dropout of whole channels of [… channels height width]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training)


class Dropout3d(Dropout):
    """Dropout of whole channels of [… channels depth height width]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training)


class AlphaDropout(Dropout):
    """Dropout that keeps mean 0 and variance 1, beside selu (Klambauer et al., 2017)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(Dropout):
    """`AlphaDropout` of whole channels of [batch channels …]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training)
