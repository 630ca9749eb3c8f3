"""Random well-typed Programs, and operands for them: what every target, pass and derivative is tested on.

    @given(data())
    def test_target(data):
        program = data.draw(programs(dtypes=(float32,)))
        arguments = draw_arguments(program, data.draw(extents(program)))
        check_results(program, arguments, run(program, arguments))

Programs are numerically tame unless `special=True`: every value's bounds are tracked, an operand that may
leave a function's domain is mapped into it first, and functions with jumps (comparisons, rounding,
conversions to integers) act only on values that are exact on every target, so that rounding never decides an
outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tilewright.dsl import language as tw
from tilewright.dsl import scalars
from tilewright.dsl.axes import base, batch_axes, is_batch_axis, union
from tilewright.dsl.dtypes import DType, bool_, float16, float32, float64, int8, int32, int64
from tilewright.dsl.expression import Expr, cast, constant
from tilewright.dsl.program import COMBINES, Index, Param, Program, Read, Result, Size, scattered
from tilewright.dsl.scalars import COPYING, SCALARS, ScalarFunction
from tilewright.dsl.simplify import holds
from tilewright.dsl.verify import verify

AXES = ("i", "j", "k")
LONGEST_EXTENT = 64
LARGEST = 1e4
READ_BOUND = 2.0

# Domains narrower than the scalar table's, for functions that are steep or many-valued in it; one pair an
# operand.
DOMAINS: dict[str, tuple[tuple[float, float], ...]] = {
    "exp": ((-4, 4),),
    "exp2": ((-4, 4),),
    "expm1": ((-4, 4),),
    "sinh": ((-4, 4),),
    "cosh": ((-4, 4),),
    "log": ((0.2, 50),),
    "log2": ((0.2, 50),),
    "log1p": ((-0.8, 50),),
    "rsqrt": ((0.2, 50),),
    "sqrt": ((0.2, 50),),
    "tan": ((-1.2, 1.2),),
    "asin": ((-0.9, 0.9),),
    "acos": ((-0.9, 0.9),),
    "atanh": ((-0.9, 0.9),),
    "acosh": ((1.2, 50),),
    "lgamma": ((2.5, 20),),
    "digamma": ((2.5, 20),),
    "sin": ((-8, 8),),
    "cos": ((-8, 8),),
    "fmod": ((-LARGEST, LARGEST), (0.5, LARGEST)),
    "mod": ((-LARGEST, LARGEST), (0.5, LARGEST)),
    "floordiv": ((-LARGEST, LARGEST), (0.5, LARGEST)),
    "div": ((-LARGEST, LARGEST), (0.3, 20)),
    "atan2": ((-20, 20), (0.3, 20)),
    "pow": ((0.3, 4), (-3, 3)),
    "erf": ((-6, 6),),
    "erfc": ((-4, 4),),
}
_UNBOUNDED = {
    "add",
    "sub",
    "mul",
    "neg",
    "abs",
    "sign",
    "minimum",
    "maximum",
    "floor",
    "ceil",
    "round",
    "trunc",
}
_UNBOUNDED |= {"atan", "tanh", "asinh", "sigmoid", "softplus", "isnan", "isinf", "isfinite"}
_UNBOUNDED |= {"stop_gradient", "recomputed", "kept"}
_UNBOUNDED |= {"mantissa", "exponent"}

JUMPING = {"sign", "floor", "ceil", "round", "trunc", "floordiv", "mod", "fmod", "mantissa", "exponent"}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_NEVER = {"polygamma", "where"}
_TAME = {64: np.inf, 32: np.inf, 16: 1000.0, 8: 300.0}  # up to where values become floats of so many bits


@dataclass(frozen=True, eq=False)
class Value:
    """An expression, the bounds of its values (None for bool), and whether it is exact on every target."""

    expression: Expr
    low: float
    high: float
    exact: bool

    @property
    def dtype(self) -> DType:
        return self.expression.dtype

    @property
    def axes(self) -> tuple[str, ...]:
        return self.expression.axes


def _rows(rule: Callable[..., Any], arity: int, functions: Collection[str] | None) -> list[ScalarFunction]:
    allowed = set(SCALARS if functions is None else functions) - _NEVER
    return [
        row for row in SCALARS.values() if row.types is rule and row.arity == arity and row.name in allowed
    ]


class _Builder:
    """Grows a pool of values by drawing one step at a time."""

    def __init__(self, draw: Callable[[Any], Any], options: dict[str, Any]):
        self.draw = draw
        dtypes = tuple(options["dtypes"])
        self.dtypes: Sequence[DType] = (*(d for d in dtypes if d.is_float), *dtypes)
        self.functions: Collection[str] | None = options["functions"]
        self.special: bool = options["special"]
        self.batch: bool = options["batch"]
        self.max_rank: int = options["max_rank"]
        self.params: list[Param] = []
        self.used: list[Value] = []
        self.pool: list[Value] = []
        self.steps = [self.unary, self.binary] * 3 + [self.choose, self.convert, self.number]
        self.steps += [self.position] * bool(options["positions"])
        self.steps += [self.rename] * bool(options["renames"])
        self.steps += [self.reduce] * (2 * bool(options["reductions"]))
        self.steps += [self.scan] * (2 * bool(options["scans"]))
        self.steps += [self.index, self.index, self.sort, self.scatter] * (5 * bool(options["indexing"]))
        self.steps += [self.contract] * (2 * bool(options["contractions"] and options["reductions"]))
        self.steps += [self.random_bits] * bool(options["positions"])

    # --- leaves -----------------------------------------------------------------------------------------

    def operand(self) -> None:
        named = self.draw(st.lists(st.sampled_from(AXES), unique=True, max_size=len(AXES), min_size=0))
        rank = self.draw(st.sampled_from((0, 0, 1, 2))) if self.batch else 0
        dtype = self.draw(st.sampled_from(self.dtypes))
        axes = (*batch_axes(rank), *named)
        name = "abcdefgh"[len(self.params)]
        self.params.append(Param(name, axes, dtype))
        low, high = value_bounds(dtype)
        self.pool.append(Value(Expr(Read(name, axes, dtype)), low, high, exact=True))

    def position(self) -> None:
        axes = sorted({axis for param in self.params for axis in param.axes if axis in AXES})
        if axes:
            axis = self.draw(st.sampled_from(axes))
            node = self.draw(st.sampled_from((Index(axis), Size(axis))))
            self._add(Expr(node), 0, LONGEST_EXTENT, exact=True)

    def number(self) -> None:
        dtype = self.draw(st.sampled_from(self.dtypes))
        choices = (0.5, 2.0, -1.0, 0.0, 1.5, -3.0)
        if self.special and dtype.is_float:
            choices += (float("inf"), float("-inf"), float("nan"), -0.0)
        value = self.draw(st.sampled_from(choices if dtype.is_float else (1, 2, 0, 3)))
        self._add(constant(value, dtype), float(value), float(value), exact=True)

    def rename(self) -> None:
        values = [v for v in self.pool if isinstance(v.expression.node, Read) and set(v.axes) & set(AXES)]
        if not values:
            return
        value = self.draw(st.sampled_from(values))
        axis = self.draw(st.sampled_from([a for a in value.axes if a in AXES]))
        names = [f"{a}2" if a == axis else a for a in value.axes]
        read = value.expression.node
        assert isinstance(read, Read)
        expression = Expr(Read(read.param, tuple(names), read.type))
        self._add(expression, value.low, value.high, exact=True)

    # --- functions --------------------------------------------------------------------------------------

    def unary(self) -> None:
        value = self._any()
        rows = [r for rule in self._rules(value.dtype) for r in _rows(rule, 1, self.functions)]
        rows += _rows(scalars.marking, 1, self.functions)
        self._apply(rows, [value])

    def binary(self) -> None:
        first = self._any()
        second = self._any(lambda v: v.dtype == first.dtype and self._fits(v, first)) or first
        rows = [r for rule in self._rules(first.dtype) for r in _rows(rule, 2, self.functions)]
        rows += _rows(scalars.comparison, 2, self.functions)
        self._apply(rows, [first, second])

    def _rules(self, dtype: DType) -> tuple[Callable[..., Any], ...]:
        if dtype.is_float:
            return (scalars.floating, scalars.arithmetic, scalars.predicate, scalars.whole)
        if dtype.is_bool:
            return (scalars.bitwise,)
        return (
            scalars.arithmetic,
            scalars.bitwise,
            scalars.shifting,
            *[scalars.from_bits] * (dtype == int64),
        )

    def _apply(self, rows: list[ScalarFunction], values: list[Value]) -> None:
        exact = all(v.exact for v in values)
        jumps = {*JUMPING, *COMPARISONS}
        rows = [r for r in rows if exact or r.name not in jumps or not values[0].dtype.is_float]
        if not rows:
            return
        row = self.draw(st.sampled_from(rows))
        if values[0].dtype.is_float and row.name in JUMPING and row.arity == 2:
            values = [values[0], self._away_from_zero(values[1])]
        elif values[0].dtype.is_float:
            values = [self._in_domain(v, domain) for v, domain in zip(values, _domains(row), strict=True)]
        if values[0].dtype.is_integer and not self.special and row.name in ("floordiv", "mod", "shl", "shr"):
            values = [values[0], self._integer_within(values[1], 1 if row.name in ("floordiv", "mod") else 0)]
        expression = row(*(v.expression for v in values))
        low, high = (0, 1) if expression.dtype.is_bool else _bounds(row, values)
        self._add(expression, low, high, exact=_is_exact(row, values))

    def random_bits(self) -> None:
        rows = _rows(scalars.random_word, 3, self.functions)
        self.position()
        values = [self._any(lambda v: v.dtype == int64) for _ in range(2)]
        if not rows or None in values or not self._fits(*values):
            return
        stream = constant(self.draw(st.sampled_from((0, -1, 2**40 + 3))), int64)
        word = self.draw(st.sampled_from(rows))(*(v.expression for v in values), stream)
        if self.draw(st.booleans()):
            self._add(word & 15, 0, 15, exact=True)
        else:
            self._add(word < 0, 0, 1, exact=True)

    def choose(self) -> None:
        first = self._any()
        second = self._any(lambda v: v.dtype == first.dtype and self._fits(v, first)) or first
        condition = self._any(lambda v: v.dtype.is_bool) or self._condition()
        if not self._fits(condition, first, second):
            return
        expression = tw.where(condition.expression, first.expression, second.expression)
        low, high = min(first.low, second.low), max(first.high, second.high)
        self._add(expression, low, high, exact=first.exact and second.exact)

    def _condition(self) -> Value:
        value = self._any(lambda v: v.exact and not v.dtype.is_bool)
        if value is None:
            return Value(constant(True, bool_), 0, 1, exact=True)
        return Value(value.expression > 0, 0, 1, exact=True)

    def convert(self) -> None:
        value = self._any()
        floats = [d for d in self.dtypes if d.is_float]
        targets = [d for d in (*floats, int64, int32) if value.exact or d.is_float]
        if not value.dtype.is_float or not self.special:
            targets = [d for d in targets if d.is_float or value.high <= 100 >= -value.low]
        targets = [d for d in targets if not d.is_float or value.high <= _TAME[d.bits] >= -value.low]
        if targets:
            target = self.draw(st.sampled_from(targets))
            holding = target.bits >= value.dtype.bits > 8 or holds(target, value.dtype)
            keeps = value.exact and (value.dtype.is_bool or holding or target.is_integer)
            self._add(cast(value.expression, target), value.low, value.high, exact=keeps)

    # --- reductions -------------------------------------------------------------------------------------

    def reduce(self) -> None:
        value = None
        if self.draw(st.integers(0, 3)) == 3:
            value = self._any(lambda v: bool(v.axes) and v.dtype.is_bool)
        value = value or self._any(lambda v: bool(v.axes))
        if value is None:
            return
        combines = ("any", "all") if value.dtype.is_bool else COMBINES[:4]
        combine = self.draw(st.sampled_from(combines))
        over = self.draw(st.lists(st.sampled_from(value.axes), unique=True, min_size=1, max_size=2))
        if combine == "prod":
            if not value.dtype.is_float:
                return
            value = self._in_domain(value, (0.9, 1.1))
        self._reduce(combine, value, tuple(over))

    def contract(self) -> None:
        first = self._any(lambda v: v.dtype.is_float and bool(v.axes))
        if first is None:
            return
        second = self._any(
            lambda v: v.dtype == first.dtype and bool(set(v.axes) & set(first.axes)) and self._fits(v, first)
        )
        if second is None:
            return
        axis = self.draw(st.sampled_from([a for a in first.axes if a in second.axes]))
        low, high = _bounds(scalars.mul, [first, second])
        product = Value(first.expression * second.expression, low, high, exact=False)
        self._reduce("sum", product, (axis,))

    def _reduce(self, combine: str, value: Value, over: tuple[str, ...]) -> None:
        expression = getattr(tw, combine)(value.expression, over)
        low, high = value.low, value.high
        count = LONGEST_EXTENT ** len(over)
        if combine == "sum":
            low, high = min(0.0, low * count), max(0.0, high * count)
        if combine == "prod":
            low, high = 0.9**count if count < 6000 else 0.0, 1.1**64
        if combine in ("max", "min") and value.dtype.is_float:
            low, high = min(low, 0), max(high, 0)
        exact = combine not in ("sum", "prod") or not value.dtype.is_float
        self._add(expression, low, high, exact=exact and value.exact)

    # --- indexing ---------------------------------------------------------------------------------------

    def index(self) -> None:
        """A value at shifted, reversed, strided, windowed or read positions, some of them outside."""
        value = self._any(lambda v: bool(set(v.axes) & set(self._extents())))
        if value is None:
            return
        axis = self.draw(st.sampled_from([a for a in value.axes if a in self._extents()]))
        position = self._position(axis)
        if position is None or len({*value.axes, *position.axes}) > self.max_rank:
            return
        fill = self.draw(st.sampled_from((0, 1))) if not value.dtype.is_bool else 0
        expression = value.expression.at(fill=fill, **{axis: position})
        self._add(expression, min(value.low, 0), max(value.high, 1), value.exact)

    def _extents(self) -> list[str]:
        return sorted({axis for param in self.params for axis in param.axes if axis in AXES})

    def _position(self, axis: str) -> Expr | None:
        kinds = ("shift", "shift", "reverse", "stride", "window", "read", "quotient")
        kind = self.draw(st.sampled_from(kinds))
        along = Expr(Index(self.draw(st.sampled_from(self._extents()))))
        amount = self.draw(st.integers(-2, 3))
        if kind == "shift":
            return along + amount
        if kind == "reverse":
            return Expr(Size(axis)) - 1 - along
        if kind == "stride":
            return along * 2 + amount
        if kind == "window":
            return along + Expr(Index(self.draw(st.sampled_from(self._extents())))) + amount
        if kind == "quotient":
            return (along + amount) // 2
        places = self._places()
        return None if places is None else cast(places.expression, int64)

    def _places(self) -> Value | None:
        """Whole numbers to stand for positions: those of the program, else made of a position."""
        places = self._any(lambda v: v.dtype.is_integer and v.exact and bool(v.axes))
        if places is not None or not self._extents():
            return places
        along = Expr(Index(self.draw(st.sampled_from(self._extents()))))
        factor = self.draw(st.integers(1, 5))
        return Value(along * factor % 7 - 1, -1, 6, exact=True)

    def sort(self) -> None:
        value = self._any(lambda v: v.exact and bool(set(v.axes) & set(self._extents())))
        if value is None:
            return
        axis = self.draw(st.sampled_from([a for a in value.axes if a in self._extents()]))
        descending = self.draw(st.booleans())
        if self.draw(st.booleans()):
            ordered = tw.sort(value.expression, axis, descending=descending)
            self._add(ordered, value.low, value.high, exact=True)
        else:
            order = tw.argsort(value.expression, axis, descending=descending)
            self._add(order, 0, LONGEST_EXTENT, exact=True)

    def scatter(self) -> None:
        value = self._any(lambda v: v.dtype.is_float and bool(v.axes))
        places = self._places()
        if value is None or places is None:
            return
        inside = union(value.axes, places.axes)
        over = tuple(self.draw(st.lists(st.sampled_from(inside), unique=True, min_size=1, max_size=2)))
        free = [a for a in self._extents() if a not in inside or a in over]
        if not free:
            return
        position = cast(places.expression, int64).node
        node = scattered((self.draw(st.sampled_from(free)),), over, value.expression.node, (position,))
        count = LONGEST_EXTENT ** len(over)
        self._add(Expr(node), min(0.0, value.low * count), max(0.0, value.high * count), exact=False)

    # --- scans ------------------------------------------------------------------------------------------

    def scan(self) -> None:
        value = self._any(lambda v: any(not is_batch_axis(a) for a in v.axes))
        if value is None:
            return
        axis = self.draw(st.sampled_from([a for a in value.axes if not is_batch_axis(a)]))
        names = ["cummax", "cummin"]
        names += ["argcummax", "argcummin"] * value.exact
        names += ["cumsum"] * (not value.dtype.is_bool)
        names += ["cumprod", "logcumsumexp", "linear"] * value.dtype.is_float
        name = self.draw(st.sampled_from(names))
        reverse = self.draw(st.booleans())
        exclusive = self.draw(st.booleans())
        if name == "linear":
            self._linear_recurrence(value, axis, reverse, exclusive)
        elif name.startswith("arg"):
            expression = getattr(tw, name)(value.expression, axis, reverse=reverse)
            self._add(expression, 0, LONGEST_EXTENT, exact=True)
        else:
            self._named_scan(name, value, axis, reverse, exclusive)

    def _named_scan(self, name: str, value: Value, axis: str, reverse: bool, exclusive: bool) -> None:
        if name in ("cummax", "cummin", "logcumsumexp") and not value.dtype.is_bool:
            exclusive = exclusive and self.special  # it would begin with an infinity
        if name == "cumprod":
            value = self._in_domain(value, (0.9, 1.1))
        if name == "logcumsumexp":
            value = self._in_domain(value, (-4.0, 4.0))
        expression = getattr(tw, name)(value.expression, axis, reverse=reverse, exclusive=exclusive)
        low, high = value.low, value.high
        if name == "cumsum":
            low, high = min(0.0, low * LONGEST_EXTENT), max(0.0, high * LONGEST_EXTENT)
        if name == "cumprod":
            low, high = 0.9**LONGEST_EXTENT, 1.1**LONGEST_EXTENT
        if name == "logcumsumexp":
            high += 5  # log 64
        exact = name in ("cummax", "cummin") or not value.dtype.is_float
        self._add(expression, low, high, exact=exact and value.exact)

    def _linear_recurrence(self, value: Value, axis: str, reverse: bool, exclusive: bool) -> None:
        """h[t] = a[t] · h[t - 1] + b[t]"""
        decay = self._any(lambda v: v.dtype == value.dtype and self._fits(v, value)) or value
        decay = self._in_domain(decay, (-1.0, 1.0))
        results = tw.scan(
            lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1]),
            (decay.expression, value.expression),
            axis,
            reverse=reverse,
            exclusive=exclusive,
            initial=(1.0, 0.5) if exclusive else None,
        )
        bound = 1 + LONGEST_EXTENT * max(abs(value.low), abs(value.high))
        self._add(results[1], -bound, bound, exact=False)

    # --- bounds -----------------------------------------------------------------------------------------

    def _any(self, which: Callable[[Value], bool] = lambda value: True) -> Any:
        """A value of the pool; those that nothing uses yet come first and are likelier."""
        values = [v for v in self.pool if which(v)][::-1]
        if not values:
            return None
        unused = [v for v in values if v not in self.used]
        value = self.draw(st.sampled_from(unused * 3 + values))
        self.used.append(value)
        return value

    def _fits(self, *values: Value) -> bool:
        return len({axis for value in values for axis in value.axes}) <= self.max_rank

    def _in_domain(self, value: Value, domain: tuple[float, float]) -> Value:
        """The value, mapped into `domain` by a multiplication and an addition where it may leave it."""
        low, high = domain
        if self.special or (low <= value.low and value.high <= high):
            return value
        scale = 0.0 if value.high == value.low else (high - low) / (value.high - value.low)
        scale = min(1.0, float(np.float32(scale)))
        shift = float(np.float32((low + high) / 2 - scale * (value.low + value.high) / 2))
        return Value(value.expression * scale + shift, low, high, exact=False)

    def _away_from_zero(self, value: Value) -> Value:
        """max(|value|, 1/2), which is as exact as the value."""
        if self.special:
            return value
        expression = tw.maximum(abs(value.expression), 0.5)
        return Value(expression, 0.5, max(0.5, abs(value.low), abs(value.high)), value.exact)

    def _integer_within(self, value: Value, low: int) -> Value:
        if low <= value.low and value.high <= 7:
            return value
        return Value(tw.minimum(tw.maximum(value.expression, low), 7), low, 7, exact=True)

    def _add(self, expression: Expr, low: float, high: float, exact: bool) -> None:
        if self.special:
            low, high = (float(np.clip(np.nan_to_num(bound), -LARGEST, LARGEST)) for bound in (low, high))
        tame = low >= -LARGEST and high <= LARGEST
        value = Value(expression, low, high, exact)
        if not tame and expression.dtype.is_float:
            value = self._in_domain(value, (-8.0, 8.0))
        elif not tame:
            return
        if self._fits(value):
            self.pool.append(value)


def value_bounds(dtype: DType) -> tuple[float, float]:
    """The smallest and largest value that `draw_arguments` gives an operand of this dtype."""
    if dtype.is_float:
        return -READ_BOUND, READ_BOUND
    return (0, 1) if dtype.is_bool else (0 if dtype.kind == "uint" else -5, 5)


def _domains(row: ScalarFunction) -> tuple[tuple[float, float], ...]:
    if row.name in DOMAINS:
        return DOMAINS[row.name]
    return ((-LARGEST, LARGEST) if row.name in _UNBOUNDED else row.domain,) * row.arity


def _is_exact(row: ScalarFunction, values: list[Value]) -> bool:
    if not values[0].dtype.is_float:
        return True
    exact = (*COPYING, *COMPARISONS, "isnan", "isinf", "isfinite", "exponent")
    return row.name in exact and all(v.exact for v in values)


_RANGES = {scalars.from_bits: (-9.2, 9.2), scalars.whole: (-1074, 1024)}


def _bounds(row: ScalarFunction, values: list[Value]) -> tuple[float, float]:
    """The smallest and largest result on a grid between the operands' bounds, and a little more."""
    if row.types in _RANGES:
        return _RANGES[row.types]
    if values[0].dtype.is_integer:
        return _integer_bounds(row, values)
    grids = np.meshgrid(*(np.linspace(v.low, v.high, 41) for v in values))
    with np.errstate(all="ignore"):
        results = np.asarray(row.numpy(*grids), np.float64)
    results = results[np.isfinite(results)]
    if not results.size:
        return -LARGEST, LARGEST
    margin = 0.02 * float(results.max() - results.min()) + 1e-6
    exact = row.name in COPYING
    return float(results.min()) - margin * (not exact), float(results.max()) + margin * (not exact)


