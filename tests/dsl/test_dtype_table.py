"""What every dtype does in every integer operation, conversion and reduction, against Python's whole numbers.

The expected values are computed without the library: unbounded integers that are wrapped, and promotion as
NumPy has it. The tables on the page about the language say the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from tests.support.checks import targets
from tilewright.compiler.pipeline import compile_program
from tilewright.dsl import language as tw
from tilewright.dsl.dtypes import ALL, FLOAT8, DType, bool_, float32, int64, promote
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Param, Program, Read, Result
from tilewright.dsl.reference import reference

INTEGERS = [d for d in ALL if d.is_integer]
PAIRS = [pair for pair in itertools.product(ALL, ALL) if set(pair) != set(FLOAT8)]
EVERYWHERE = ["reference", *targets()]


def edges(dtype: DType) -> np.ndarray:
    """The values at which something changes: limits, signs, shift counts, what fits a narrower dtype."""
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_integer:
        low, high = dtype.range
        near = [
            -129,
            -128,
            -65,
            -64,
            -9,
            -8,
            -2,
            -1,
            0,
            1,
            2,
            3,
            7,
            8,
            9,
            15,
            16,
            31,
            32,
            63,
            64,
            127,
            255,
            300,
        ]
        values = {low, low + 1, low // 2, high // 2 + 1, high - 1, high, *near}
        return np.array(sorted(v for v in values if low <= v <= high), dtype.numpy)
    limits = ml_dtypes.finfo(dtype.numpy)
    values = [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 127.5, 128, -128.5, -129, 255.5, 256, 300, 32767.5, -32769]
    values += [
        2.0**31 - 128,
        2.0**31,
        -(2.0**31),
        -(2.0**31) - 512,
        2.0**63,
        -(2.0**63),
        2.0**62,
        1e30,
        -1e30,
    ]
    values += [math.inf, -math.inf, math.nan, float(limits.max), float(limits.tiny), -float(limits.tiny)]
    with np.errstate(over="ignore"):
        return np.array(values).astype(dtype.numpy)


def results(program: Program, arrays: dict[str, np.ndarray], where: str) -> tuple[np.ndarray, ...]:
    if where == "reference":
        return reference(program, arrays)
    return compile_program(program, where).run(arrays, {})


def wrapped(value: int, dtype: DType) -> int:
    low, high = dtype.range
    return (value - low) % (high - low + 1) + low


# --- promotion --------------------------------------------------------------------------------------------


def meeting_place(first: DType, second: DType) -> str:
    """NumPy's promotion within a kind; an integer that meets a float becomes that float."""
    if first == second:
        return first.name
    floats = [d for d in (first, second) if d.is_float]
    if len(floats) == 1:
        return floats[0].name
    if floats and {d.bits for d in floats} == {16}:
        return "float32"
    if floats:
        return max(floats, key=lambda d: d.bits).name
    return np.result_type(first.numpy, second.numpy).name


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=str)
def test_two_dtypes_meet(first: DType, second: DType):
    assert promote(first, second).name == meeting_place(first, second)
    x, y = Expr(Read("x", ("i",), first)), Expr(Read("y", ("j",), second))
    common = promote(first, second)
    assert tw.maximum(x, y).dtype == (int64 if common.is_bool else common.compute)
    assert (x < y).dtype == bool_
    assert tw.where(x == x, x, y).dtype == common
    divided = (x / y).dtype
    assert divided == (common.compute if common.is_float else float32)


# --- integer operations -----------------------------------------------------------------------------------


def shifted_left(x: int, n: int, bits: int) -> int:
    return x << n if 0 <= n < bits else 0


def shifted_right(x: int, n: int, bits: int) -> int:
    return x >> n if 0 <= n < bits else -1 if x < 0 else 0


