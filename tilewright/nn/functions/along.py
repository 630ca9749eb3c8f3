"""Ops of the last axis along another one."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.errors import ShapeError
from tilewright.tensor.tensor import Tensor


def checked(input: Tensor, dim: int) -> int:
    """`dim` counted from the front. Raises `ShapeError` where there is none such."""
    if not input.ndim or not -input.ndim <= dim < input.ndim:
        raise ShapeError(f"there is no dimension {dim} in a tensor of {input.ndim} dimensions")
    return dim % input.ndim


def along(op: Callable[[Tensor], Tensor], input: Tensor, dim: int) -> Tensor:
    """An op of the last axis, which keeps the shape, along another one."""
    if checked(input, dim) == input.ndim - 1:
        return op(input)
    return op(input.transpose(dim, -1)).transpose(dim, -1)


def with_last(input: Tensor, dim: int) -> Tensor:
    """The tensor with a dimension moved behind the others."""
    dim = checked(input, dim)
    return input.permute(*(d for d in range(input.ndim) if d != dim), dim)
