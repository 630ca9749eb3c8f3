"""Nodes as Triton expressions: operators, constants, conversions, reductions; functions by `scalar_spelling`.

Values are held in the Program's dtypes: bool as `tl.int1` (stored as int8), half precision as loaded until
arithmetic widens it to float32, floats of 8 bits as float16 (`float8`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tilewright.compiler.targets.triton import float8, scalar_spelling
from tilewright.compiler.targets.triton.writer import ATOM, LEVEL, PRECEDENCE, UNARY, Value, is_call
from tilewright.dsl.dtypes import FLOAT8, DType, int8, int16, int32, int64, uint8
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Const, Map, Node, combine_identity
from tilewright.dsl.scalars import SCALARS
from tilewright.errors import InternalError

TYPES = {
    "f64": "tl.float64", "f32": "tl.float32", "f16": "tl.float16", "bf16": "tl.bfloat16", "i64": "tl.int64",
    "i32": "tl.int32", "i16": "tl.int16", "i8": "tl.int8", "u8": "tl.uint8", "bool": "tl.int1",
    "f8e4m3fn": "tl.float16", "f8e5m2": "tl.float16",
}  # fmt: skip
POINTERS = {
    "f64": "*fp64", "f32": "*fp32", "f16": "*fp16", "bf16": "*bf16", "i64": "*i64", "i32": "*i32",
    "i16": "*i16", "i8": "*i8", "u8": "*u8", "bool": "*i8", "f8e4m3fn": "*u8", "f8e5m2": "*u8",
}  # fmt: skip
SCALARS_BY_VALUE = {"f64": "fp64", "f32": "fp32", "i64": "i64", "i32": "i32"}

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
_COMPARISON = LEVEL["=="]

_COMBINE = """@triton.jit
def {name}(a, b):
    return {text}
"""
HELPERS = {
    name: _COMBINE.format(name=name, text=text)
    for name, text in {
        "maximum_": "tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)",
        "minimum_": "tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)",
        "product_": "a * b",
    }.items()
}


def number(value: float | int | bool, dtype: DType) -> str:
    """A constant as a Python literal, rounded to its dtype where Triton would not."""
    if dtype.is_bool:
        return str(bool(value))
    if not dtype.is_float:
        return str(int(value))
    with np.errstate(over="ignore"):
        value = float((dtype if dtype in FLOAT8 else dtype.compute).numpy.type(value))
    if math.isnan(value):
        return 'float("nan")'
    if math.isinf(value):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return _shortest(value, dtype)


def _shortest(value: float, dtype: DType) -> str:
    if dtype.short == "f64":
        return repr(value)
    text = np.format_float_positional(np.float32(value), unique=True, trim="0")
    return text if len(text) < 14 else repr(float(str(np.float32(value))))


def constant(value: float | int | bool, dtype: DType) -> Value:
    text = number(value, dtype)
    return Value(text, UNARY if text.startswith("-") else ATOM, literal=True)


def typed(value: Value, dtype: DType) -> Value:
    """A literal as a tensor of its dtype, where nothing else would say the type."""
    return Value(f"tl.full((), {value.text}, {TYPES[dtype.short]})") if value.literal else value


def cast(value: Value, source: DType, target: DType) -> Value:
    """A cast of the language: float → int truncates and saturates, NaN gives 0."""
    value = typed(value, source)
    if source == target:
        return value
    if target.is_bool:
        return Value(f"{value.at(_COMPARISON + 1)} != 0", _COMPARISON, value.dims)
    if source.is_float and target.is_integer:
        return saturated(value, source, target)
    if target in FLOAT8:
        return float8.nearest(value, source, target)
    if source.short == "f64" and target.short in ("f16", "bf16"):
        value = Value(f"{value.atom}.to(tl.float32)", ATOM, value.dims)
    return Value(f"{value.atom}.to({TYPES[target.short]})", ATOM, value.dims)


def saturated(value: Value, source: DType, target: DType) -> Value:
    """Float to integer: truncated, clamped to the integer's range, NaN as 0."""
    name = f"saturate_{target.short}"
    wide = value if source.bits >= 32 else Value(f"{value.atom}.to(tl.float32)", ATOM, value.dims)
    return Value(f"{name}({wide.text})", ATOM, value.dims)


