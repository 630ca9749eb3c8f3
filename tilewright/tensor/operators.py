"""What operators and methods of Tensors run: generated kernels, chosen by the operands' kinds.

Python numbers are weakly typed, as in the language: they take the dtype of the Tensor that they meet,
except that a float makes an integer Tensor float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.dsl.dtypes import (
    DType,
    as_stored_dtype,
    complex64,
    complex128,
    float32,
    float64,
    int64,
    stored,
)
from tilewright.dsl.foreign import row_of_numpy
from tilewright.errors import ArgumentError, DTypeError, ShapeError
from tilewright.op.binding import as_operand, where
from tilewright.op.pairs import is_complex_array
from tilewright.tensor import families
from tilewright.tensor.record import Value, call
from tilewright.tensor.views import Permute, Repeat, Reshape, apply_view, repeated_axes


def pointwise(row: str, *operands: Any) -> Any:
    """A row of the scalar table on Tensors, arrays and numbers."""
    for operand in operands:
        if not isinstance(operand, Value):
            return _with_numbers(row, operands)
    return call(families.pointwise(row, (False,) * len(operands)), operands)[0]


def _with_numbers(row: str, operands: tuple[Any, ...]) -> Any:
    if row != "where" and all(map(_is_plain, operands)):
        numbers = tuple([not isinstance(o, Value) for o in operands])
        scalars = {n: o for n, o, number in zip(families.OPERANDS, operands, numbers, strict=False) if number}
        given = tuple([o for o, number in zip(operands, numbers, strict=True) if not number])
        return call(families.pointwise(row, numbers), given, scalars)[0]
    if row != "where" and all(map(_is_whole, operands)):
        dtype = next(_dtype(o) for o in operands if isinstance(o, Value))
        given = tuple([o if isinstance(o, Value) else _typed_number(o, dtype, row) for o in operands])
        return call(families.pointwise(row, (False,) * len(operands)), given)[0]
    tiles: list[Any] = [
        o if isinstance(o, (Value, complex)) or families.is_number(o) else as_stored_operand(o, row)
        for o in operands
    ]
    known = [_dtype(o) for o in tiles if not isinstance(o, complex) and not families.is_number(o)]
    tiles = [_typed_complex(o, known) if type(o) is complex else o for o in tiles]
    dtypes = [_dtype(o) for o in tiles if not families.is_number(o)]
    values = dtypes[1:] if row == "where" and not families.is_number(tiles[0]) and len(dtypes) > 1 else dtypes
    has_float = any(d.is_float or d.is_complex for d in values) or any(isinstance(o, float) for o in tiles)
    numbers = []
    for position, operand in enumerate(tiles):
        number = families.is_number(operand)
        if number and (not has_float or (row == "where" and position == 0)):
            integers = [d for d in values if d.is_integer]
            tiles[position] = _typed_number(operand, integers[0] if integers else int64, row)
            number = False
        numbers.append(number)
    scalars = {n: o for n, o, number in zip(families.OPERANDS, tiles, numbers, strict=False) if number}
    given = tuple(o for o, number in zip(tiles, numbers, strict=True) if not number)
    return call(families.pointwise(row, tuple(numbers)), given, scalars)[0]


def _is_plain(operand: Any) -> bool:
    """Whether an operand is a Tensor of floats, or a number that takes its dtype from those."""
    if isinstance(operand, Value):
        return operand._array.dtype.kind == "f"
    return type(operand) is float or type(operand) is int


def _is_whole(operand: Any) -> bool:
    """Whether an operand is a Tensor of integers, or a number that takes its dtype from one."""
    if isinstance(operand, Value):
        return operand._array.dtype.kind in "iu"
    return type(operand) is int


@functools.lru_cache(maxsize=1024, typed=True)
def _typed_number(value: Any, dtype: DType, row: str) -> np.ndarray:
    """A whole number as a 0-d array of the integer dtype that it meets, not to be written to."""
    if isinstance(value, bool):
        return np.asarray(value)
    low, high = dtype.range
    if not low <= value <= high:
        raise DTypeError(
            f"{where(row)}: {value} does not fit {dtype.name}, the dtype of the other operand; "
            "convert that with "
            f".to(tw.int64), or write the number as a float"
        )
    number = np.asarray(value, dtype.numpy)
    number.flags.writeable = False
    return number


def _typed_complex(value: complex, dtypes: Sequence[DType]) -> np.ndarray:
    """A complex number in the width of what it meets."""
    wide = any(d.real == float64 for d in dtypes)
    return np.asarray(value, (complex128 if wide else complex64).numpy)


def as_stored_operand(value: Any, what: str) -> np.ndarray:
    """An operand of an operator that is no Tensor, as an array; a complex one as well."""
    return np.asarray(value) if is_complex_array(value) else as_operand(value, "operand", what)


def parts(name: str, *values: Any) -> Any:
    """A function that takes complex numbers apart or puts them together, such as `real`."""
    if name == "complex" and len(values) == 2:
        for value in values:
            if _dtype(value).is_complex:
                raise DTypeError(f"{where(name)} takes two real tensors; add complex ones with +")
    return call(families.parts(name, len(values)), values)[0]


def _dtype(value: Any) -> DType:
    dtype = stored(value._array if isinstance(value, Value) else value)
    assert dtype is not None
    return dtype


def power(base: Any, exponent: Any) -> Any:
    """base ** exponent; small whole exponents and square roots are products and roots."""
    if not families.is_number(exponent) or isinstance(exponent, bool) or not isinstance(base, Value):
        return pointwise("pow", base, exponent)
    whole = isinstance(exponent, int) and _dtype(base).is_integer and abs(exponent) <= 64
    if isinstance(exponent, float) and _dtype(base).kind in ("int", "uint", "bool"):
        base = convert(base, float32)
    if whole or exponent in families.CHEAP_EXPONENTS:
        return call(families.power(exponent), (base,))[0]
    return pointwise("pow", base, exponent)


def convert(value: Value, dtype: Any) -> Any:
    """A Tensor in another dtype; itself if it has that dtype."""
    target, given = as_stored_dtype(dtype), _dtype(value)
    if given == target:
        return value
    if target.is_complex:
        halves = [convert(parts(name, value), target.real) for name in ("real", "imag")]
        return parts("complex", *(halves if given.is_complex else halves[:1]))
    if given.is_complex:
        raise DTypeError(
            f"{where('convert')}: {given.name} to {target.name} would lose the imaginary part; take x.real, "
            f"x.imag or x.abs() first"
        )
    return call(families.convert, (value,), constants={"dtype": target})[0]


def of_numpy(name: str) -> Callable[..., Any] | None:
    """What the NumPy function `name` is on Tensors, if the language has it."""
    if name in ("matmul", "power"):
        return matmul if name == "matmul" else power
    row = row_of_numpy(name)
    return None if row is None else functools.partial(pointwise, row.name)


# --- reductions -------------------------------------------------------------------------------------------


def axes_of(axes: Any, rank: int, what: str) -> tuple[int, ...]:
    """The axes that `dim=` names, counted from 0: an integer, several, or None for all."""
    if axes is None:
        return tuple(range(rank))
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    found = []
    for axis in given:
        if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
            raise ArgumentError(
                f"{where(what)}: dim is an integer, a tuple of integers, or None for all; got "
                f"{axis!r} (axis names "
                f"belong inside of ops)"
            )
        if not -rank <= axis < rank:
            raise ShapeError(f"{where(what)}: there is no dim {axis} in a tensor of {rank} dimensions")
        found.append(int(axis) % rank)
    if len(set(found)) != len(found):
        raise ShapeError(f"{where(what)}: dim={axes!r} names a dimension twice")
    return tuple(sorted(found))


def reduce(
    name: str, value: Any, axes: Any = None, keepdim: bool = False, correction: int | None = None
) -> Any:
    """A reduction over some axes, which a view brings to the end."""
    shape = value._array.shape
    over = axes_of(axes, len(shape), name)
    kept = tuple(a for a in range(len(shape)) if a not in over)
    if kept + over != tuple(range(len(shape))):
        value = apply_view(value, Permute(kept + over))
    result = call(families.over_last_axes(name, len(over), correction), (value,))[0]
    if not keepdim:
        return result
    return apply_view(result, Reshape(tuple(1 if a in over else e for a, e in enumerate(shape))))


def argument(name: str, value: Any, axis: Any = None, keepdim: bool = False) -> Any:
    """argmax or argmin along one axis, or over all elements in their order."""
    shape = value._array.shape
    if axis is None or not shape:
        flat = apply_view(value, Reshape((value._array.size,)))
        result = call(families.over_last_axes(name, 1), (flat,))[0]
        return apply_view(result, Reshape((1,) * len(shape))) if keepdim else result
    if isinstance(axis, (tuple, list)):
        raise ArgumentError(f"{where(name)}: dim is one integer or None, got {axis!r}")
    return reduce(name, value, axis, keepdim)


def along(name: str, value: Any, axis: Any = None, keepdim: bool = False, **constants: Any) -> Any:
    """A scan, an order or a rank along one axis; without one orders along the last, ranks of everything."""
    shape = value._array.shape
    if axis is None and name in ("median", "quantile"):
        result = along(name, apply_view(value, Reshape((value._array.size,))), 0, **constants)
        return apply_view(result, Reshape((1,) * len(shape))) if keepdim else result
    if axis is None and name in ("sort", "argsort", "topk"):
        axis = -1
    if axis is None or isinstance(axis, (tuple, list)):
        raise ArgumentError(
            f"{where(name)} runs along one dimension; say which, as in tw.{name}(x, dim=-1); got {axis!r}"
        )
    (axis,) = axes_of(axis, len(shape), name)
    op = families.along(name, len(shape) - axis - 1, tuple(sorted(constants.items())))
    first, *others = call(op, (value,))
    if not keepdim:
        return (first, *others) if others else first
    return apply_view(first, Reshape((*shape[:axis], 1, *shape[axis + 1 :])))


# --- products ---------------------------------------------------------------------------------------------


def matmul(a: Any, b: Any) -> Any:
    """a @ b with NumPy's rules: a vector on the left is a row, one on the right a column, batch axes
    broadcast.
    """
    a, b = _operand(a), _operand(b)
    left = "k" if a.ndim == 1 else "m k"
    right = "k" if b.ndim == 1 else "k n"
    return call(families.product(left, right), (a, b))[0]


def _operand(value: Any) -> Any:
    """A Tensor or an array of at least one dimension."""
    operand: Any = value if isinstance(value, Value) else as_stored_operand(value, "matmul")
    if not operand.ndim:
        raise ShapeError(
            f"{where('matmul')}: `@` needs operands of at least one dimension; use * for numbers"
        )
    return operand


# --- shapes -----------------------------------------------------------------------------------------------


def broadcast_to(value: Any, shape: tuple[int, ...]) -> Any:
    before = value._array.shape
    if before == shape:
        return value
    missing = len(shape) - len(before)
    fits = missing >= 0 and all(e in (1, s) for e, s in zip(before, shape[missing:], strict=True))
    if not fits:
        raise ShapeError(f"{where('broadcast_to')}: shape {before} does not broadcast to {shape}")
    return apply_view(value, Repeat(shape))


__all__ = [
    "along",
    "argument",
    "broadcast_to",
    "convert",
    "matmul",
    "pointwise",
    "power",
    "reduce",
    "repeated_axes",
]
