"""Steps of optimizers: what the targets compute and how it is differentiated (training through a step).

That they are torch's is in `test_optim.py`.
"""

from __future__ import annotations

from typing import Any

from tests.support.cases import Case, positive
from tilewright import kernels as K

PARAMETER = {"...": (3, 5)}
MATRIX = {"...": (2,), "i": 3, "j": 4}
MORE = ({"...": (40, 1025)}, {"...": ()}, {"...": (0, 3)})
STEP = {"step": 3.0, "lr": 0.1, "weight_decay": 0.3}
SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_sum", "square_avg", "delta_avg", "step_size", "exp_inf")
AVERAGES = ("row_avg", "column_avg")


def centred(rng, shape):
    """Averages of gradients that are smaller than the roots of the mean squares beside them."""
    return 0.1 * rng.standard_normal(shape)


def step(op, absent=(), axes=PARAMETER, more=(), scalars=STEP, **fields: Any) -> Case:
    names = [t.name for t in op.tiles]
    draw = {name: positive for name in (*SQUARES, *AVERAGES) if name in names}
    if "grad_avg" in names:
        draw["grad_avg"] = centred
    given = {name: value for name, value in scalars.items() if name in op.scalars}
    if op is K.nadam_step:
        given["momenta"] = 0.2
    return Case(
        op, axes, more=more, absent=absent, scalars=given, draw=draw, tolerance=64, rare=True, **fields
    )


CASES = [
    step(K.sgd_step, ("buffer",)),
    step(K.sgd_step, constants={"nesterov": True}, more=MORE),
    step(K.asgd_step),
    step(K.lion_step),
    step(K.rprop_step),
    step(K.adam_step, more=MORE),
    step(K.adam_step, ("max_exp_avg_sq",), constants={"maximize": True}),
    step(K.adamw_step),
    step(K.adamax_step),
    step(K.nadam_step),
    step(K.nadam_step, constants={"decoupled": True}),
    step(K.radam_step),
    step(K.radam_step, scalars={**STEP, "step": 9.0}),
    step(K.adagrad_step),
    step(K.adadelta_step),
    step(K.rmsprop_step, ("buffer", "grad_avg")),
    step(K.rmsprop_step, constants={"alpha": 0.5}),
    step(K.adafactor_step, axes=MATRIX, more=({"i": 33, "j": 1025}, {"i": 1})),
    step(K.adafactor_vector_step, constants={"clip": 0.5}, more=MORE[:2]),
    step(K.lamb_step, more=MORE[:2]),
    step(K.lars_step, more=MORE[:2]),
    step(
        K.muon_step,
        axes={"i": 3, "j": 4},
        constants={"iterations": 1},
        more=({"i": 70, "j": 40},),
        heavy=True,
    ),
]