ARITHMETIC: dict[str, tuple[Callable, Callable[[int, int, int], int]]] = {
    "add": (lambda x, y: x + y, lambda x, y, bits: x + y),
    "sub": (lambda x, y: x - y, lambda x, y, bits: x - y),
    "mul": (lambda x, y: x * y, lambda x, y, bits: x * y),
    "floordiv": (lambda x, y: x // y, lambda x, y, bits: x // y if y else 0),
    "mod": (lambda x, y: x % y, lambda x, y, bits: x % y if y else 0),
    "minimum": (tw.minimum, lambda x, y, bits: min(x, y)),
    "maximum": (tw.maximum, lambda x, y, bits: max(x, y)),
    "and": (lambda x, y: x & y, lambda x, y, bits: x & y),
    "or": (lambda x, y: x | y, lambda x, y, bits: x | y),
    "xor": (lambda x, y: x ^ y, lambda x, y, bits: x ^ y),
    "shl": (lambda x, y: x << y, shifted_left),
    "shr": (lambda x, y: x >> y, shifted_right),
    "neg": (lambda x, y: -x + y * 0, lambda x, y, bits: -x),
    "abs": (lambda x, y: tw.abs(x) + y * 0, lambda x, y, bits: abs(x)),
    "sign": (lambda x, y: tw.sign(x) + y * 0, lambda x, y, bits: (x > 0) - (x < 0)),
    "not": (lambda x, y: ~x + y * 0, lambda x, y, bits: ~x),
}
COMPARISONS: dict[str, tuple[Callable, Callable[[int, int], bool]]] = {
    "eq": (lambda x, y: x == y, lambda x, y: x == y),
    "ne": (lambda x, y: x != y, lambda x, y: x != y),
    "lt": (lambda x, y: x < y, lambda x, y: x < y),
    "le": (lambda x, y: x <= y, lambda x, y: x <= y),
    "gt": (lambda x, y: x > y, lambda x, y: x > y),
    "ge": (lambda x, y: x >= y, lambda x, y: x >= y),
}


def check_integers(first: DType, second: DType, where: str) -> None:
    """Every operation on every pair of edges; operands are brought to one dtype first."""
    common = promote(first, second)
    x, y = Expr(Read("x", ("i",), first)), Expr(Read("y", ("j",), second))
    params = (Param("x", ("i",), first), Param("y", ("j",), second))
    x = x if first == second else tw.cast(x, common)  # functions of one operand would be in its own dtype
    written = {name: write(x, y) for name, (write, _) in {**ARITHMETIC, **COMPARISONS}.items()}
    program = Program("integers", params, tuple(Result(n, e.node, ("i", "j")) for n, e in written.items()))
    arrays = {"x": edges(first), "y": edges(second)}
    pairs = [(int(a), int(b)) for a in arrays["x"] for b in arrays["y"]]
    for name, found in zip(written, results(program, arrays, where), strict=True):
        if name in COMPARISONS:
            expected = [COMPARISONS[name][1](a, b) for a, b in pairs]
        else:
            expected = [wrapped(ARITHMETIC[name][1](a, b, common.bits), common) for a, b in pairs]
        wrong = [
            f"{name}{pair}: {int(value)}, not {int(right)}"
            for pair, value, right in zip(pairs, found.ravel(), expected, strict=True)
            if value != right
        ]
        assert not wrong, f"{first} {second} on {where}: {wrong[:5]}"


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_of_one_dtype(dtype: DType, where: str):
    check_integers(dtype, dtype, where)


MIXED = [pair for pair in itertools.product(INTEGERS, INTEGERS) if pair[0] != pair[1]]


@pytest.mark.parametrize(("first", "second"), MIXED, ids=str)
def test_integers_of_two_dtypes(first: DType, second: DType):
    check_integers(first, second, "reference")


@pytest.mark.exhaustive
@pytest.mark.parametrize("where", targets())
@pytest.mark.parametrize(("first", "second"), MIXED, ids=str)
def test_integers_of_two_dtypes_on_every_target(first: DType, second: DType, where: str):
    check_integers(first, second, where)


# --- conversions ------------------------------------------------------------------------------------------


def converted(value, target: DType):
    """One value as `target` has it."""
    if target.is_bool:
        return bool(value != 0)
    if target.is_float:
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(target.numpy)
    if isinstance(value, float):
        low, high = target.range
        if math.isnan(value):
            return 0
        return low if value <= low else high if value >= high else math.trunc(value)
    return wrapped(int(value), target)


@pytest.mark.parametrize("where", targets())
@pytest.mark.parametrize("source", ALL, ids=str)
def test_conversions(source: DType, where: str):
    others = [d for d in ALL if d != source]
    x = Expr(Read("x", ("i",), source))
    program = Program(
        "conversions", (Param("x", ("i",), source),),
        tuple(Result(d.name, tw.cast(x, d).node, ("i",)) for d in others),
    )  # fmt: skip
    values = edges(source)
    plain = [float(v) for v in values] if source.is_float else [v.item() for v in values]
    for target, found in zip(others, results(program, {"x": values}, where), strict=True):
        for value, result in zip(plain, found, strict=True):
            right = converted(value, target)
            same = bool(result == right) or (target.is_float and math.isnan(result) and math.isnan(right))
            assert same, f"{source} {value!r} to {target} on {where}: {result!r}, not {right!r}"


# --- reductions -------------------------------------------------------------------------------------------


def total(values: list[int]) -> int:
    return wrapped(sum(values), int64)


def product(values: list[int]) -> int:
    return wrapped(math.prod(values), int64)


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("dtype", [*INTEGERS, bool_], ids=str)
def test_reductions(dtype: DType, where: str):
    values = edges(dtype)
    rows = np.stack([values, values[::-1], np.roll(values, len(values) // 2)])
    for array in (rows, rows[:, :1], rows[:, :0]):
        low, high = (False, True) if dtype.is_bool else dtype.range
        meanings = {
            "sum": total,
            "prod": product,
            "max": lambda v, low=low: max(v, default=int(low)),
            "min": lambda v, high=high: min(v, default=int(high)),
            "any": lambda v: any(v),
            "all": lambda v: all(v),
            "argmax": lambda v: v.index(max(v)) if v else 0,
            "argmin": lambda v: v.index(min(v)) if v else 0,
        }
        x = Expr(Read("x", ("i", "j"), dtype))
        params = (Param("x", ("i", "j"), dtype),)
        made = tuple(Result(name, getattr(tw, name)(x, "j").node, ("i",)) for name in meanings)
        found = results(Program("reductions", params, made), {"x": np.ascontiguousarray(array)}, where)
        for (name, meaning), value in zip(meanings.items(), found, strict=True):
            if name.startswith("arg") and not array.shape[1]:
                continue
            assert value.dtype == (np.int64 if name in ("sum", "prod", "argmax", "argmin") else
                                   np.bool_ if name in ("any", "all") else dtype.numpy)  # fmt: skip
            expected = [meaning([int(v) for v in row]) for row in array]
            assert value.tolist() == expected, f"{name} of {dtype} on {where}"
