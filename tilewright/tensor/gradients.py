"""tw.grad: gradients as values, without touching `grad` of any leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilewright.autograd import tape
from tilewright.errors import ArgumentError, DerivativeError
from tilewright.tensor.tensor import GRADIENTS, Tensor, start_of


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """Σ grad_outputs · d outputs / d inputs, one gradient for each input.

    With `create_graph` the gradients are recorded and can be differentiated again. An input on which no
    output depends raises `DerivativeError`, or gives None with `allow_unused`.
    """
    ends = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    starts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    given = _given(grad_outputs, len(ends))
    for position, value in enumerate(starts):
        if not isinstance(value, Tensor) or value._source is None:
            raise DerivativeError(
                f"tw.grad: input {position} does not require a gradient; call "
                "x.requires_grad_() before it is used"
            )
    roots = [start_of(o, g, "tw.grad", create_graph) for o, g in zip(ends, given, strict=True)]
    retain = create_graph if retain_graph is None else retain_graph
    wanted = [source for value in starts if (source := value._source) is not None]
    with tape.set_grad_enabled(create_graph):
        found = tape.gradients(roots, wanted, GRADIENTS, record=create_graph, retain=retain)
    for position, gradient in enumerate(found):
        if gradient is None and not allow_unused:
            raise DerivativeError(
                f"tw.grad: the outputs do not depend on input {position}; pass "
                "allow_unused=True to get None for it"
            )
    return tuple(g if g is None or isinstance(g, Tensor) else Tensor._make(g) for g in found)


def _given(grad_outputs: Any, count: int) -> tuple[Any, ...]:
    if grad_outputs is None:
        return (None,) * count
    given = tuple(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else (grad_outputs,)
    if len(given) != count:
        raise ArgumentError(f"tw.grad: {count} outputs need {count} grad_outputs, got {len(given)}")
    return given


def clear_gradient(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a parameter's gradient, or overwrite it with zeros."""
    gradient = parameter.grad
    if gradient is None:
        return
    if set_to_none:
        parameter.grad = None
    elif gradient.requires_grad:
        parameter.grad = gradient.detach() * 0
    else:
        gradient.zero_()
