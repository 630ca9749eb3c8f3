"""Memory layouts: operands and incoming gradients in every order in which memory can lie.

check_layout(case, "reversed", "cpu")           operands and gradients
check_gradient_layouts(case, "interpreter")     gradients alone, in every layout, by every way they come in
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tilewright as tw
from tests.support.cases import Subject
from tests.support.checks import (
    Arrays,
    assert_close,
    assert_right,
    backward_of,
    extents_of,
    run,
    with_cotangents,
)
from tilewright.dsl.extents import result_shapes
from tilewright.dsl.reference import reference
from tilewright.op.derivatives import at_call, vjp
from tilewright.op.derived import without_saved

Layout = Callable[[np.ndarray], np.ndarray]


def _strided(array: np.ndarray) -> np.ndarray:
    padded = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), 99, array.dtype)
    padded[..., 1::2] = array
    return padded[..., 1::2]


def _reversed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def _reversed_everywhere(array: np.ndarray) -> np.ndarray:
    return np.flip(np.ascontiguousarray(np.flip(array)))


def _transposed(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def _cropped(array: np.ndarray) -> np.ndarray:
    """The middle of a block that is longer along every dimension."""
    block = np.full([extent + 3 for extent in array.shape], 99, array.dtype)
    middle = block[tuple(slice(1, 1 + extent) for extent in array.shape)]
    middle[...] = array
    return middle


def _repeated(array: np.ndarray) -> np.ndarray:
    first = array[..., :1]
    return np.broadcast_to(np.rint(first) if first.dtype.kind == "f" else first, array.shape)


def _repeated_rows(array: np.ndarray) -> np.ndarray:
    return np.broadcast_to(array[:1], array.shape)


def _one_number(array: np.ndarray) -> np.ndarray:
    return np.broadcast_to(array.reshape(-1)[:1].reshape((1,) * array.ndim), array.shape)


def _overlapping(array: np.ndarray) -> np.ndarray:
    """Each row is the one before, moved on by an element."""
    line = np.resize(array, sum(array.shape) + 1)
    return np.lib.stride_tricks.as_strided(line[1:], array.shape, (array.itemsize,) * array.ndim)


LAYOUTS: dict[str, Layout] = {
    "strided": _strided,
    "reversed": _reversed,
    "transposed": _transposed,
    "repeated": _repeated,
}
FURTHER: dict[str, Layout] = {
    "reversed everywhere": _reversed_everywhere,
    "cropped": _cropped,
    "repeated rows": _repeated_rows,
    "one number": _one_number,
    "overlapping": _overlapping,
}
EVERY = {**LAYOUTS, **FURTHER}


def laid(array: np.ndarray, layout: str | None) -> np.ndarray:
    """The array in a layout (None: as it is); its values may change where the layout repeats them."""
    return EVERY[layout](array) if layout and array.ndim and array.size else array


def check_layout(case: Subject, layout: str, target: str) -> None:
    """Operands and incoming gradients in other memory orders: forward and backward, in float32."""
    call = case.call({n: laid(a, layout) for n, a in case.arguments(np.float32).items()})
    arrays = {**call.arrays, **call.scalars}
    assert_right(call.program, arrays, target, case.tolerance, f"{case} {layout} on {target}")
    if not case.differentiable:
        return
    program = backward_of(call.program)
    given = with_cotangents(program, arrays, extents_of(call.program, arrays))
    given = {n: laid(a, layout) if n not in arrays else a for n, a in given.items()}
    assert_right(program, given, target, 4 * case.tolerance, f"{case} backward {layout} on {target}", 1.0)


# --- incoming gradients -------------------------------------------------------------------------------------


def check_gradient_layouts(
    case: Subject, target: str, layouts: Sequence[str] = tuple(EVERY), dtype: Any = np.float32
) -> None:
    """Incoming gradients in every layout, by every way in which they come in, against the reference.

    A target runs the backward as one Program of operands and cotangents, and after its forward with what
    that saved. On the CPU `op.vjp` and `Tensor.backward` are given the same gradients.
    """
    if not case.differentiable:
        return
    pulled = Pulled(case, case.arguments(dtype))
    for layout in layouts:
        told = f"of {case} in {np.dtype(dtype)}, d_y {layout}"
        inside = pulled.cotangents(layout)
        expected = pulled.expected(inside)
        pulled.compare(pulled.in_one(inside, target), expected, f"{told}, in one Program on {target}")
        pulled.compare(pulled.after(inside, target), expected, f"{told}, after the forward on {target}")
        if target == "cpu":
            outside = pulled.cotangents_of_users(layout)
            expected = pulled.expected(outside)
            pulled.compare(pulled.by_the_op(outside), expected, f"{told}, by op.vjp")
            pulled.compare(pulled.by_the_tape(outside), expected, f"{told}, by the tape")


class Pulled:
    """The call of a case, its derivative, and every way to the gradients of its operands."""

    def __init__(self, case: Subject, arguments: Arrays):
        self.case = case
        self.arguments = arguments
        self.call = case.call(arguments)
        self.arrays = {**self.call.arrays, **self.call.scalars}
        self.derivative = vjp(at_call(self.call.program, self.call.arrays))
        self.whole = without_saved(self.derivative)
        given = with_cotangents(self.whole, self.arrays, extents_of(self.call.program, self.arrays))
        self.drawn = {name: given[name] for _, name in self.derivative.cotangents}

    def cotangents(self, layout: str) -> dict[str, np.ndarray]:
        """By name, laid out in the shapes that the Program has."""
        return {name: laid(array, layout) for name, array in self.drawn.items()}

    def cotangents_of_users(self, layout: str | None = None) -> dict[str, np.ndarray]:
        """By name, laid out in the shapes in which a user has the results."""
        program = self.call.program
        shapes = result_shapes(program, {name: a.shape for name, a in self.call.arrays.items()})
        users = {r.name: self.call.seen(n, shapes[n]).shape for n, r in enumerate(program.results)}
        pairs = self.derivative.cotangents
        return {name: laid(self.drawn[name].reshape(users[result]), layout) for result, name in pairs}

    def expected(self, cotangents: Arrays) -> dict[str, np.ndarray]:
        inside = {name: array.reshape(self.drawn[name].shape) for name, array in cotangents.items()}
        return self._by_operand(reference(self.whole, {**self.arrays, **inside}))

    def compare(self, found: Arrays, expected: Arrays, told: str) -> None:
        for name, gradient in found.items():
            wanted = expected[name].reshape(gradient.shape)
            assert_close(gradient, wanted, 4 * self.case.tolerance, f"d_{name} {told}", 1.0)

    def in_one(self, cotangents: Arrays, target: str) -> dict[str, np.ndarray]:
        return self._by_operand(run(self.whole, {**self.arrays, **cotangents}, target))

    def after(self, cotangents: Arrays, target: str) -> dict[str, np.ndarray]:
        forward = self.derivative.forward
        results = run(forward, self.arrays, target)
        saved = {r.name: a for r, a in zip(forward.results, results, strict=True)}
        given = {**saved, **self.arrays, **cotangents}
        return self._by_operand(run(self.derivative.backward, given, target))

    def by_the_op(self, cotangents: Arrays) -> dict[str, np.ndarray]:
        found = self.case.op.vjp(**self.arguments, **self.case.keywords, **cotangents)
        return self._by_operand(found if isinstance(found, tuple) else (found,))

    def by_the_tape(self, cotangents: Arrays) -> dict[str, np.ndarray]:
        """`Tensor.backward` of one result after the other; the gradients add up.

        What came in stays as it was, and no operand's gradient is in its memory.
        """
        wanted = [operand for operand, _ in self.derivative.gradients]
        tensors = {n: tw.Tensor(a.copy(), requires_grad=n in wanted) for n, a in self.arguments.items()}
        found = self.case.op(**tensors, **self.case.keywords)
        names = [r.name for r in self.call.program.results]
        results = dict(zip(names, found if isinstance(found, tuple) else (found,), strict=True))
        before = {name: array.copy() for name, array in cotangents.items()}
        for result, name in self.derivative.cotangents:
            results[result].backward(tw.from_numpy(cotangents[name]), retain_graph=True)
        gradients = {name: tensors[name].grad.numpy() for name in wanted}
        for name, array in cotangents.items():
            np.testing.assert_array_equal(array, before[name], f"{self.case}: {name} was written")
            for operand, gradient in gradients.items():
                shared = np.may_share_memory(gradient, array)
                assert not shared, f"{self.case}: {operand}.grad is the memory of {name}, which came in"
        return gradients

    def _by_operand(self, results: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {operand: g for (operand, _), g in zip(self.derivative.gradients, results, strict=True)}
