"""Devices for tests, as those of Tensors have them."""

from tests.tensor.conftest import device, fake

__all__ = ["device", "fake"]
