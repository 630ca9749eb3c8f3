"""Typing rules of scalar functions: the dtype of the result, or an error that says what to write instead."""

from __future__ import annotations

from tilewright.dsl.dtypes import DType, bool_, float64, int32, int64
from tilewright.errors import DTypeError


def same_dtype(name: str, operands: tuple[DType, ...]) -> DType:
    if len(set(operands)) != 1:
        raise DTypeError(f"{name} needs operands of one dtype, got {', '.join(d.name for d in operands)}")
    return operands[0]


def arithmetic(name: str, operands: tuple[DType, ...]) -> DType:
    dtype = same_dtype(name, operands)
    if dtype.is_bool:
        raise DTypeError(
            f"{name} has no meaning for bool; write tw.cast(x, tw.float32), or & | ^ ~ for logic"
        )
    return dtype


def floating(name: str, operands: tuple[DType, ...]) -> DType:
    dtype = same_dtype(name, operands)
    if not dtype.is_float:
        raise DTypeError(
            f"{name} needs floating-point operands, got {dtype.name}; write tw.cast(x, tw.float32)"
        )
    return dtype


def predicate(name: str, operands: tuple[DType, ...]) -> DType:
    floating(name, operands)
    return bool_


def marking(name: str, operands: tuple[DType, ...]) -> DType:
    """Of functions that hand their operand on and say something to the derivative."""
    return operands[0]


def comparison(name: str, operands: tuple[DType, ...]) -> DType:
    same_dtype(name, operands)
    return bool_


def bitwise(name: str, operands: tuple[DType, ...]) -> DType:
    dtype = same_dtype(name, operands)
    if dtype.is_float:
        raise DTypeError(
            f"{name} works on integers and bool, got {dtype.name}; compare first, as in (x > 0) & (y > 0)"
        )
    return dtype


def shifting(name: str, operands: tuple[DType, ...]) -> DType:
    dtype = bitwise(name, operands)
    if dtype.is_bool:
        raise DTypeError(f"{name} works on integers, got bool")
    return dtype


def choice(name: str, operands: tuple[DType, ...]) -> DType:
    condition, *branches = operands
    if not condition.is_bool:
        raise DTypeError(f"where(condition, a, b) needs a bool condition, got {condition.name}; write x != 0")
    return same_dtype(name, tuple(branches))


def whole(name: str, operands: tuple[DType, ...]) -> DType:
    floating(name, operands)
    return int32


def random_word(name: str, operands: tuple[DType, ...]) -> DType:
    if same_dtype(name, operands) != int64:
        raise DTypeError(f"{name} takes a seed, a position and a stream of int64, got {operands[0].name}")
    return int32


def from_bits(name: str, operands: tuple[DType, ...]) -> DType:
    if same_dtype(name, operands) != int64:
        raise DTypeError(f"{name} takes int64, got {operands[0].name}; write tw.cast(n, tw.int64)")
    return float64
