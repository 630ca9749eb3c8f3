"""How each row of the scalar table is spelled in vector operations, and each dtype in memory.

A function without an entry here is expanded into other rows by its `expand`. Values are held in compute
types: bool as i1, floats of 8 and 16 bits as themselves but widened to f32 before any arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from tilewright.compiler.targets.cpu.builder import STORAGE_FLOATS, Builder, Type, Value
from tilewright.compiler.targets.cpu.vector_math import VECTOR_MATH
from tilewright.compiler.targets.cpu.vector_math.number_parts import exponent, mantissa
from tilewright.compiler.targets.cpu.vector_math.random_words import RANDOM_WORDS
from tilewright.dsl.dtypes import DType
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Const, Map, Node, Read
from tilewright.dsl.scalars import SCALARS
from tilewright.errors import InternalError

MEMORY_KINDS = {"bool": "i8", "u8": "i8"}
VALUE_KINDS = {"bool": "i1", "u8": "i8"}


def memory_kind(dtype: DType) -> str:
    return MEMORY_KINDS.get(dtype.short, dtype.short)


def value_type(dtype: DType, lanes: int = 0) -> Type:
    return Type(VALUE_KINDS.get(dtype.short, dtype.short), lanes)


def from_memory(b: Builder, value: Value, dtype: DType) -> Value:
    return b.cmp("ne", value, 0) if dtype.is_bool else value


def to_memory(b: Builder, value: Value, dtype: DType) -> Value:
    return b.convert(value, "i8", signed=False) if dtype.is_bool else value


def convert(b: Builder, value: Value, source: DType, target: DType) -> Value:
    """A cast of the language: float → int truncates and saturates, NaN gives 0."""
    if source.is_float and target.is_integer:
        wide = b.convert(value, source.compute.short) if source.short in STORAGE_FLOATS else value
        return _saturated(b, wide, target)
    if target.is_bool:
        return b.cmp("ne", value, 0, unordered=True) if value.type.is_float else b.cmp("ne", value, 0)
    signed = source.kind == "int" if not source.is_float else target.kind != "uint"
    return b.convert(value, value_type(target).kind, signed=signed)


def _saturated(b: Builder, x: Value, target: DType) -> Value:
    """By comparisons with powers of two, which floats hold: LLVM's own operation goes lane by lane."""
    type, (low, high) = value_type(target, x.lanes), target.range
    if type.bits < 32:
        return _saturated_narrow(b, x, type, low, high)
    below, above = b.cmp("lt", x, float(low)), b.cmp("ge", x, float(high + 1))
    inside = b.and_(b.cmp("ge", x, float(low)), b.cmp("lt", x, float(high + 1)))
    number = b.convert(b.select(inside, x, 0.0), type.kind, signed=target.kind == "int")
    return b.select(above, high, b.select(below, low, number))


def _saturated_narrow(b: Builder, x: Value, type: Type, low: int, high: int) -> Value:
    """Floats hold the ends of the range themselves."""
    least = b.select(b.cmp("gt", x, float(low)), x, float(low))
    inside = b.select(b.cmp("lt", least, float(high)), least, float(high))
    number = b.select(b.is_nan(x), 0, b.convert(inside, "i32"))
    return b.convert(number, type.kind)


def spell(b: Builder, node: Map, operands: list[Value]) -> Value:
    """The value of a scalar function applied to operands (scalars and vectors mix)."""
    dtypes = [a.dtype for a in node.operands]
    narrow = node.dtype.is_float and node.dtype.short in STORAGE_FLOATS
    operands = [
        b.convert(value, "f32") if dtype.short in STORAGE_FLOATS else value
        for value, dtype in zip(operands, dtypes, strict=True)
    ]
    result = _spell(b, node.function, operands, dtypes)
    return b.convert(result, node.dtype.short) if narrow else result


