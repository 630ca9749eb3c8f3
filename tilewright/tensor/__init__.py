"""Tensors: arrays with operators that run generated kernels, on the tape."""

from tilewright.autograd.tape import enable_grad, is_recording, no_grad, set_grad_enabled
from tilewright.tensor import eager as _eager
from tilewright.tensor.creation import *  # noqa: F403
from tilewright.tensor.creation import __all__ as _creation
from tilewright.tensor.gradients import grad
from tilewright.tensor.tensor import Tensor

_eager.install()
is_grad_enabled = is_recording

__all__ = ["Tensor", "enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]
__all__ += _creation
