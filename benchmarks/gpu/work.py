"""What is timed on a card: calls of ours and of torch on the same memory, checked against float64 first.

Operands are made by torch and seen by both through DLPack. The float64 truth is the peer's formula on
doubles, or a plainer one where the peer is a fused kernel. Every row can also be made small, on the CPU: that
is how the tests see to it that rows are right before a card does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch

import tilewright as tw

Function = Callable[..., Any]
Shapes = Mapping[str, tuple[int, ...]]
SEED = 7
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
DEVICE, HOST = "device", "host"


@dataclass(frozen=True)
class Work:
    """Calls to time; `results` and `right` give what is compared, ours and the truth.

    moved: bytes of every operand, read once, and of every result. operations: those of products, else 0.
    """

    ours: Callable[[], Any]
    peer: Callable[[], Any]
    compiled: Callable[[], Callable[[], Any]] | None
    results: Callable[[], Sequence[torch.Tensor]]
    right: Callable[[], Sequence[torch.Tensor]]
    moved: int
    operations: float
    tolerance: float

    def error(self) -> float:
        """The worst error of ours, over the largest value of the result."""
        pairs = zip(self.results(), self.right(), strict=True)
        return max(error(mine, expected) for mine, expected in pairs)


@dataclass(frozen=True)
class Row:
    """One row of the table: `make(device, small)` sets it up.

    `aim` is what the row is to reach, in words. `clock`: whose time is taken, the device's, or Python's until
    the call returns.
    """

    name: str
    family: str
    make: Callable[[str, bool], Work]
    aim: str = ""
    compiles: bool = False
    clock: str = DEVICE

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Operation:
    """An op of ours, its peer, and the operands of both: floats are drawn, others are made by `special`."""

    op: Function
    peer: Function
    sizes: Shapes
    small: Shapes
    truth: Function | None = None
    operations: Callable[[Shapes], float] = lambda sizes: 0.0
    special: Mapping[str, Callable[[str, Shapes], torch.Tensor]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.bfloat16
    scale: float = 1.0
    tolerance: float = 4.0
    """In roundings of a result."""

    def operands(self, device: str, small: bool) -> dict[str, torch.Tensor]:
        sizes = self.small if small else self.sizes
        generator = torch.Generator(device).manual_seed(SEED)
        drawn = {}
        for name, shape in sizes.items():
            if name in self.special:
                drawn[name] = self.special[name](device, sizes)
            else:
                values = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
                drawn[name] = (values * self.scale).to(self.dtype)
        return drawn

    def call_peer(self, *operands: torch.Tensor) -> Any:
        return self.peer(*operands, **self.constants)

    def call_truth(self, *operands: torch.Tensor) -> Any:
        doubles = [t.double() if t.is_floating_point() else t for t in operands]
        return (self.truth or self.peer)(*doubles, **self.constants)


def forward(name: str, family: str, operation: Operation, **options: Any) -> Row:
    """The op alone."""
    return Row(name, family, lambda device, small: _forward(operation, device, small), **options)


def backward(name: str, family: str, operation: Operation, **options: Any) -> Row:
    """The gradients of all operands of floats, from a given cotangent; the forward has run before."""
    return Row(
        f"{name}, backward", family, lambda device, small: _backward(operation, device, small), **options
    )


def _forward(operation: Operation, device: str, small: bool) -> Work:
    operands = operation.operands(device, small)
    theirs = list(operands.values())
    mine = [ours(t) for t in theirs]

    def run() -> Any:
        return operation.op(*mine, **operation.constants)

    def peer() -> Any:
        with torch.no_grad():
            return operation.call_peer(*theirs)

    def compiled() -> Callable[[], Any]:
        faster = torch.compile(operation.call_peer)

        def call() -> Any:
            with torch.no_grad():
                return faster(*theirs)

        call()
        return call

    def right() -> Sequence[torch.Tensor]:
        with torch.no_grad():
            return _listed(operation.call_truth(*theirs))

    return Work(
        run, peer, compiled, lambda: [_theirs(r) for r in _listed(run())], right,
        size_of(theirs) + size_of(_listed(peer())), operation.operations(_sizes(operation, small)),
        _tolerance(operation),
    )  # fmt: skip


def _backward(operation: Operation, device: str, small: bool) -> Work:
    operands = operation.operands(device, small)
    wanted = [name for name, t in operands.items() if t.is_floating_point()]
    theirs = {name: t.requires_grad_(name in wanted) for name, t in operands.items()}
    result = operation.call_peer(*theirs.values())
    generator = torch.Generator(device).manual_seed(SEED + 1)
    given = torch.randn(result.shape, generator=generator, device=device, dtype=torch.float32)
    given = given.to(result.dtype)
    mine = {name: ours(t.detach()) for name, t in operands.items()}
    for name in wanted:
        mine[name].requires_grad_()
    mine_result = operation.op(*mine.values(), **operation.constants)
    mine_given = ours(given)

    def run() -> Sequence[Any]:
        return tw.grad(mine_result, [mine[name] for name in wanted], mine_given, retain_graph=True)

    def stepper(y: torch.Tensor, leaves: Mapping[str, torch.Tensor], cotangent: torch.Tensor) -> Any:
        return torch.autograd.grad(y, [leaves[name] for name in wanted], cotangent, retain_graph=True)

    def compiled() -> Callable[[], Any]:
        y = torch.compile(operation.call_peer)(*theirs.values())
        stepper(y, theirs, given)
        return lambda: stepper(y, theirs, given)

    def right() -> Sequence[torch.Tensor]:
        doubles = {n: t.detach().double().requires_grad_() if n in wanted else t for n, t in theirs.items()}
        return stepper(operation.call_truth(*doubles.values()), doubles, given.double())

    return Work(
        run, lambda: stepper(result, theirs, given), compiled, lambda: [_theirs(r) for r in run()], right,
        size_of([*theirs.values(), given]) + size_of([theirs[name] for name in wanted]),
        2.5 * operation.operations(_sizes(operation, small)), 4 * _tolerance(operation),
    )  # fmt: skip


# --- between the libraries --------------------------------------------------------------------------------


def ours(tensor: torch.Tensor) -> Any:
    """The same memory as a Tensor of ours."""
    if tensor.device.type == "cpu" and tensor.dtype == torch.bfloat16:  # which NumPy does not exchange
        return tw.Tensor(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return tw.from_dlpack(tensor)


def _theirs(tensor: Any) -> torch.Tensor:
    if tensor.device == "cpu":
        array = tensor.detach().numpy()
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)
    return torch.from_dlpack(tensor.detach())


def error(mine: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference over the largest value; infinite where one is no number and the other is."""
    if mine.shape != expected.shape:
        return float("inf")
    mine = mine.double()
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(mine)):
        return float("inf")
    zero = torch.zeros((), dtype=torch.float64, device=mine.device)
    difference = torch.where(finite, mine - expected, zero).abs().max()
    scale = torch.where(finite, expected, zero).abs().max()
    return float(difference / scale.clamp(min=1e-30))


def size_of(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


def _sizes(operation: Operation, small: bool) -> Shapes:
    return operation.small if small else operation.sizes


def _tolerance(operation: Operation) -> float:
    return operation.tolerance * ROUNDING[operation.dtype]