def _spell(b: Builder, name: str, operands: list[Value], dtypes: list[DType]) -> Value:
    if name in COMPARISONS:
        signed = dtypes[0].kind == "int"
        return b.cmp(name, operands[0], operands[1], signed=signed, unordered=name == "ne")
    if dtypes[-1].is_float and name in FLOATS:
        return FLOATS[name](b, *operands)
    if name in VECTOR_MATH:
        return VECTOR_MATH[name](b, *b.same(*operands))
    if name in ANY:
        return ANY[name](b, *operands)
    if name in INTEGERS:
        return INTEGERS[name](b, dtypes[0].kind == "int", *operands)
    raise InternalError(f"the CPU target has no spelling for {name} of {dtypes[0].name}")


def has_spelling(name: str) -> bool:
    return any(name in table for table in (COMPARISONS, FLOATS, VECTOR_MATH, ANY, INTEGERS))


@lru_cache(maxsize=1024)
def expansion(node: Map) -> Node | None:
    """The node in terms of other rows where the target has no spelling of its own, else None."""
    row = SCALARS[node.function]
    if has_spelling(node.function) or row.expand is None:
        return None
    return row.expand(*(Expr(a) for a in node.operands)).node


COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


def _float_floordiv(b: Builder, x: Value, y: Value) -> Value:
    return b.floor(b.div(x, y))


def _float_mod(b: Builder, x: Value, y: Value) -> Value:
    """x - floor(x / y)·y with the divisor's sign, exactly: the truncated remainder, moved by y if signs
    differ.
    """
    remainder = VECTOR_MATH["fmod"](b, x, y)
    remainder, y = b.same(remainder, y)
    differs = b.cmp("ne", b.cmp("lt", remainder, 0.0), b.cmp("lt", y, 0.0))
    moved = b.select(b.and_(differs, b.cmp("ne", remainder, 0.0)), b.add(remainder, y), remainder)
    return b.select(b.cmp("eq", remainder, 0.0), b.copysign(remainder, y), moved)


def _float_sign(b: Builder, x: Value) -> Value:
    one = b.copysign(b.constant(1.0, x.type), x)
    return b.select(b.or_(b.cmp("eq", x, 0.0), b.is_nan(x)), b.add(x, 0.0), one)


def _is_inf(b: Builder, x: Value) -> Value:
    return b.cmp("eq", b.abs(x), float("inf"))


def _is_finite(b: Builder, x: Value) -> Value:
    return b.cmp("lt", b.abs(x), float("inf"))


FLOATS: dict[str, Callable[..., Value]] = {
    "add": Builder.add,
    "sub": Builder.sub,
    "mul": Builder.mul,
    "div": Builder.div,
    "neg": Builder.neg,
    "abs": Builder.abs,
    "sign": _float_sign,
    "minimum": Builder.minimum,
    "maximum": Builder.maximum,
    "floordiv": _float_floordiv,
    "mod": _float_mod,
    "sqrt": Builder.sqrt,
    "floor": Builder.floor,
    "ceil": Builder.ceil,
    "trunc": Builder.trunc,
    "round": Builder.round_even,
    "isnan": Builder.is_nan,
    "isinf": _is_inf,
    "isfinite": _is_finite,
    "mantissa": mantissa,
    "exponent": exponent,
}


