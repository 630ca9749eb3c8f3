"""Optimizers. A step of a parameter is one generated kernel."""

from tilewright.optim.adamw import AdamW
from tilewright.optim.optimizer import Optimizer
from tilewright.optim.sgd import SGD

__all__ = ["SGD", "AdamW", "Optimizer"]
