"""`out=`: results written to arrays that the caller has, operands of the same call among them.

An array that cannot be written to straight away (it is not contiguous, or shares memory with an operand in
a way that a kernel cannot respect) gets a copy of the result at the end. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.compiler.in_place import Out
from tilewright.dsl.axes import PAIR
from tilewright.dsl.dtypes import of_array
from tilewright.dsl.program import Program, Result
from tilewright.errors import (
    ArgumentError,
    DTypeError,
    MemoryLimitError,
    OverlapError,
    ShapeError,
    TargetError,
)
from tilewright.op import storage
from tilewright.op.binding import where
from tilewright.op.pairs import from_pairs_of
from tilewright.op.seen import Seen
from tilewright.runtime.devices import Array

Shape = tuple[int, ...]
Arrays = tuple[np.ndarray, ...]


def placed(
    op_name: str,
    program: Program,
    run: Callable[[Out | None], Arrays],
    shapes: tuple[Sequence[Shape], Sequence[Seen]],
    out: Any,
) -> Arrays:
    """`results`, for results that a user may have in another order of dimensions."""
    inside, seen = shapes
    if out is not None and not any(map(is_complex, program.results)):
        out = checked(op_name, out, program, [s.shape for s in seen])
        views = tuple(a if a is None else s.to_front(a) for a, s in zip(out, seen, strict=True))
    else:
        views = out
    computed = results(op_name, program, run, (inside, [s.front_shape for s in seen]), views)
    given = (None,) * len(seen) if out is None else out
    return tuple(s.from_front(c) if a is None else a for c, s, a in zip(computed, seen, given, strict=True))


def results(
    op_name: str,
    program: Program,
    run: Callable[[Out | None], Arrays],
    shapes: tuple[Sequence[Shape], Sequence[Shape]],
    out: Any,
) -> Arrays:
    """What `run` computes, written to what the caller gave as `out`.

    `shapes` are those of the results in the Program, and as a user has them.
    """
    inside, outside = shapes
    if out is not None and any(map(is_complex, program.results)):
        raise ArgumentError(f"{where(op_name)}: a complex result has no out=; copy it where it should go")
    try:
        if out is not None:
            return _write(checked(op_name, out, program, outside), shapes, run)
        computed = run(None)
    except (TargetError, MemoryLimitError) as error:
        raise named(op_name, error) from None
    if inside != outside:
        computed = tuple(result.reshape(shape) for result, shape in zip(computed, outside, strict=True))
    return complex_again(program, computed)


def named(op_name: str, error: TargetError | MemoryLimitError) -> TargetError | MemoryLimitError:
    """The error, told of the op."""
    return type(error)(f"{where(op_name)}: {error}")


def complex_again(program: Program, results: Arrays) -> Arrays:
    """Results with those that run along the halves of complex numbers as such."""
    if not any(map(is_complex, program.results)):
        return results
    return tuple(
        from_pairs_of(array) if is_complex(result) else array
        for array, result in zip(results, program.results, strict=True)
    )


def is_complex(result: Result) -> bool:
    return result.axes[-1:] == (PAIR,)


def checked(
    op_name: str, out: Any, program: Program, shapes: Sequence[Shape]
) -> tuple[np.ndarray | None, ...]:
    """What a caller gave as `out`, one for each result. Raises a `UserError` where it does not fit."""
    given = one_for_each(op_name, out, len(program.results))
    for array, result, shape in zip(given, program.results, shapes, strict=True):
        if array is None:
            continue
        if not isinstance(array, (np.ndarray, Array)):
            kind = type(array).__qualname__
            raise ArgumentError(f"{where(op_name)}: out= is an array where the operands are, not a {kind}")
        check(op_name, array, result, shape)
    return given


def one_for_each(op_name: str, out: Any, count: int) -> tuple[Any, ...]:
    """`out` as a tuple with an entry for each result. Raises `ArgumentError`."""
    given = tuple(out) if isinstance(out, (tuple, list)) else (out,)
    if len(given) != count:
        one = "an array" if count == 1 else f"a tuple of {count}, None where a result has no place yet"
        raise ArgumentError(
            f"{where(op_name)} has {count} result{'s' * (count != 1)}, out= names {len(given)}; pass {one}"
        )
    return given


def check(op_name: str, array: Any, result: Result, shape: Shape) -> None:
    """Whether a result may be written to an array. Raises `DTypeError`, `ShapeError` or `OverlapError`."""
    told = f"the result {result.name}"
    if of_array(array) != result.dtype:
        raise DTypeError(
            f"{where(op_name)}: {told} is {result.dtype.name}, out= is {array.dtype}; pass one of that dtype"
        )
    if array.shape != shape:
        raise ShapeError(
            f"{where(op_name)}: {told} has shape {shape}, out= has {array.shape}; they must be equal"
        )
    if not array.flags.writeable:
        raise OverlapError(f"{where(op_name)}: out= for {told} is read-only; pass an array of its own")
    if _repeats_itself(array):
        raise OverlapError(
            f"{where(op_name)}: out= for {told} has several elements at one address (its strides are "
            f"{array.strides}); pass an array of its own"
        )


def _repeats_itself(array: np.ndarray) -> bool:
    """Whether two elements may share memory: each dimension must step over all that the smaller ones span."""
    if array.flags.c_contiguous:
        return False
    reach = 0
    for stride, extent in sorted(
        (abs(s), e) for s, e in zip(array.strides, array.shape, strict=True) if e > 1
    ):
        if stride < reach + array.itemsize:
            return True
        reach += (extent - 1) * stride
    return False


def _write(
    out: Sequence[np.ndarray | None],
    shapes: tuple[Sequence[Shape], Sequence[Shape]],
    run: Callable[[Out], Arrays],
) -> Arrays:
    straight = [_seen_as(inside, array) for array, inside in zip(out, shapes[0], strict=True)]
    delivered = []
    for array, place, result, outside in zip(out, straight, run(straight), shapes[1], strict=True):
        if array is not None and place is None:
            storage.write(array, result.reshape(outside))
        delivered.append(result.reshape(outside) if array is None else array)
    return tuple(delivered)


def _seen_as(shape: Shape, array: Any) -> Any:
    """An array that kernels can write to as the result that they know; None where they cannot."""
    if isinstance(array, Array):
        return array.reshaped(shape)
    return None if array is None or not array.flags.c_contiguous else array.reshape(shape)