def _where(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    x, y = b.same(x, y)
    if condition.lanes and not x.lanes:
        x, y = b.splat(x, condition.lanes), b.splat(y, condition.lanes)
    elif x.lanes and not condition.lanes:
        condition = b.splat(condition, x.lanes)
    return b.select(condition, x, y)


ANY: dict[str, Callable[..., Value]] = {
    "where": _where,
    "and": Builder.and_,
    "or": Builder.or_,
    "xor": Builder.xor,
    "not": Builder.not_,
    **dict.fromkeys(("stop_gradient", "recomputed", "kept"), lambda b, x: x),
    **RANDOM_WORDS,
}


def _safe_divisor(b: Builder, signed: bool, x: Value, y: Value) -> tuple[Value, Value, Value, Value]:
    """Operands whose division is defined, and where it was not: a divisor of 0, or of -1 (which may
    overflow).
    """
    x, y = b.same(x, y)
    zero = b.cmp("eq", y, 0)
    minus_one = b.cmp("eq", y, -1) if signed else b.constant(False, Type("i1", x.lanes))
    safe = b.select(b.or_(zero, minus_one), b.constant(1, y.type), y)
    return x, safe, zero, minus_one


def _quotient(b: Builder, signed: bool, x: Value, y: Value) -> Value:
    """x / y towards zero. No instruction divides vectors of integers, but some do floats: a quotient of n
    bits that is not a whole number differs from one by 2^-n of itself, which wider floats tell apart.
    """
    bits = x.type.bits
    if not x.lanes or bits > 32:
        return b.div(x, y, signed=signed)
    wide = "f32" if bits <= 16 else "f64"
    quotient = b.div(b.convert(x, wide, signed=signed), b.convert(y, wide, signed=signed))
    return b.convert(quotient, x.type.kind, signed=signed)


def _int_floordiv(b: Builder, signed: bool, x: Value, y: Value) -> Value:
    """⌊x / y⌋; 0 where y is 0, wrapping for the smallest integer over -1."""
    x, safe, zero, minus_one = _safe_divisor(b, signed, x, y)
    quotient = _quotient(b, signed, x, safe)
    if signed:
        remainder = b.sub(x, b.mul(quotient, safe))
        differs = b.cmp("lt", b.xor(remainder, safe), 0)
        down = b.and_(differs, b.cmp("ne", remainder, 0))
        quotient = b.select(down, b.sub(quotient, 1), quotient)
        quotient = b.select(minus_one, b.neg(x), quotient)
    return b.select(zero, b.constant(0, quotient.type), quotient)


def _int_mod(b: Builder, signed: bool, x: Value, y: Value) -> Value:
    """x - ⌊x / y⌋·y; 0 where y is 0."""
    x, y = b.same(x, y)
    value = b.sub(x, b.mul(_int_floordiv(b, signed, x, y), y))
    return b.select(b.cmp("eq", y, 0), b.constant(0, value.type), value)


def _int_sign(b: Builder, signed: bool, x: Value) -> Value:
    one, zero = b.constant(1, x.type), b.constant(0, x.type)
    positive = b.select(b.cmp("gt", x, 0, signed=signed), one, zero)
    return b.select(b.cmp("lt", x, 0), b.constant(-1, x.type), positive) if signed else positive


def _shift(left: bool) -> Callable[..., Value]:
    def spelled(b: Builder, signed: bool, x: Value, y: Value) -> Value:
        """Shifts by the width or more give 0 (or the sign, to the right)."""
        x, y = b.same(x, y)
        bits = x.type.bits
        far = b.cmp("ge", y, bits, signed=False)
        amount = b.select(far, b.constant(bits - 1, y.type), y)
        if left:
            return b.select(far, b.constant(0, x.type), b.shl(x, amount))
        shifted = b.shr(x, amount, signed=signed)
        return shifted if signed else b.select(far, b.constant(0, x.type), shifted)

    return spelled


INTEGERS: dict[str, Callable[..., Value]] = {
    "add": lambda b, signed, x, y: b.add(x, y),
    "sub": lambda b, signed, x, y: b.sub(x, y),
    "mul": lambda b, signed, x, y: b.mul(x, y),
    "neg": lambda b, signed, x: b.neg(x),
    "abs": lambda b, signed, x: b.abs(x) if signed else x,
    "sign": _int_sign,
    "minimum": lambda b, signed, x, y: b.minimum(x, y, signed=signed),
    "maximum": lambda b, signed, x, y: b.maximum(x, y, signed=signed),
    "floordiv": _int_floordiv,
    "mod": _int_mod,
    "shl": _shift(left=True),
    "shr": _shift(left=False),
}

COMBINE_STEPS = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def cost(node: Node) -> float:
    """What evaluating one node costs, in units of a vector addition; its operands are not counted."""
    if isinstance(node, (Const, Read)) or not isinstance(node, Map):
        return 0
    if node.function in VECTOR_MATH or node.function in RANDOM_WORDS or expansion(node) is not None:
        return 12
    return 4 if node.function in ("div", "sqrt", "floordiv", "mod") else 1
