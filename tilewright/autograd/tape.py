"""The tape: which recorded call made a value, and reverse accumulation over it.

A value that is differentiable has an *origin*: a `Node` (a recorded call, of which it is one result) or a
`Leaf` (a place where gradients end). A node knows the origins of its operands, never the values that were
made from it, so that graphs have no cycles and are freed by reference counting. The tape knows nothing of
arrays: gradients are whatever the nodes and the `Arithmetic` of the layer above exchange.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tilewright.errors import DerivativeError

_sequence = itertools.count()

Hook = Callable[[Any], Any]
Source = tuple["Origin", int]
"""An origin and the number of its result."""


class Origin:
    """Where a differentiable value comes from. Origins are numbered, operands before users."""

    __slots__ = ("__weakref__", "hooks", "sequence")

    def __init__(self) -> None:
        self.sequence = next(_sequence)
        self.hooks: dict[int, dict[int, Hook]] | None = None

    @property
    def inputs(self) -> Sequence[Source | None]:
        """The sources of the operands; None for one that takes no gradient."""
        return ()

    def add_hook(self, result: int, hook: Hook) -> HookHandle:
        if self.hooks is None:
            self.hooks = {}
        handle = HookHandle(self.hooks.setdefault(result, {}))
        handle.hooks[handle.number] = hook
        return handle


class HookHandle:
    """Removes a hook: `handle.remove()`, or at the end of a `with handle:`."""

    _numbers = itertools.count()

    def __init__(self, hooks: dict[int, Any]):
        self.hooks = hooks
        self.number = next(self._numbers)

    def remove(self) -> None:
        self.hooks.pop(self.number, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *details: object) -> None:
        self.remove()


class Leaf(Origin):
    """Where gradients end: an independent variable."""

    __slots__ = ()

    def accumulate(self, gradient: Any, fresh: bool, record: bool) -> None:
        """Add a gradient to those that have arrived. `fresh`: nothing else holds the gradient's memory."""
        raise NotImplementedError


class Node(Origin):
    """A recorded call."""

    __slots__ = ("_inputs",)

    def __init__(self, inputs: Sequence[Source | None]):
        super().__init__()
        self._inputs = inputs

    @property
    def inputs(self) -> Sequence[Source | None]:
        return self._inputs

    @property
    def name(self) -> str:
        return type(self).__name__

    def backward(self, cotangents: Mapping[int, Any], record: bool) -> Sequence[Any]:
        """The gradient of each input, from those of the results that have one; None where there is none.

        With `record` gradients are values of the layer above, and what happens to them is recorded again.
        """
        raise NotImplementedError

    def is_fresh(self, position: int) -> bool:
        """Whether the memory of this input's gradient is held by nothing else."""
        return False

    def release(self) -> None:
        """Forget the saved values; they are not needed again."""

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Arithmetic(Protocol):
    """What the tape needs of gradients: a sum, and the form in which hooks see them."""

    def add(self, first: Any, second: Any) -> Any: ...

    def shown(self, gradient: Any) -> Any: ...

    def taken(self, gradient: Any, like: Any) -> Any: ...


# --- whether to record ------------------------------------------------------------------------------------


class _Mode(threading.local):
    recording = True


mode = _Mode()


def is_recording() -> bool:
    """Whether calls are recorded in this thread."""
    return mode.recording


class _Recording:
    """Context manager and decorator that switches recording in this thread."""

    def __init__(self, recording: bool):
        self.recording = recording
        self.before: list[bool] = []

    def __enter__(self) -> None:
        self.before.append(mode.recording)
        mode.recording = self.recording

    def __exit__(self, *details: object) -> None:
        mode.recording = self.before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def switched(*args: Any, **keywords: Any) -> Any:
            with _Recording(self.recording):
                return function(*args, **keywords)

        return switched


def no_grad() -> _Recording:
    """`with tw.no_grad():` or `@tw.no_grad()`: nothing is recorded inside."""
    return _Recording(False)


def enable_grad() -> _Recording:
    """`with tw.enable_grad():` or `@tw.enable_grad()`: calls are recorded inside, also within `no_grad`."""
    return _Recording(True)


def set_grad_enabled(enabled: bool) -> _Recording:
    """`with tw.set_grad_enabled(flag):` records inside or not, as `flag` says."""
    return _Recording(bool(enabled))


# --- reverse accumulation ---------------------------------------------------------------------------------


class _Sum:
    """The gradients of one source that have arrived, added up in the order of arrival."""

    __slots__ = ("fresh", "value")

    def __init__(self, value: Any, fresh: bool):
        self.value = value
        self.fresh = fresh


Pending = dict[Origin, dict[int, _Sum]]


