"""Tensors in safetensors files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.dsl.dtypes import DType, as_dtype
from tilewright.errors import ArgumentError
from tilewright.tensor.creation import as_array
from tilewright.tensor.tensor import Tensor

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def save(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors by name (a module's `state_dict()`) as a safetensors file, whole or not at all.

    Raises `ArgumentError` for what is no tensor.
    """
    from safetensors.numpy import save as serialize

    arrays = {name: _array(name, value) for name, value in tensors.items()}
    data = serialize(arrays, dict(metadata) if metadata else None)
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=".saving-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _array(name: str, value: Any) -> np.ndarray:
    if not isinstance(name, str) or not isinstance(value, (Tensor, np.ndarray)):
        raise ArgumentError(
            f"tw.save takes tensors by name, as in tw.save(model.state_dict(), path); {name!r} is a "
            f"{type(value).__qualname__}"
        )
    return np.asarray(as_array(value), order="C")


def load(path: str | os.PathLike[str], device: Any = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on a device.

    Raises `ArgumentError` where the file is none, or is damaged.
    """
    from safetensors import SafetensorError, deserialize

    with open(path, "rb") as file:
        data = file.read()
    try:
        entries = deserialize(data)
    except SafetensorError as error:
        raise ArgumentError(f"{os.fspath(path)} is no safetensors file, or is damaged: {error}") from None
    return {name: _tensor(name, entry).to(device=device) for name, entry in entries}


def _tensor(name: str, entry: Mapping[str, Any]) -> Tensor:
    code = entry["dtype"]
    if code not in _CODES:
        raise ArgumentError(f"{name!r} has the dtype {code}, which the library does not compute with")
    dtype: DType = as_dtype(_CODES[code])
    return Tensor._make(np.frombuffer(bytearray(entry["data"]), dtype.numpy).reshape(entry["shape"]))
