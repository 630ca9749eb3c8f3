"""Parameter: a tensor that a module trains."""

from __future__ import annotations

from typing import Any

from tilewright.tensor.tensor import Tensor


class Parameter(Tensor):
    """A leaf that requires a gradient; assigning it to an attribute of a `Module` registers it.

    Shares memory with `data` where that is a Tensor of the same dtype.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        source = data if isinstance(data, Tensor) else Tensor(data)
        self._array = source._array
        self._version = source._version
        self._origin = None
        self._result = 0
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