def _integer_bounds(row: ScalarFunction, values: list[Value]) -> tuple[float, float]:
    if row.types is scalars.bitwise or row.name in ("shr", "sign", "mod", "floordiv"):
        bound = 2 * max(abs(b) for v in values for b in (v.low, v.high)) + 1
        return -bound, bound
    corners = [np.int64(v.low) for v in values[:1]], [np.int64(v.high) for v in values[:1]]
    if len(values) == 1:
        results = [int(row.numpy(corner[0])) for corner in corners] + [0]
    else:
        a, b = values
        results = [int(row.numpy(np.int64(x), np.int64(y))) for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(results), max(results)


@st.composite
def programs(
    draw: Callable[[Any], Any],
    max_nodes: int = 10,
    dtypes: Sequence[DType] = (float32, float16, float64, int64, int32, int8, bool_),
    *,
    reductions: bool = True,
    scans: bool = False,
    indexing: bool = False,
    contractions: bool = True,
    renames: bool = True,
    positions: bool = True,
    batch: bool = True,
    functions: Collection[str] | None = None,
    max_rank: int = 4,
    max_results: int = 2,
    special: bool = False,
) -> Program:
    """A random Program of at most `max_nodes` steps over operands of `dtypes`.

    `functions` limits the rows of the scalar table; `max_rank` the axes of any value. Shrinks towards one
    operand, few steps and one result.
    """
    options = {key: value for key, value in locals().items() if key != "draw"}
    builder = _Builder(draw, options)
    for _ in range(draw(st.integers(1, 3))):
        builder.operand()
    for _ in range(draw(st.integers(1, max_nodes))):
        draw(st.sampled_from(builder.steps))()
    results = _results(draw, builder, max_results)
    return verify(Program("random", tuple(builder.params), results), "generation")


def _results(draw: Callable[[Any], Any], builder: _Builder, max_results: int) -> tuple[Result, ...]:
    count = draw(st.integers(1, max_results))
    values = [builder.pool[-1]] + [draw(st.sampled_from(builder.pool[::-1])) for _ in range(count - 1)]
    names = ["y"] if count == 1 else [f"y{position}" for position in range(count)]
    return tuple(
        Result(name, value.expression.node, tuple(draw(st.permutations(value.axes))))
        for name, value in zip(names, values, strict=True)
    )


def extents(program: Program, sizes: Sequence[int] = (3, 1, 2, 8, 17)) -> st.SearchStrategy[dict[str, int]]:
    """Extents of the operands' axes. Add 0 to `sizes` for empty axes; none above 64 keeps programs tame."""
    axes = sorted({base(axis) for param in program.params for axis in param.axes})
    return st.fixed_dictionaries({axis: st.sampled_from(sizes) for axis in axes})


def draw_arguments(
    program: Program, extents: Mapping[str, int], seed: int = 0, special: bool = False
) -> dict[str, np.ndarray]:
    """Operands of these extents: floats between -2 and 2 with ties among them, small integers, bools.

    With `special`, one value in five is a NaN, an infinity, a zero of either sign, or near the dtype's
    limits.
    """
    random = np.random.default_rng(seed)
    return {
        p.name: _array(p.dtype, tuple(extents[base(a)] for a in p.axes), random, special)
        for p in program.params
    }


def _array(dtype: DType, shape: tuple[int, ...], random: np.random.Generator, special: bool) -> np.ndarray:
    low, high = value_bounds(dtype)
    if not dtype.is_float:
        values = random.integers(int(low), int(high), shape, np.int64, endpoint=True)
        if special and dtype.is_integer:
            edges = random.choice([*dtype.range, 0], shape)
            values = np.where(random.random(shape) < 0.2, edges, values)
        return np.asarray(values).astype(dtype.numpy)
    values = random.uniform(low, high, shape)
    values = np.where(random.random(shape) < 0.3, np.round(values * 2) / 2, values)
    if special:
        largest = 448 if dtype.bits == 8 else 6e4 if dtype.bits == 16 else 3e38 if dtype.bits == 32 else 1e308
        edges = [np.nan, np.inf, -np.inf, 0.0, -0.0, largest, -largest, 1 / largest]
        values = np.where(random.random(shape) < 0.2, random.choice(edges, shape), values)
    return np.asarray(values).astype(dtype.numpy)
