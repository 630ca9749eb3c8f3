"""`tw.graph`: a function of Tensors on a device whose kernels are launched as one piece.

    step = tw.graph(model)
    y = step(x)                   # runs model(x), and so the next call, or a third
    y = step(x)                   # then model(x) is recorded: its kernels, their arguments, their memory
    y = step(x)                   # copies x to where the recorded kernels read it, and launches them at once

A function runs as it is until two calls in a row have given their ops the same numbers: first calls may
differ (an optimizer makes its state); if three have not, no graph can be made. Then Python runs no more.
Whatever it decided or computed, numbers among it, is part of the graph; Tensors that the function reads or
writes beside its operands (weights, running statistics, what an optimizer updates in place) are used where
they lie.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.autograd.tape import mode
from tilewright.errors import ArgumentError, CaptureError, DeviceError
from tilewright.op import storage
from tilewright.runtime import capturing
from tilewright.runtime.devices import CPU
from tilewright.tensor.record import Value


def graph(function: Callable[..., Any], *, reuse: bool = False) -> Graph:
    """`function`, which takes Tensors of one device and gives Tensors, recorded after its first calls.

    A call of the graph costs Python one launch, however many ops the function has. Each call gives fresh
    Tensors; with `reuse` they lie in the graph's own memory, which the next call overwrites. Nothing is
    recorded on the tape around it: gradients are taken inside of the function. Operands of later calls have
    the shapes, dtypes and device of the first. The graph keeps the memory that its kernels work in.

    Raises `CaptureError` for what no graph can hold: values that are read on the CPU (`item`, `print`, `if`),
    random numbers and numbers that change from call to call, other devices, operands that are written to.
    `DeviceError` on the CPU, where there is nothing to be gained: call the function itself.
    """
    return Graph(function, reuse)


MOST_RUNS = 3
"""Calls that may differ from each other before they are recorded."""


class Graph:
    """See `graph`."""

    def __init__(self, function: Callable[..., Any], reuse: bool = False):
        if not callable(function):
            kind = type(function).__qualname__
            raise ArgumentError(
                f"tw.graph takes a function of Tensors, got {kind}; write tw.graph(f), then g(x)"
            )
        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._reuse = reuse
        self._lock = threading.Lock()
        self._kinds: tuple[_Kind, ...] | None = None
        self._numbers: capturing.Numbers | None = None
        """Those of the call before."""
        self._runs = 0
        self._alike = False
        self._recorded: _Recorded | None = None

    def __call__(self, *operands: Any) -> Any:
        capturing.refuse(f"it calls the graph of {self.name}", "call that graph's function instead")
        kinds = self._checked(operands)
        with self._lock:
            if self._kinds is None:
                self._kinds = kinds
            elif kinds != self._kinds:
                raise self._other(kinds)
            if self._recorded is None and not self._alike:
                return self._run(operands)
            if self._recorded is None:
                card, numbers = _card(operands), capturing.Numbers(self.name, self._numbers)
                self._recorded = _Recorded(self._function, operands, card, numbers)
            return self._recorded.replay(operands, self._reuse)

    @property
    def bytes(self) -> int:
        """The memory that the graph keeps beside its operands; 0 before it is recorded."""
        return 0 if self._recorded is None else self._recorded.graph.bytes

    def _run(self, operands: Sequence[Any]) -> Any:
        """The function as it is, held to what it must keep to when it is recorded."""
        from tilewright.runtime.cuda import streams

        numbers, before = capturing.Numbers(self.name), self._numbers
        with streams.stream(streams.stream_of(_card(operands))), capturing.run(numbers):
            results = self._function(*operands)
        flat, tree = _flattened(results, self.name)
        difference = "" if before is None else numbers.difference(before)
        self._runs += 1
        self._numbers, self._alike = numbers, before is not None and not difference
        if difference and self._runs == MOST_RUNS:
            self._numbers, self._runs = None, 0
            raise numbers.error(difference)
        return _rebuilt(tree, [Value.kind._make(result._array) for result in flat])

    # --- operands -------------------------------------------------------------------------------------------

    def _checked(self, operands: Sequence[Any]) -> tuple[_Kind, ...]:
        for number, operand in enumerate(operands):
            self._check(number, operand, operands[0])
        return tuple(_kind(operand) for operand in operands)

    def _check(self, number: int, operand: Any, first: Any) -> None:
        where = f"graph of {self.name}: operand {number}"
        if not isinstance(operand, Value):
            raise ArgumentError(
                f"{where} is of type {type(operand).__qualname__}; a graph takes Tensors by position: bind "
                "the rest beforehand, tw.graph(lambda x: f(x, n))"
            )
        device = storage.device_of(operand._array)
        if device is CPU:
            raise DeviceError(
                f'{where} lies on the CPU, and graphs are of CUDA devices; move it, x.to("cuda"), or call '
                "the function itself"
            )
        if device != storage.device_of(first._array):
            raise DeviceError(
                f"{where} lies on {device}, the first on {first._array.device}; a graph is of one device: "
                f'write x.to("{first._array.device}")'
            )
        if mode.recording and operand._origin is not None:
            raise CaptureError(
                f"{where} requires a gradient, which does not pass through a graph; take it inside of the "
                "function, pass x.detach(), or call under `with tw.no_grad():`"
            )

    def _other(self, kinds: tuple[_Kind, ...]) -> CaptureError:
        given, known = (", ".join(map(_spelt, each)) or "no operands" for each in (kinds, self._kinds or ()))
        return CaptureError(
            f"graph of {self.name}: it is for {known}, and is called with {given}; make another graph for "
            "other operands: tw.graph(f)"
        )


class _Recorded:
    """A function's kernels, where they find operands, and what they leave."""

    def __init__(
        self, function: Callable[..., Any], operands: Sequence[Any], card: Any, numbers: capturing.Numbers
    ):
        from tilewright.runtime.cuda.graphs import CudaGraph

        name = numbers.function
        self.numbers = numbers
        arrays = [operand._array for operand in operands]
        self.operands = [storage.empty(a.shape, a.dtype, a.device) for a in arrays]

        def run() -> Any:
            with capturing.run(numbers):
                return function(*map(Value.kind._make, self.operands))

        self.graph = CudaGraph(name, card, run)
        self._check_operands(name)
        flat, self._tree = _flattened(self.graph.results, name)
        self.graph.results = None
        self.results = [result._array for result in flat]

    def _check_operands(self, name: str) -> None:
        for number, operand in enumerate(self.operands):
            if operand.allocation in self.graph.written:
                raise CaptureError(
                    f"graph of {name}: it writes to operand {number}, which is a copy of what a call passes; "
                    "have it write to a Tensor that it does not take as an operand, or give the new values"
                )

    def replay(self, operands: Sequence[Any], reuse: bool) -> Any:
        from tilewright.compiler.targets.triton import copies
        from tilewright.runtime.cuda import streams

        self.numbers.check_watched()
        with streams.stream(self.graph.stream):
            for held, operand in zip(self.operands, operands, strict=True):
                copies.copy(held, operand._array)
        self.graph.replay()
        arrays = self.results if reuse else [storage.copied(array) for array in self.results]
        return _rebuilt(self._tree, [Value.kind._make(array) for array in arrays])


