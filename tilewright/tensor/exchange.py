"""What a Tensor is to everything else: devices, NumPy, other libraries, Python's numbers, text, pickles."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.autograd.tape import Leaf
from tilewright.dsl import dtypes
from tilewright.dsl.dtypes import as_stored_dtype
from tilewright.errors import ArgumentError, DerivativeError, DeviceError, DTypeError, ShapeError
from tilewright.op import storage
from tilewright.op.binding import where
from tilewright.runtime import dlpack
from tilewright.runtime.devices import CPU, Array, Device, is_device
from tilewright.tensor import operators
from tilewright.tensor.operators import convert
from tilewright.tensor.record import Value
from tilewright.tensor.views import Move, apply_view


class Portable:
    """What has a `to` can be brought to the CPU and to a CUDA device."""

    __slots__ = ()

    def cpu(self: Any) -> Any:
        """This on the CPU, where it may be already."""
        return self.to(CPU)

    def cuda(self: Any, device: Any = None, non_blocking: bool = False) -> Any:
        """This on a CUDA device, the current one unless told. Raises `TargetError` where there is none."""
        place = Device("cuda", device) if device is None or isinstance(device, int) else Device(device)
        return self.to(place, non_blocking=non_blocking)


class Exchange(Portable, Value):
    """The part of `Tensor` that brings values in and out."""

    __slots__ = ()

    # --- devices and dtypes ---------------------------------------------------------------------------------

    @property
    def device(self) -> Device:
        """Where the memory lies."""
        return storage.device_of(self._array)

    @property
    def is_cuda(self) -> bool:
        return isinstance(self._array, Array)

    def to(
        self: Any, *targets: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False,
        copy: bool = False,
    ) -> Any:  # fmt: skip
        """This tensor on another device, in another dtype, or as another tensor is (differentiable).

        `x.to("cuda")`, `x.to("cuda:1", tw.float16)`, `x.to(other)`. It is itself where nothing changes,
        unless `copy`. With `non_blocking` copies go on behind Python's back: from memory of `pin_memory()`,
        and to the CPU, where the values are not there before `tw.cuda.synchronize()`. Raises `TargetError`
        where there is no such device, `MemoryLimitError`, `ArgumentError`.
        """
        place, kind = named_targets(targets, device, dtype)
        before = self
        to_gpu = place is not None and place.type != "cpu"
        if kind is not None and not to_gpu:
            self = convert(self, kind)
        if place is not None:
            self = _moved(self, storage.wanted_device(place), non_blocking)
        if kind is not None:
            self = convert(self, kind)
        return self.clone() if copy and self is before else self

    def pin_memory(self: Any) -> Any:
        """A copy in page-locked memory of the CPU, which `to("cuda", non_blocking=True)` copies from while
        Python goes on. Raises `TargetError` where there is no CUDA device.
        """
        from tilewright.runtime.cuda import pinned

        source = storage.host(self._array)
        made = pinned.empty(source.shape, source.dtype)
        np.copyto(made, source)
        return type(self)._make(made)

    def is_pinned(self) -> bool:
        """Whether the memory is page-locked, by `pin_memory`."""
        if self.is_cuda:
            return False
        from tilewright.runtime.cuda import pinned

        return pinned.is_pinned(self._array)

    # --- to and from other libraries ------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The array, sharing memory. Raises `DerivativeError` while the tensor requires a gradient, and
        `DeviceError` where it does not lie on the CPU: write `x.cpu().numpy()`.
        """
        if self._origin is not None:
            raise DerivativeError(
                "numpy() of a tensor that requires a gradient would let NumPy change or use "
                "values behind the tape's "
                "back; write x.detach().numpy()"
            )
        if isinstance(self._array, Array):
            raise DeviceError(
                f"{where('numpy')}: this tensor lies on {self.device}, where NumPy cannot reach it; copy it: "
                "x.cpu().numpy()"
            )
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError("a conversion to another dtype needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        """`np.exp(tensor)` and `array + tensor`: the language's function of that name, on Tensors."""
        found = operators.of_numpy(function.__name__) if method == "__call__" and not keywords else None
        if found is None:
            raise ArgumentError(
                f"np.{function.__name__} works on arrays: write it with tw functions, or pass "
                f"x.detach().numpy()"
            )
        return found(*inputs)

    def __dlpack__(self, **keywords: Any) -> Any:
        if not isinstance(self._array, Array):
            return dlpack.capsule(self.numpy(), **keywords)
        from tilewright.runtime.cuda import dlpack as shared

        array, place = self._shared("__dlpack__"), keywords.get("dl_device")
        if place is not None and tuple(place) != self.__dlpack_device__():
            raise BufferError(f"this tensor lies on {self.device}; bring it to where it is wanted first")
        return shared.capsule(
            storage.copied(array) if keywords.get("copy") else array, keywords.get("stream")
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        if not isinstance(self._array, Array):
            return self._array.__dlpack_device__()
        from tilewright.runtime.cuda import dlpack as shared

        return shared.CUDA, self.device.index or 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How CuPy, Numba and torch share the memory. Raises `AttributeError` on the CPU."""
        if not self.is_cuda:
            raise AttributeError("a tensor on the CPU has no __cuda_array_interface__")
        return self._shared("__cuda_array_interface__").__cuda_array_interface__

    def _shared(self, what: str) -> Any:
        """The array on a device that another library is about to use."""
        if self._origin is not None:
            raise DerivativeError(
                f"{what} of a tensor that requires a gradient would let others change or use values behind "
                "the tape's back; pass x.detach()"
            )
        return self._array

    # --- to Python ------------------------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a tensor of one element, as a Python number. Waits for a device."""
        if self._array.size != 1:
            raise ShapeError(
                f"item() needs a tensor of one element, this one has shape {self._array.shape}; use tolist()"
            )
        array = storage.host(self._array)
        return array.item() if array.dtype.kind != "V" else float(array.reshape(()))

    def tolist(self) -> Any:
        """The values as nested lists. Waits for a device."""
        return storage.host(self._array).tolist()

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ShapeError(
                f"the truth value of a tensor of shape {self._array.shape} is ambiguous; write x.any() or "
                "x.all()"
            )
        return bool(storage.host(self._array).reshape(()))

    def __float__(self) -> Any:
        return float(self.item())

    def __int__(self) -> Any:
        return int(self.item())

    def __index__(self: Any) -> Any:
        if self.dtype.is_float or self.dtype.is_bool:
            raise DTypeError(f"only integer tensors are indices, this one is {self.dtype.name}")
        return int(self.item())

    def __repr__(self: Any) -> str:
        array = storage.host(self._array)
        text = np.array2string(array, separator=", ", prefix="tensor(", threshold=1000, precision=4)
        notes = "" if self.device == CPU else f", device='{self.device}'"
        if self.dtype not in (dtypes.float32, dtypes.int64, dtypes.bool_):
            notes += f", dtype={self.dtype!r}"
        if isinstance(self._origin, Leaf):
            notes += ", requires_grad=True"
        elif self._origin is not None:
            notes += f", grad_fn={self._origin!r}"
        empty = f", shape={self.shape}" if array.size == 0 else ""
        return f"tensor({text}{empty}{notes})"

    # --- copies and pickles ---------------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        array = storage.host(self._array)
        place = () if self.device == CPU else (str(self.device),)
        return _rebuilt, (type(self), array, isinstance(self._origin, Leaf), *place)

    def __copy__(self) -> Any:
        return _rebuilt(type(self), self._array, isinstance(self._origin, Leaf))

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        if not self.is_leaf:
            raise DerivativeError("only leaves can be deep-copied; use y.detach().clone()")
        copied = memo[id(self)] = _rebuilt(type(self), storage.copied(self._array), self.requires_grad)
        return copied


def _rebuilt(kind: type[Any], array: Any, requires_grad: bool, device: str = "cpu") -> Any:
    rebuilt = kind._make(array if device == "cpu" else storage.moved(array, storage.wanted_device(device)))
    return rebuilt.requires_grad_() if requires_grad else rebuilt


def named_targets(given: tuple[Any, ...], device: Any, dtype: Any) -> tuple[Device | None, Any]:
    """The device and the dtype that the arguments of `to` name. Raises `ArgumentError`."""
    place = None if device is None else Device(device)
    kind = None if dtype is None else as_stored_dtype(dtype)
    for target in given:
        if isinstance(target, Value):
            place, kind = storage.device_of(target._array), as_stored_dtype(target.dtype)  # type: ignore[attr-defined]
        elif is_device(target) or _is_number_of_a_device(target):
            place = Device("cuda", target) if isinstance(target, int) else Device(target)
        elif target is not None:
            kind = as_stored_dtype(target)
    return place, kind


def _is_number_of_a_device(target: Any) -> bool:
    return isinstance(target, int) and not isinstance(target, bool)


def _moved(tensor: Any, device: Device, non_blocking: bool) -> Any:
    before = storage.device_of(tensor._array)
    return tensor if before == device else apply_view(tensor, Move(device, before, non_blocking))
