"""Module: parameters, buffers and modules in a tree, with names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from tilewright.autograd.tape import HookHandle, no_grad
from tilewright.errors import ArgumentError, UserError
from tilewright.nn.parameter import Parameter
from tilewright.tensor.creation import as_tensor
from tilewright.tensor.exchange import Portable, named_targets
from tilewright.tensor.gradients import clear_gradient
from tilewright.tensor.operators import convert
from tilewright.tensor.tensor import Tensor


class ModuleError(UserError):
    """A module is built or used in a way that it cannot be."""


class _AttributeError(ModuleError, AttributeError):
    """A module has no such attribute."""


class StateError(ModuleError, KeyError):
    """A state_dict does not fit the module that loads it."""

    def __str__(self) -> str:
        return str(self.args[0])


class Incompatible(NamedTuple):
    """What `load_state_dict(strict=False)` did not find, and what it did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module(Portable):
    """Base of everything with parameters: subclass it, call `super().__init__()`, and define `forward`.

    Attributes that are `Parameter`s or `Module`s are registered under their names; `register_buffer` adds
    tensors that are saved and not trained.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]
    _before: dict[int, Any]
    _after: dict[int, Any]

    def __init__(self) -> None:
        object.__setattr__(self, "training", True)
        for name in ("_parameters", "_buffers", "_modules", "_before", "_after"):
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_transient", set())

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """What the module computes."""
        raise ModuleError(f"{type(self).__name__} defines no forward; write def forward(self, x): return ...")

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        _initialised(self)
        if not self._before and not self._after:
            return self.forward(*args, **keywords)
        for hook in tuple(self._before.values()):
            replaced = hook(self, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        result = self.forward(*args, **keywords)
        for hook in tuple(self._after.values()):
            replaced = hook(self, args, result)
            result = result if replaced is None else replaced
        return result

    # --- attributes -----------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)):
            _initialised(self)
            self._forget(name)
            (self._parameters if isinstance(value, Parameter) else self._modules)[name] = value  # type: ignore[index]
            return
        registered = self._registered(name)
        if registered is None:
            object.__setattr__(self, name, value)
        elif value is None or (registered is self._buffers and isinstance(value, Tensor)):
            registered[name] = value
        else:
            kind = "buffer" if registered is self._buffers else "parameter or module"
            raise ModuleError(
                f"{type(self).__name__}.{name} is a {kind} and cannot become a "
                f"{type(value).__qualname__}; delete it "
                f"first (del module.{name}), or write into it: module.{name}.copy_(value)"
            )

    def _registered(self, name: str) -> dict[str, Any] | None:
        for kind in ("_parameters", "_buffers", "_modules"):
            table = self.__dict__.get(kind)
            if table is not None and name in table:
                return table
        return None

    def _forget(self, name: str) -> None:
        self.__dict__.pop(name, None)
        table = self._registered(name)
        if table is not None:
            del table[name]

    def __getattr__(self, name: str) -> Any:
        table = self._registered(name)
        if table is not None:
            return table[name]
        if name in ("_parameters", "_buffers", "_modules", "_before", "_after", "training"):
            _initialised(self)
        raise _AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if self._registered(name) is not None:
            self._forget(name)
        else:
            object.__delattr__(self, name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter; None reserves the name for one that is absent."""
        _initialised(self)
        _check_name(self, name)
        self._forget(name)
        self._parameters[name] = parameter

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module's state and is not trained; `persistent` ones are saved."""
        _initialised(self)
        _check_name(self, name)
        self._forget(name)
        self._buffers[name] = tensor
        if persistent:
            self._transient.discard(name)
        else:
            self._transient.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a module under a name that need not be an identifier."""
        _initialised(self)
        _check_name(self, name)
        self._forget(name)
        self._modules[name] = module

    register_module = add_module

    # --- the tree -------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below, each once, with dotted names."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            children = [(k, m) for k, m in module._modules.items() if m is not None]
            stack.extend((_joined(name, k), m) for k, m in reversed(children))

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, each once."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(self, kind: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        _initialised(self)
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else ((prefix, self),):
            for name, value in getattr(module, kind).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield _joined(path, name), value

    def get_submodule(self, path: str) -> Module:
        """The module at a dotted name. Raises `AttributeError`."""
        module = self
        for part in path.split(".") if path else ():
            found = module._modules.get(part)
            if found is None:
                raise _AttributeError(f"{type(module).__name__} has no module {part!r} (in {path!r})")
            module = found
        return module

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every module, children first."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    # --- mode -----------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        for module in self.modules():
            object.__setattr__(module, "training", bool(mode))
        return self

    def eval(self) -> Self:
        return self.train(False)

    def requires_grad_(self, wanted: bool = True) -> Self:
        for parameter in self.parameters():
            parameter.requires_grad_(wanted)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or overwrite them with zeros."""
        for parameter in self.parameters():
            clear_gradient(parameter, set_to_none)

    def to(self, *targets: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False) -> Self:
        """Bring parameters and buffers to a device, floating ones to a dtype, in place: parameters keep their
        identity, so an optimizer goes on with them.

        `module.to("cuda")`, `module.to(tw.bfloat16)`, `module.to("cuda:1", tw.float16)`, `module.to(tensor)`.
        Raises `TargetError` where there is no such device, `MemoryLimitError`, `ArgumentError`.
        """
        place, kind = named_targets(targets, device, dtype)
        if kind is not None and not kind.is_float:
            raise ArgumentError(f"a module's parameters are floating-point, not {kind.name}")
        for _, tensor in (*self.named_parameters(), *self.named_buffers()):
            _bring(tensor, place, kind if tensor.dtype.is_float else None, non_blocking)
        return self

    # fmt: off
    def float(self) -> Self: return self.to("float32")
    def double(self) -> Self: return self.to("float64")
    def half(self) -> Self: return self.to("float16")
    def bfloat16(self) -> Self: return self.to("bfloat16")
    # fmt: on

    # --- hooks ----------------------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(module, args)` before `forward`; what it returns replaces the arguments."""
        return _add_hook(self._before, hook)

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(module, args, result)` after `forward`; what it returns replaces the result."""
        return _add_hook(self._after, hook)

    # --- state ----------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> OrderedDict[str, Tensor]:
        """Parameters and persistent buffers by dotted name, sharing memory, in torch's order."""
        _initialised(self)
        state: OrderedDict[str, Tensor] = OrderedDict()
        self._collect_state(prefix, state)
        return state

    def _collect_state(self, prefix: str, state: OrderedDict[str, Tensor]) -> None:
        for name, value in (*self._parameters.items(), *self._buffers.items()):
            if value is not None and name not in self._transient:
                state[prefix + name] = value.detach()
        for name, module in self.named_children():
            module._collect_state(f"{prefix}{name}.", state)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Incompatible:
        """Copy values into parameters and buffers of the same names.

        Raises `StateError` for names that are missing or unexpected (if `strict`) and for shapes that
        differ; nothing is changed then.
        """
        own = self.state_dict()
        given = {name: as_tensor(value).detach() for name, value in state.items()}
        missing = [name for name in own if name not in given]
        unexpected = [name for name in given if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        for name in own:
            if name in given and own[name].shape != given[name].shape:
                problems.append(f"{name} has shape {given[name].shape}, the module's has {own[name].shape}")
        if problems:
            lines = "\n  ".join(problems)
            raise StateError(f"the state_dict does not fit {type(self).__name__}:\n  {lines}")
        for name, target in own.items():
            if name in given:
                target.copy_(convert(given[name], target.dtype))
        return Incompatible(missing, unexpected)

    # --- text -----------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's text."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        body = "\n  ".join(([extra] if extra else []) + lines)
        return f"{type(self).__name__}(\n  {body}\n)"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]


def _bring(tensor: Tensor, device: Any, dtype: Any, non_blocking: bool) -> None:
    """Another device or dtype for a tensor in place, its gradient with it."""
    gradient = tensor.grad
    with no_grad():
        brought = tensor.detach().to(device=device, dtype=dtype, non_blocking=non_blocking)
        if brought._array is tensor._array:
            return
        new_gradient = None if gradient is None else gradient.detach().to(brought)
    if tensor.grad is not None:
        tensor.grad = None
    tensor._array, tensor._version = brought._array, brought._version
    if new_gradient is not None:
        tensor.grad = new_gradient


def _add_hook(hooks: dict[int, Any], hook: Callable[..., Any]) -> HookHandle:
    handle = HookHandle(hooks)
    hooks[handle.number] = hook
    return handle


def _initialised(module: Module) -> None:
    if "_parameters" not in module.__dict__:
        raise ModuleError(
            f"{type(module).__name__}.__init__ does not call super().__init__(); call it first, "
            "before modules and "
            f"parameters are assigned"
        )


def _check_name(module: Module, name: str) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise ModuleError(
            f"{name!r} cannot be the name of a parameter or module: names are texts without dots"
        )
    if hasattr(type(module), name):
        raise ModuleError(f"{type(module).__name__} already has an attribute {name!r}; choose another name")


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
