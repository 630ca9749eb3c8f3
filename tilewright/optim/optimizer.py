"""Optimizer: parameter groups, state that can be saved, and the step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.autograd.tape import enable_grad, no_grad
from tilewright.errors import ArgumentError, ShapeError
from tilewright.op.op import Op
from tilewright.runtime import capturing
from tilewright.tensor.creation import as_tensor, full
from tilewright.tensor.gradients import clear_gradient
from tilewright.tensor.tensor import Tensor
from tilewright.tensor.updates import Update

Group = dict[str, Any]


class Optimizer:
    """Base of the optimizers: subclasses give `defaults` and `update`.

    `params` are tensors, or groups: dicts with "params" and options of their own.
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]):
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._updates: dict[tuple[Tensor, Op], Update] = {}
        self._places: dict[Tensor, type] = {}
        if isinstance(params, (Tensor, Mapping)):
            kind = type(params).__qualname__
            raise ArgumentError(f"params is an iterable of tensors or of groups, not one {kind}: [tensor]")
        given = list(params)
        if not given:
            raise ArgumentError("the optimizer got no parameters; was the iterator used up before?")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own; options that it does not name are the defaults."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        unknown = [name for name in group if name != "params" and name not in self.defaults]
        if unknown:
            known = ", ".join(self.defaults)
            raise ArgumentError(
                f"{type(self).__name__} has no option {unknown[0]!r}; its options are {known}"
            )
        seen = {id(p) for g in self.param_groups for p in g["params"]}
        for param in params:
            self._check(param, seen)
            seen.add(id(param))
        self.param_groups.append({**self.defaults, **group, "params": params})

    def _check(self, param: Any, seen: set[int]) -> None:
        if not isinstance(param, Tensor):
            raise ArgumentError(f"parameters are tensors, not {type(param).__qualname__}")
        if not param.is_leaf:
            raise ArgumentError("an optimizer trains leaves, and this tensor was computed; use x.detach()")
        if id(param) in seen:
            raise ArgumentError("a parameter is given twice; it would be stepped twice")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or overwrite them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                clear_gradient(param, set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient; gives what `closure` (which computes the loss anew)
        gives.
        """
        loss = None
        self._watch()
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    gradient = param.grad
                    if gradient is not None:
                        state = self.state.setdefault(param, {})
                        if self._places.get(param) is not type(param._array):
                            self._follow(param, state)
                        self.update(param, gradient, state, group)
        return loss

    def _watch(self) -> None:
        """In a function that becomes a graph options stay as they are, and the graph looks after that."""
        function = capturing.running()
        if function is None:
            return
        for number, group in enumerate(self.param_groups):
            for option in group:
                if option != "params":
                    what = f"the option {option!r} of {type(self).__name__}'s group {number}"
                    function.watch(what, functools.partial(_told, group, option))

    def _follow(self, param: Tensor, state: dict[str, Any]) -> None:
        """Bring a parameter's state to where the parameter went."""
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = value.to(param.device)
        self._places[param] = type(param._array)

    def update(self, param: Tensor, gradient: Tensor, state: dict[str, Any], group: Group) -> None:
        """Move one parameter, in place."""
        raise NotImplementedError

    def write(
        self, op: Op, operands: Sequence[Tensor], out: Sequence[Tensor], scalars: Mapping[str, float],
        **constants: Any,
    ) -> None:  # fmt: skip
        """The results of an op over Tensors, a parameter first. What steps repeat is kept ready."""
        update = self._updates.get((out[0], op))
        if update is None:
            update = self._updates[out[0], op] = Update(op)
        update(operands, out, scalars, constants)

    # --- state ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """{"state": by parameter number, "param_groups": options and parameter numbers}, as torch has it."""
        numbers = self._numbers()
        groups = [
            {**{k: v for k, v in g.items() if k != "params"}, "params": [numbers[id(p)] for p in g["params"]]}
            for g in self.param_groups
        ]
        return {"state": {numbers[id(p)]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

    def _numbers(self) -> dict[int, int]:
        params = [p for g in self.param_groups for p in g["params"]]
        return {id(p): number for number, p in enumerate(params)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken. Raises `ArgumentError` or `ShapeError` where it
        does not fit.
        """
        groups = state_dict["param_groups"]
        sizes = [len(g["params"]) for g in self.param_groups]
        if [len(g["params"]) for g in groups] != sizes:
            found = [len(g["params"]) for g in groups]
            raise ArgumentError(
                f"the state has groups of {found} parameters, the optimizer has groups of {sizes}"
            )
        params = {n: p for g, own in zip(groups, self.param_groups, strict=True)
                  for n, p in zip(g["params"], own["params"], strict=True)}  # fmt: skip
        state: dict[Tensor, dict[str, Any]] = {}
        for number, values in state_dict["state"].items():
            param = params[number]
            state[param] = {name: _loaded(name, value, param) for name, value in values.items()}
        for group, own in zip(groups, self.param_groups, strict=True):
            for name, value in group.items():
                if name != "params":
                    _set(own, name, value)
        self.state = state

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_updates": {}, "_places": {}}  # what is kept ready is of this process

    def __repr__(self) -> str:
        lines = []
        for number, group in enumerate(self.param_groups):
            options = ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
            lines.append(f"  group {number}: {len(group['params'])} parameters, {options}")
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


def count(state: dict[str, Any], param: Tensor, capturable: bool) -> None:
    """One step more in `state["step"]`: a number, or if `capturable` a Tensor where the parameter lies."""
    step = state["step"]
    if capturable:
        if not isinstance(step, Tensor):
            state["step"] = step = full((), float(step), dtype="float32", device=param.device)
        step.add_(1.0)
        return
    capturing.refuse(
        "its optimizer counts steps in Python, and every run of the graph would be the same step",
        "make the optimizer with capturable=True, which counts on the device",
    )
    state["step"] = (int(step.item()) if isinstance(step, Tensor) else step) + 1


def _told(group: Group, option: str) -> str:
    """An option's value for a comparison: of a Tensor, which one it is."""
    value = group[option]
    return f"Tensor {id(value):#x}" if isinstance(value, Tensor) else repr(value)


def _set(group: Group, option: str, value: Any) -> None:
    """An option's value; a Tensor, which a graph may read, stays the one that it is."""
    own = group.get(option)
    if isinstance(own, Tensor):
        with no_grad():
            own.copy_(as_tensor(value, dtype=own.dtype, device=own.device))
    else:
        group[option] = copy.deepcopy(value)


def _loaded(name: str, value: Any, param: Tensor) -> Any:
    if not isinstance(value, (Tensor, np.ndarray)):
        return value
    tensor = as_tensor(value, device=param.device).detach().clone()
    if tensor.ndim and tensor.shape != param.shape:
        raise ShapeError(f"the saved {name} has shape {tensor.shape}, the parameter {param.shape}")
    return tensor


def checked(name: str, value: Any, low: float, high: float = float("inf")) -> Any:
    """`value` if low ≤ value < high. Raises `ArgumentError`."""
    if not low <= value < high:
        raise ArgumentError(f"{name} is at least {low} and less than {high}, not {value}")
    return value
