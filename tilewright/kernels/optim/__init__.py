"""Steps of optimizers: parameter, gradient and state in, parameter and state out, in one pass.

Every step takes the parameter and its gradient first, then the state, and gives the parameter and the state
in that order; each result has the dtype of the operand that it replaces. What changes from step to step is
passed at run time; decay rates and eps are compiled in, so that 1 - beta keeps the precision of Python's
numbers. `step` counts from 1. With `maximize` the gradient is followed upwards.

State that is optional is left out of the results where it is not given. Unless a docstring says otherwise
the arithmetic is that of `torch.optim`, whose state starts as zeros.
"""

from tilewright.kernels.optim.adam import (
    adam_step,
    adamax_step,
    adamw_step,
    nadam_momentum,
    nadam_step,
    radam_step,
)
from tilewright.kernels.optim.adaptive import (
    adadelta_step,
    adafactor_step,
    adafactor_vector_step,
    adagrad_step,
    rmsprop_step,
)
from tilewright.kernels.optim.layerwise import lamb_step, lars_step, muon_step
from tilewright.kernels.optim.sgd import asgd_step, lion_step, rprop_step, sgd_step

__all__ = [
    "adadelta_step", "adafactor_step", "adafactor_vector_step", "adagrad_step", "adam_step", "adamax_step",
    "adamw_step", "asgd_step", "lamb_step", "lars_step", "lion_step", "muon_step", "nadam_momentum",
    "nadam_step", "radam_step", "rmsprop_step", "rprop_step", "sgd_step",
]  # fmt: skip
