"""Modules that hold modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tilewright.nn.module import Module, ModuleError


def _checked(module: Any, where: str) -> Module:
    if not isinstance(module, Module):
        remedy = "; create it first: nn.ReLU(), not nn.ReLU" if isinstance(module, type) else ""
        name = module.__qualname__ if isinstance(module, type) else f"a {type(module).__qualname__}"
        raise ModuleError(f"{where} holds modules, not {name}{remedy}")
    return module


class _Numbered(Module):
    """Modules named 0, 1, 2, …"""

    def append(self, module: Module) -> Any:
        """Add a module at the end."""
        self.add_module(str(len(self._modules)), _checked(module, type(self).__name__))
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Any:
        modules = list(self.children())
        if not isinstance(index, slice):
            return modules[index]
        part = type(self)()
        return part.extend(modules[index])

    def __setitem__(self, index: int, module: Module) -> None:
        names = list(self._modules)
        self._modules[names[index]] = _checked(module, type(self).__name__)


class Sequential(_Numbered):
    """Modules one after the other: `Sequential(a, b)(x)` is b(a(x)). Also of an `OrderedDict` of named
    modules.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, _checked(module, "Sequential"))
        else:
            self.extend(modules)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input


class ModuleList(_Numbered):
    """A list of modules, each registered."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        modules = [m for m in self._modules.values() if m is not None]
        modules.insert(index, _checked(module, "ModuleList"))
        self._modules.clear()
        self.extend(modules)


class ModuleDict(Module):
    """Modules by name, each registered."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        for name, module in modules.items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, _checked(module, "ModuleDict"))

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> Any:
        return self._modules.keys()

    def values(self) -> Any:
        return self._modules.values()

    def items(self) -> Any:
        return self._modules.items()