# --- operands and results ---------------------------------------------------------------------------------

_Kind = tuple[tuple[int, ...], Any, Any]
"""Shape, dtype and device."""


def _kind(operand: Any) -> _Kind:
    array = operand._array
    return array.shape, array.dtype, array.device


def _spelt(kind: _Kind) -> str:
    shape, dtype, device = kind
    return f"{dtype}{list(shape)} on {device}"


def _card(operands: Sequence[Any]) -> Any:
    from tilewright.runtime.cuda import cards

    return cards.card(cards.ordinal_of(operands[0]._array.device if operands else None))


def _flattened(results: Any, name: str) -> tuple[list[Any], Any]:
    """The Tensors in a structure, and the structure with their numbers in their place."""
    flat: list[Any] = []

    def walk(part: Any) -> Any:
        if part is None:
            return None
        if isinstance(part, Value):
            if storage.device_of(part._array) is CPU:
                raise CaptureError(
                    f"graph of {name}: it gives a Tensor on the CPU, which would be the same in every call; "
                    "have it give Tensors on the device"
                )
            flat.append(part)
            return len(flat) - 1
        if isinstance(part, dict):
            return {key: walk(value) for key, value in part.items()}
        if isinstance(part, (tuple, list)):
            parts = [walk(value) for value in part]
            if type(part) in (tuple, list):
                return type(part)(parts)
            if hasattr(part, "_fields"):  # a named tuple
                return type(part)(*parts)
        raise CaptureError(
            f"graph of {name}: it gives {type(part).__qualname__}, which would be the same in every call; "
            "have it give Tensors, in tuples, lists or dicts"
        )

    return flat, walk(results)


def _rebuilt(tree: Any, tensors: Sequence[Any]) -> Any:
    if tree is None:
        return None
    if isinstance(tree, int):
        return tensors[tree]
    if isinstance(tree, dict):
        return {key: _rebuilt(part, tensors) for key, part in tree.items()}
    parts = [_rebuilt(part, tensors) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