def accumulate(
    roots: Iterable[tuple[Source, Any]], arithmetic: Arithmetic, *, record: bool = False, retain: bool = False
) -> None:
    """Bring the gradients of `roots` to every leaf that they depend on."""
    roots = tuple(roots)
    order = _reachable(source[0] for source, _ in roots)
    pending = _start(roots, arithmetic)
    for origin in order:
        arrived = pending.pop(origin, None)
        if arrived is None:
            continue
        if origin.hooks:
            _run_hooks(origin.hooks, arrived, arithmetic)
        if isinstance(origin, Leaf):
            origin.accumulate(arrived[0].value, arrived[0].fresh, record)
        else:
            _pull(origin, arrived, pending, arithmetic, record, retain)


def gradients(
    roots: Iterable[tuple[Source, Any]],
    wanted: Sequence[Source],
    arithmetic: Arithmetic,
    *,
    record: bool = False,
    retain: bool = False,
) -> list[Any]:
    """The gradients of the `wanted` sources; None for one that the roots do not depend on."""
    roots = tuple(roots)
    order = _reachable(source[0] for source, _ in roots)
    leading, ends = _leading_to({origin for origin, _ in wanted}, order)
    pending = _start(roots, arithmetic)
    captured: dict[Source, Any] = {}
    targets = set(wanted)
    for origin in order:
        arrived = pending.pop(origin, None)
        if arrived is None or origin not in leading:
            continue
        if origin.hooks:
            _run_hooks(origin.hooks, arrived, arithmetic)
        for result, total in arrived.items():
            if (origin, result) in targets:
                captured[origin, result] = total.value
        if isinstance(origin, Node) and origin not in ends:
            _pull(origin, arrived, pending, arithmetic, record, retain)
    return [captured.get(source) for source in wanted]


def _start(roots: Iterable[tuple[Source, Any]], arithmetic: Arithmetic) -> Pending:
    pending: Pending = {}
    for source, gradient in roots:
        _arrive(pending, source, gradient, False, arithmetic)
    return pending


def _reachable(origins: Iterable[Origin]) -> list[Origin]:
    """Everything that the origins depend on, users before operands, without recursion."""
    seen = set(origins)
    stack = list(seen)
    while stack:
        for source in stack.pop().inputs:
            if source is not None and source[0] not in seen:
                seen.add(source[0])
                stack.append(source[0])
    return sorted(seen, key=lambda origin: -origin.sequence)


def _leading_to(wanted: set[Origin], order: list[Origin]) -> tuple[set[Origin], set[Origin]]:
    """The origins through which a wanted one is reached, and those of them below which there is none."""
    leading: set[Origin] = set()
    ends: set[Origin] = set()
    for origin in reversed(order):
        deeper = any(source is not None and source[0] in leading for source in origin.inputs)
        if deeper or origin in wanted:
            leading.add(origin)
        if not deeper and origin in wanted:
            ends.add(origin)
    return leading, ends


def _run_hooks(hooks: dict[int, dict[int, Hook]], arrived: dict[int, _Sum], arithmetic: Arithmetic) -> None:
    for result, total in arrived.items():
        for hook in tuple(hooks.get(result, {}).values()):
            replacement = hook(arithmetic.shown(total.value))
            total.fresh = False  # the hook may have kept what it saw
            if replacement is not None:
                total.value = arithmetic.taken(replacement, total.value)


def _pull(
    node: Origin,
    arrived: dict[int, _Sum],
    pending: Pending,
    arithmetic: Arithmetic,
    record: bool,
    retain: bool,
) -> None:
    assert isinstance(node, Node)
    cotangents = {result: total.value for result, total in arrived.items()}
    pulled = node.backward(cotangents, record)
    for position, (source, gradient) in enumerate(zip(node.inputs, pulled, strict=True)):
        if source is not None and gradient is not None:
            _arrive(pending, source, gradient, node.is_fresh(position), arithmetic)
    if not retain:
        node.release()


def _arrive(pending: Pending, source: Source, gradient: Any, fresh: bool, arithmetic: Arithmetic) -> None:
    slots = pending.setdefault(source[0], {})
    total = slots.get(source[1])
    if total is None:
        slots[source[1]] = _Sum(gradient, fresh)
    else:
        total.value = arithmetic.add(total.value, gradient)
        total.fresh = True


def freed(name: str) -> DerivativeError:
    """The error for a second backward through a graph whose saved values are gone."""
    return DerivativeError(
        f"the values that {name} saved for its gradient are freed: the graph was already walked "
        "by backward() or "
        f"tw.grad(); pass retain_graph=True to the first call, or compute the result again"
    )
