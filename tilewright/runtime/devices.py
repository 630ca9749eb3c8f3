"""Where a Tensor's memory lies: `device("cpu")`, `device("cuda:1")`, and which device new Tensors lie on.

Nothing here looks for a device or imports a driver; `runtime.cuda` does, when it is first used.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from tilewright.errors import ArgumentError

PATTERN = re.compile(r"(cpu|cuda)(?::(\d+))?")


class Device:
    """A place where Tensors lie: `tw.device("cpu")`, `tw.device("cuda")`, `tw.device("cuda", 1)`.

    Equal to its text, so that `x.device == "cpu"` may be written. As a context manager it says where new
    Tensors of this thread lie: `with tw.device("cuda"): x = tw.zeros(3)`. "cuda" alone is the current CUDA
    device, whichever that is when a Tensor is made. Raises `ArgumentError` for anything else.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __new__(cls, name: Any, index: int | None = None) -> Device:
        if isinstance(name, Device) and index is None:
            return name
        found = PATTERN.fullmatch(name) if isinstance(name, str) else None
        if found is None or (index is not None and (found[2] is not None or index < 0)):
            given = repr(name) if index is None else f"{name!r}, {index!r}"
            raise ArgumentError(
                f'there is no device {given}; devices are "cpu", "cuda", "cuda:0", "cuda:1", …'
            )
        self = object.__new__(cls)
        number = found[2] if index is None else index
        object.__setattr__(self, "type", found[1])
        object.__setattr__(self, "index", None if number is None or found[1] == "cpu" else int(number))
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a device does not change; make another: tw.device(...)")

    def __reduce__(self) -> Any:
        return Device, (str(self),)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, (Device, str)) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __enter__(self) -> Device:
        _thread.chosen = (*_thread.chosen, self)
        return self

    def __exit__(self, *details: object) -> None:
        _thread.chosen = _thread.chosen[:-1]


device = Device
"""Under the name that users know: `tw.device("cuda:0")`."""


class _Thread(threading.local):
    chosen: tuple[Device, ...] = ()
    """What this thread's `with tw.device(...)` say, the innermost last."""


_thread = _Thread()
CPU = Device("cpu")
_default = CPU


def get_default_device() -> Device:
    """Where new Tensors lie: what `with tw.device(...)` says, else what `set_default_device` said."""
    return _thread.chosen[-1] if _thread.chosen else _default


def set_default_device(device: Any) -> None:
    """Where new Tensors lie from here on, in all threads. Raises `ArgumentError` for what is no device."""
    global _default
    _default = CPU if device is None else Device(device)


def is_device(target: Any) -> bool:
    """Whether `to(target)` names a device, and not a dtype."""
    return isinstance(target, Device) or (isinstance(target, str) and PATTERN.fullmatch(target) is not None)


class Array:
    """Base of arrays that lie on a device: what the layers above ask of NumPy's, under its names.

    The elements cannot be reached from Python; `runtime.cuda.arrays` has the rest.
    """

    __slots__ = ()

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In bytes, as NumPy has them."""
    dtype: Any
    device: Device

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
