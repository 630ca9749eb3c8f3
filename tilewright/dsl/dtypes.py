"""Element types: their names, NumPy storage, and how two of them combine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tilewright.errors import DTypeError


@dataclass(frozen=True)
class DType:
    """One element type. `kind` is one of "float", "int", "uint", "bool", and for arrays of pairs of real
    numbers "complex"; `bits` is the storage width.
    """

    name: str
    short: str
    kind: str
    bits: int

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    @property
    def is_complex(self) -> bool:
        return self.kind == "complex"

    @property
    def real(self) -> DType:
        """The type of the real part."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    @property
    def itemsize(self) -> int:
        return max(1, self.bits // 8)

    @property
    def numpy(self) -> np.dtype:
        return _numpy_dtype(self.name)

    @property
    def compute(self) -> DType:
        """The type that arithmetic runs in: floats of 8 and 16 bits are widened on reading and narrowed on
        writing.
        """
        return float32 if self.is_float and self.bits < 32 else self

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest value of an integer type."""
        if self.kind == "uint":
            return 0, 2**self.bits - 1
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    @property
    def significant_bits(self) -> int:
        """Of a number of a floating-point type, the leading one among them."""
        return _SIGNIFICANT_BITS[self.name]

    @property
    def epsilon(self) -> float:
        """The distance of 1 from the next number of a floating-point type."""
        return 2.0 ** (1 - self.significant_bits)

    def __repr__(self) -> str:
        return f"tilewright.{self.name}"

    def __str__(self) -> str:
        return self.short


float64 = DType("float64", "f64", "float", 64)
float32 = DType("float32", "f32", "float", 32)
float16 = DType("float16", "f16", "float", 16)
bfloat16 = DType("bfloat16", "bf16", "float", 16)
float8_e4m3fn = DType("float8_e4m3fn", "f8e4m3fn", "float", 8)
float8_e5m2 = DType("float8_e5m2", "f8e5m2", "float", 8)
int64 = DType("int64", "i64", "int", 64)
int32 = DType("int32", "i32", "int", 32)
int16 = DType("int16", "i16", "int", 16)
int8 = DType("int8", "i8", "int", 8)
uint8 = DType("uint8", "u8", "uint", 8)
bool_ = DType("bool", "bool", "bool", 1)
complex64 = DType("complex64", "c64", "complex", 64)
complex128 = DType("complex128", "c128", "complex", 128)

FLOAT8 = (float8_e4m3fn, float8_e5m2)
ALL = (float64, float32, float16, bfloat16, *FLOAT8, int64, int32, int16, int8, uint8, bool_)
_SIGNIFICANT_BITS = {
    "float64": 53, "float32": 24, "float16": 11, "bfloat16": 8, "float8_e4m3fn": 4, "float8_e5m2": 3,
}  # fmt: skip
BY_NAME = {d.name: d for d in ALL} | {d.short: d for d in ALL}
COMPLEX = (complex64, complex128)
"""Not types of the language, in which a complex number is two real ones, but of arrays and Tensors."""
_COMPLEX_BY_NAME = {d.name: d for d in COMPLEX} | {d.short: d for d in COMPLEX}


@cache
def _numpy_dtype(name: str) -> np.dtype:
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


@cache
def _from_numpy(dtype: np.dtype) -> DType | None:
    known = BY_NAME.get(dtype.name)
    return known if known and dtype.isnative else None


def as_dtype(value: Any) -> DType:
    """The `DType` that a name, a NumPy dtype or a `DType` stands for.

    Raises `DTypeError` for types that the library does not compute with.
    """
    if isinstance(value, DType) and not value.is_complex:
        return value
    if isinstance(value, str) and value in BY_NAME:
        return BY_NAME[value]
    try:
        found = _from_numpy(np.dtype(value)) if not isinstance(value, DType) else None
    except TypeError:
        found = None
    if found is None:
        what = f"{value!r} is not a dtype of the language"
        if isinstance(value, DType):
            raise DTypeError(f"{what}, where a complex number is two real ones: write tw.complex(re, im)")
        raise DTypeError(f"{what}; use one of {', '.join(d.name for d in ALL)}")
    return found


def as_stored_dtype(value: Any) -> DType:
    """As `as_dtype`, the complex types as well."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in _COMPLEX_BY_NAME:
        return _COMPLEX_BY_NAME[value]
    try:
        name = np.dtype(value).name
    except TypeError:
        name = ""
    return _COMPLEX_BY_NAME.get(name) or as_dtype(value)


def stored(array: np.ndarray) -> DType | None:
    """The `DType` of an array's elements, complex ones among them; None if the library has none for it."""
    return _stored(array.dtype)


@cache
def _stored(dtype: np.dtype) -> DType | None:
    return _COMPLEX_BY_NAME.get(dtype.name) or _from_numpy(dtype)


def of_array(array: np.ndarray) -> DType | None:
    """The `DType` of a NumPy array, or None if the language has none for it."""
    return _from_numpy(array.dtype)


_SIGNED = (int8, int16, int32, int64)


def promote(first: DType, second: DType) -> DType:
    """The type in which two operands meet.

    Within a kind as NumPy has it; a float and an integer meet in the float (as torch and JAX have it, so
    that int64 labels never turn a float32 loss into float64); float16 and bfloat16 meet in float32. Both
    float8 types meet nowhere, as in NumPy, torch and JAX: raises `DTypeError`.
    """
    if first == second:
        return first
    if first.is_float or second.is_float:
        floats = [d for d in (first, second) if d.is_float]
        if len(floats) == 1:
            return floats[0]
        wide = max(floats, key=lambda d: d.bits)
        if wide.bits == 8:
            raise DTypeError(
                f"{first.name} and {second.name} have no dtype in which they meet; say it, as in "
                "tw.cast(x, tw.float32), which a product is as fast with"
            )
        return float32 if {d.bits for d in floats} == {16} else wide
    if first.is_bool or second.is_bool:
        return second if first.is_bool else first
    if first.kind != second.kind:
        unsigned, signed = (first, second) if first.kind == "uint" else (second, first)
        return next(d for d in _SIGNED if d.bits >= signed.bits and d.bits > unsigned.bits)
    return first if first.bits >= second.bits else second
