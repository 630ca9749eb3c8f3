"""What is timed: a case at a size, as calls of ours and of its peer in torch, checked before it is timed.

A `Bench` is made from a case of the tests' tables, so that what is fast is what is known to be right. All
that a user would pay is inside the calls: binding, allocation of results, the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import torch

import tilewright as tw
from tests.support.cases import Case
from tilewright.autograd.derive import vjp
from tilewright.compiler.pipeline import lower
from tilewright.dsl.extents import bind_extents
from tilewright.op import costs
from tilewright.op.check import relative_error
from tilewright.op.op import Op

Arrays = Mapping[str, np.ndarray]
ROUNDING = {np.dtype(ml_dtypes.bfloat16): 2.0**-8, np.dtype(np.float16): 2.0**-11}  # of a result


@dataclass(frozen=True)
class Work:
    """Calls to time. `results` gives ours as arrays and `right` the same in float64, to be compared first."""

    ours: Callable[[], Any]
    peer: Callable[[], Any]
    peer_compiled: Callable[[], Callable[[], Any]] | None
    results: Callable[[], tuple[np.ndarray, ...]]
    right: Callable[[], tuple[np.ndarray, ...]]
    moved: int
    operations: int
    tolerance: float

    def error(self) -> float:
        """The worst relative error of ours."""
        return max(
            relative_error(np.asarray(mine), expected)
            for mine, expected in zip(self.results(), self.right(), strict=True)
        )


@dataclass(frozen=True)
class Bench:
    """One row of the tables."""

    name: str
    family: str
    make: Callable[[], Work]
    quick: bool = True
    compiled_in_quick: bool = False

    def __str__(self) -> str:
        return self.name


def find(table: list[Case], op: Op, absent: tuple[str, ...] = (), **constants: Any) -> Case:
    """The tests' case of an op with these constants."""
    for case in table:
        if case.op is op and dict(case.constants) == constants and case.absent == absent and not case.batch:
            return case
    raise LookupError(f"the tests have no case of {op.name} with {constants}")


def forward(
    name: str, family: str, case: Case, axes: Mapping[str, Any], dtype: Any = np.float32, **options: Any
) -> Bench:
    """The op on arrays against the peer on tensors."""
    return Bench(name, family, lambda: _forward(replace(case, axes=axes), dtype), **options)


def both(name: str, family: str, case: Case, axes: Mapping[str, Any], **options: Any) -> Bench:
    """Forward and backward with a given cotangent, on Tensors of both libraries."""
    return Bench(f"{name}, forward + backward", family, lambda: _both(replace(case, axes=axes)), **options)


def _forward(case: Case, dtype: Any) -> Work:
    arrays = case.arguments(dtype)
    keywords = {**case.constants, **case.scalars}
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    peer = _peer(case)

    def ours() -> Any:
        return case.op(**arrays, **keywords)

    def theirs() -> Any:
        with torch.no_grad():
            return peer(*tensors.values(), **case.constants)

    def compiled() -> Callable[[], Any]:
        faster = torch.compile(lambda operands: peer(*operands.values(), **case.constants))

        def run() -> Any:
            with torch.no_grad():
                return faster(tensors)

        run()
        return run

    def right() -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return _as_arrays(peer(*_doubled(tensors).values(), **case.constants))

    bound = case.call(arrays)
    counted = _costs([bound.program], [bound.arrays])
    tolerance = _tolerance(case, arrays) + ROUNDING.get(np.dtype(dtype), 0.0)
    return Work(ours, theirs, compiled, lambda: _as_tuple(ours()), right, *counted, tolerance)


def _both(case: Case) -> Work:
    arrays = case.arguments(np.float32)
    floating = [name for name, array in arrays.items() if array.dtype == np.float32]
    peer = _peer(case)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    shape = case.op(**arrays, **case.constants).shape
    given = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    mine = {name: tw.Tensor(a, requires_grad=name in floating) for name, a in arrays.items()}
    given_mine, given_theirs = tw.Tensor(given), torch.from_numpy(given)

    def ours() -> Any:
        for name in floating:
            mine[name].grad = None
        case.op(**mine, **case.constants).backward(given_mine)

    def stepper(
        function: Callable[..., Any], operands: Mapping[str, Any], cotangent: Any
    ) -> Callable[[], Any]:
        for name in floating:
            operands[name].requires_grad_()

        def run() -> Any:
            for name in floating:
                operands[name].grad = None
            function(operands).backward(cotangent)

        return run

    def call(operands: Mapping[str, Any]) -> Any:
        return peer(*operands.values(), **case.constants)

    def compiled() -> Callable[[], Any]:
        run = stepper(torch.compile(call), tensors, given_theirs)
        run()
        return run

    def results() -> tuple[np.ndarray, ...]:
        ours()
        return tuple(mine[name].grad.numpy() for name in floating)

    def right() -> tuple[np.ndarray, ...]:
        operands = _doubled(tensors)
        stepper(call, operands, given_theirs.double())()
        return tuple(operands[name].grad.numpy() for name in floating)

    bound = case.call(arrays)
    derivative = vjp(bound.program)
    extents = bind_extents(bound.program, {name: array.shape for name, array in bound.arrays.items()})
    backward = {
        p.name: np.empty([extents[a] for a in p.axes], p.dtype.numpy) for p in derivative.backward.tiles
    }
    counted = _costs([derivative.forward, derivative.backward], [bound.arrays, backward])
    theirs = stepper(call, tensors, given_theirs)
    return Work(ours, theirs, compiled, results, right, *counted, 4 * _tolerance(case, arrays))


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == ml_dtypes.bfloat16:  # torch does not know the NumPy dtype
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _peer(case: Case) -> Callable[..., Any]:
    assert case.torch is not None
    return case.torch


def _doubled(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().double() if t.is_floating_point() else t.detach() for name, t in tensors.items()}


def _as_tuple(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)


def _as_arrays(value: Any) -> tuple[np.ndarray, ...]:
    return tuple(t.numpy() for t in _as_tuple(value))


def _tolerance(case: Case, arrays: Arrays) -> float:
    """Rounding errors that a float32 sum over the longest axis may have."""
    longest = max((max(a.shape, default=1) for a in arrays.values()), default=1)
    return 2.0**-24 * (max(case.tolerance, 16.0) + 8 * longest**0.5)


def _costs(programs: list[Any], operands: list[Arrays]) -> tuple[int, int]:
    """The fewest bytes and the operations of Programs that run one after the other."""
    moved = operations = 0
    for program, arrays in zip(programs, operands, strict=True):
        plan = lower(program)
        total = costs.totals(plan, costs.extents_of(plan, {n: a.shape for n, a in arrays.items()}))
        moved, operations = moved + total.fewest, operations + total.operations
    return moved, operations