def _saturate(dtype: DType) -> str:
    """The helper that casts floats to an integer dtype; its bounds are exact: powers of two, or small."""
    low, high = dtype.range
    kind = "tl.int32" if dtype.bits < 32 else TYPES[dtype.short]
    above, below = float(high + 1), float(low) - (dtype.bits < 32)
    return f"""@triton.jit
def saturate_{dtype.short}(x):
    \"\"\"The integer towards zero, within the range of {dtype.name}; 0 for NaN.\"\"\"
    whole = tl.where((x > {below!r}) & (x < {above!r}), x, 0.0).to({kind})
    whole = tl.where(x >= {above!r}, {high}, whole)
    return tl.where(x <= {below!r}, {low}, whole).to({TYPES[dtype.short]})
"""


_SHIFTS = (
    """@triton.jit
def shift_left(x, y):
    \"\"\"x << y; 0 when y is the width of x or more.\"\"\"
    bits: tl.constexpr = x.dtype.primitive_bitwidth
    inside = (y >= 0) & (y < bits)
    return tl.where(inside, x << tl.where(inside, y, 0).to(x.dtype), 0).to(x.dtype)
""",
    """@triton.jit
def shift_right(x, y):
    \"\"\"x >> y; 0, or -1 for a negative x, when y is the width of x or more.\"\"\"
    bits: tl.constexpr = x.dtype.primitive_bitwidth
    inside = (y >= 0) & (y < bits)
    shifted = x >> tl.where(inside, y, bits - 1).to(x.dtype)
    return tl.where(inside | (x < 0), shifted, 0).to(x.dtype)
""",
)
HELPERS |= {"shift_left": _SHIFTS[0], "shift_right": _SHIFTS[1]}
HELPERS |= {f"saturate_{d.short}": _saturate(d) for d in (int64, int32, int16, int8, uint8)}
HELPERS |= float8.HELPERS


def infix(name: str, left: Value, right: Value, dtype: DType) -> Value:
    operator = INFIX[name]
    level = LEVEL[operator]
    if left.literal and right.literal:
        left = typed(left, dtype)
    on_the_left = level + 1 if level == _COMPARISON else level
    return Value(
        f"{left.at(on_the_left)} {operator} {right.at(level + 1)}", level, left.dims | right.dims
    )  # fmt: skip


def identity_text(combine: str, dtype: DType) -> str:
    return number(combine_identity(combine, dtype), dtype)


def step(combine: str, old: Value, new: Value, dtype: DType) -> Value:
    """Two partial results of a reduction as one."""
    dims = old.dims | new.dims
    if combine in ("max", "min"):
        if dtype.is_float:
            name = {"max": "maximum_", "min": "minimum_"}[combine]
            return Value(f"{name}({old.text}, {new.text})", ATOM, dims)
        name = {"max": "tl.maximum", "min": "tl.minimum"}[combine]
        return Value(f"{name}({old.text}, {new.text})", ATOM, dims)
    operator = {"sum": "+", "prod": "*", "any": "|", "all": "&"}[combine]
    level = LEVEL[operator]
    return Value(f"{old.at(level)} {operator} {new.at(level + 1)}", level, dims)


def reduction(combine: str, text: str, dtype: DType, axis: int, rank: int) -> str:
    """A reduction of a tile along one of its dimensions, which stays as a dimension of one element."""
    where = f"axis={axis}" + (", keep_dims=True" if rank > 1 else "")
    kept = ", keep_dims=True" if rank > 1 else ""
    back = f".to({TYPES[dtype.short]})" if not dtype.is_float and dtype.bits < 32 else ""
    if combine == "sum":
        return f"tl.sum({text}, {where}){back}"
    if combine in ("any", "all"):
        name = {"any": "max", "all": "min"}[combine]
        return f"tl.{name}(({text}).to(tl.int32), {where}) != 0"
    if combine in ("max", "min") and not dtype.is_float:
        return f"tl.{combine}({text}, {where}){back}"
    name = {"max": "maximum_", "min": "minimum_", "prod": "product_"}[combine]
    return f"tl.reduce({text}, {axis}, {name}{kept})"


def spell(node: Map, operands: Sequence[Value], natural: bool = False, small: bool = False) -> Value:
    """A scalar function applied to operands; half precision is computed in float32.

    `natural`: a quotient or remainder of a number that is not negative by a positive one. `small`: int64
    operands are held in 32 bits.
    """
    values = list(operands)
    dtypes = [int32 if small and a.dtype == int64 else a.dtype for a in node.operands]
    for position, dtype in enumerate(dtypes):
        if dtype.is_float and dtype.bits < 32 and not values[position].literal:
            values[position] = Value(f"{values[position].atom}.to(tl.float32)", ATOM, values[position].dims)
    result = _quotient(node, values, natural) or _spell(node, values, [d.compute for d in dtypes])
    if node.dtype in FLOAT8 and node.function not in _CHOOSING:
        return cast(result, node.dtype.compute, node.dtype)
    if node.dtype.is_float and node.dtype.bits < 32:
        return Value(f"{result.atom}.to({TYPES[node.dtype.short]})", ATOM, result.dims)
    return result


def _quotient(node: Map, operands: Sequence[Value], natural: bool) -> Value | None:
    """A quotient or remainder of whole numbers without a helper, where it rounds down in Triton as well."""
    if not _is_quotient(node, natural):
        return None
    number, divisor = operands
    dims = number.dims | divisor.dims
    if natural:
        operator = {"floordiv": "//", "mod": "%"}[node.function]
        level = LEVEL[operator]
        return Value(f"{number.at(level)} {operator} {divisor.at(level + 1)}", level, dims)
    size = int(divisor.text)
    if node.function == "floordiv":
        return Value(f"{number.at(ATOM)} >> {size.bit_length() - 1}", LEVEL[">>"], dims)
    return Value(f"{number.at(ATOM)} & {size - 1}", _COMPARISON, dims)  # in brackets wherever it stands


def _is_quotient(node: Map, natural: bool) -> bool:
    if node.function not in ("floordiv", "mod") or not node.dtype.is_integer:
        return False
    divisor = node.operands[1]
    number = isinstance(node.operands[0], Const)
    return natural or (
        not number
        and isinstance(divisor, Const)
        and divisor.value > 0
        and int(divisor.value).bit_count() == 1
    )


_CHOOSING = frozenset({"where", "minimum", "maximum", "stop_gradient", "recomputed", "kept"})
"""Functions whose result is one of their operands."""
_LITERALS_WELCOME = frozenset({"where", "minimum", "maximum", "div"})


def _spell(node: Map, operands: list[Value], dtypes: list[DType]) -> Value:
    if node.function in INFIX:
        return infix(node.function, operands[0], operands[1], dtypes[0])
    dims = frozenset().union(*(v.dims for v in operands))
    if node.function == "stop_gradient":
        return operands[0]
    if node.function == "neg" and node.dtype.is_integer:
        return Value(f"-{typed(operands[0], dtypes[0]).at(UNARY)}", UNARY, dims)
    start = 1 if node.function == "where" else 0
    if node.function not in _LITERALS_WELCOME or all(v.literal for v in operands[start:]):
        operands = [typed(v, d) for v, d in zip(operands, dtypes, strict=True)]
    operands[0] = typed(operands[0], dtypes[0]) if start else operands[0]
    if node.function in ("shl", "shr"):
        name = {"shl": "shift_left", "shr": "shift_right"}[node.function]
        return Value(f"{name}({operands[0].text}, {operands[1].text})", ATOM, dims)
    text = _template(node.function, dtypes[-1])
    level = _level(text)
    texts = [v.text if is_call(text) else v.atom for v in operands]
    return Value(text.format(*texts), level, dims)


def _template(function: str, dtype: DType) -> str:
    kind = dtype.short if dtype.is_float else "bool" if dtype.is_bool else "int"
    text = getattr(scalar_spelling.SPELLINGS.get(function), kind, "")
    if not text:
        raise InternalError(f"the Triton target has no spelling for {function} of {dtype.name}")
    return text


def _level(template: str) -> int:
    """How tightly the outermost operator of a spelling binds."""
    if is_call(template):
        return ATOM
    for operators in PRECEDENCE[:-3]:
        if any(f" {operator} " in template for operator in operators):
            return LEVEL[operators[0]]
    return UNARY


def repeats_operands(node: Map, natural: bool = False) -> bool:
    """Whether the spelling names an operand twice, so that it should be a name."""
    if (
        _is_quotient(node, natural)
        or node.function in INFIX
        or node.function in ("neg", "stop_gradient", "shl", "shr")
    ):
        return False
    return _template(node.function, node.operands[-1].dtype.compute).count("{0}") > 1


def has_spelling(function: str) -> bool:
    return function in scalar_spelling.SPELLINGS


@lru_cache(maxsize=1024)
def expansion(node: Map) -> Node | None:
    """The node in terms of other rows where there is no spelling, else None."""
    row = SCALARS[node.function]
    if has_spelling(node.function) or row.expand is None:
        return None
    return row.expand(*(Expr(a) for a in node.operands)).node


def helpers_for(text: str) -> str:
    """The sources of all helpers that a text calls."""
    own = [source for name, source in HELPERS.items() if re.search(rf"\b{name}\b", text)]
    parts = [scalar_spelling.prelude_for(text + "\n".join(own)), *own]
    return "\n\n".join(p for p in parts if p)


RESERVED = frozenset({*HELPERS, *scalar_spelling.PRELUDE})
