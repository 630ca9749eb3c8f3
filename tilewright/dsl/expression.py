"""Expressions: what a user's op computes with while it is traced, and what rules are written in.

An `Expr` wraps a `Node` and gives it operators, promotion and error messages. Python numbers are weakly
typed: they take the dtype of the expression that they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.dsl import scalars
from tilewright.dsl.axes import ELLIPSIS, is_batch_axis, split_names
from tilewright.dsl.dtypes import DType, as_dtype, bool_, float32, int64, promote
from tilewright.dsl.program import Cast, Const, Map, Node, Read, Reduce, rename
from tilewright.dsl.scalars import ScalarFunction
from tilewright.errors import AxisError, DTypeError, LanguageError

# Set by the layer that knows arrays and Tensors: how `tw.exp(tensor)` works outside of an op.
eager_apply: Callable[[ScalarFunction, tuple[Any, ...]], Any] | None = None


class Expr:
    """A value of the language: a node with operators."""

    __slots__ = ("node",)
    __array_ufunc__ = None

    def __init__(self, node: Node):
        self.node = node

    @property
    def axes(self) -> tuple[str, ...]:
        return self.node.axes

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    def constant_value(self) -> float | int | bool:
        node = self.node.arg if isinstance(self.node, Cast) else self.node
        if not isinstance(node, Const):
            raise LanguageError("this operand must be a number that is known when the op is traced")
        return node.value

    def __repr__(self) -> str:
        from tilewright.dsl.formula import formula

        return f"<{formula(self.node)} : {self.dtype}[{' '.join(self.axes)}]>"

    def __bool__(self) -> bool:
        raise LanguageError(
            "a tile's value is not known while the op is traced, so `if`, `and`, `or`, `not`, `while` and "
            "chained comparisons cannot look at it; write tw.where(condition, a, b) to choose, and & | ~ to "
            "combine conditions"
        )

    def __iter__(self) -> Any:
        raise LanguageError("a tile cannot be looped over; name its axis and reduce it, as in tw.sum(x, 'i')")

    def __len__(self) -> int:
        raise LanguageError("the extent of an axis is tw.size('i'), not len(x)")

    def __float__(self) -> float:
        raise LanguageError(
            "a tile's value is not known while the op is traced; use tw functions, not math functions"
        )

    __int__ = __index__ = __complex__ = __float__

    def __getitem__(self, names: Any) -> Expr:
        return renamed(self, names)

    def __hash__(self) -> int:
        return hash(self.node)

    # fmt: off
    def __add__(self, other: Any) -> Expr: return apply(scalars.add, (self, other))
    def __radd__(self, other: Any) -> Expr: return apply(scalars.add, (other, self))
    def __sub__(self, other: Any) -> Expr: return apply(scalars.sub, (self, other))
    def __rsub__(self, other: Any) -> Expr: return apply(scalars.sub, (other, self))
    def __mul__(self, other: Any) -> Expr: return apply(scalars.mul, (self, other))
    def __rmul__(self, other: Any) -> Expr: return apply(scalars.mul, (other, self))
    def __truediv__(self, other: Any) -> Expr: return apply(scalars.div, (self, other))
    def __rtruediv__(self, other: Any) -> Expr: return apply(scalars.div, (other, self))
    def __floordiv__(self, other: Any) -> Expr: return apply(scalars.floordiv, (self, other))
    def __rfloordiv__(self, other: Any) -> Expr: return apply(scalars.floordiv, (other, self))
    def __mod__(self, other: Any) -> Expr: return apply(scalars.mod, (self, other))
    def __rmod__(self, other: Any) -> Expr: return apply(scalars.mod, (other, self))
    def __pow__(self, other: Any) -> Expr: return power(self, other)
    def __rpow__(self, other: Any) -> Expr: return power(other, self)
    def __neg__(self) -> Expr: return apply(scalars.neg, (self,))
    def __pos__(self) -> Expr: return self
    def __abs__(self) -> Expr: return apply(scalars.abs_, (self,))
    def __eq__(self, other: Any) -> Any: return apply(scalars.eq, (self, other))
    def __ne__(self, other: Any) -> Any: return apply(scalars.ne, (self, other))
    def __lt__(self, other: Any) -> Expr: return apply(scalars.lt, (self, other))
    def __le__(self, other: Any) -> Expr: return apply(scalars.le, (self, other))
    def __gt__(self, other: Any) -> Expr: return apply(scalars.gt, (self, other))
    def __ge__(self, other: Any) -> Expr: return apply(scalars.ge, (self, other))
    def __and__(self, other: Any) -> Expr: return apply(scalars.and_, (self, other))
    def __rand__(self, other: Any) -> Expr: return apply(scalars.and_, (other, self))
    def __or__(self, other: Any) -> Expr: return apply(scalars.or_, (self, other))
    def __ror__(self, other: Any) -> Expr: return apply(scalars.or_, (other, self))
    def __xor__(self, other: Any) -> Expr: return apply(scalars.xor, (self, other))
    def __rxor__(self, other: Any) -> Expr: return apply(scalars.xor, (other, self))
    def __invert__(self) -> Expr: return apply(scalars.not_, (self,))
    def __lshift__(self, other: Any) -> Expr: return apply(scalars.shl, (self, other))
    def __rshift__(self, other: Any) -> Expr: return apply(scalars.shr, (self, other))
    # fmt: on


def constant(value: Any, dtype: DType) -> Expr:
    return Expr(Const(value, dtype))


def lift(value: Any, like: DType | None = None) -> Expr:
    """`value` as an expression: numbers take the dtype `like` where it can hold them."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Node):
        return Expr(value)
    if isinstance(value, (bool, np.bool_)):
        return constant(bool(value), bool_)
    if isinstance(value, (int, np.integer)):
        return constant(int(value), like if like and not like.is_bool else int64)
    if isinstance(value, (float, np.floating)):
        return constant(float(value), like if like and like.is_float else float32)
    raise LanguageError(
        f"{type(value).__name__} {value!r} cannot be part of an op's formula; use numbers, tiles and "
        f"tw functions, and pass arrays as Tile parameters"
    )


def cast(value: Any, dtype: Any) -> Expr:
    """`value` converted: float → int truncates towards zero, anything → bool is `value != 0`."""
    expression, target = lift(value), as_dtype(dtype)
    if expression.dtype == target:
        return expression
    if isinstance(expression.node, Const) and target.is_float:
        return constant(float(expression.node.value), target)
    if target.is_bool:
        return apply(scalars.ne, (expression, 0))
    return Expr(Cast(expression.node, target))


def apply(row: ScalarFunction, operands: tuple[Any, ...]) -> Any:
    """A row of the scalar table applied to operands that are brought to one dtype."""
    if not any(isinstance(operand, (Expr, Node)) for operand in operands):
        return _apply_to_numbers(row, operands)
    if len(operands) != row.arity:
        raise LanguageError(f"{row.name} takes {row.arity} operands, got {len(operands)}")
    if row.name == "where":
        condition = lift(operands[0])
        operands = (condition, *_unify(row, operands[1:]))
    else:
        operands = _unify(row, operands)
    return Expr(Map(row.name, tuple(o.node for o in operands)))


def _apply_to_numbers(row: ScalarFunction, operands: tuple[Any, ...]) -> Any:
    if all(isinstance(operand, (bool, int, float, np.generic)) for operand in operands):
        with np.errstate(all="ignore"):
            return np.asarray(row.numpy(*operands)).item()
    if eager_apply is not None:
        return eager_apply(row, operands)
    raise LanguageError(f"tw.{row.name} works on tiles inside an op and on arrays and Tensors outside")


def _unify(row: ScalarFunction, operands: tuple[Any, ...]) -> tuple[Expr, ...]:
    typed = [o.dtype for o in map(_as_expr, operands) if o is not None]
    common = typed[0] if typed else float32
    for dtype in typed[1:]:
        common = promote(common, dtype)
    weak = [o for o in operands if _as_expr(o) is None]
    if not common.is_float and any(isinstance(o, (float, np.floating)) for o in weak):
        common = float32
    if common.is_bool and any(
        isinstance(o, (int, np.integer)) and not isinstance(o, (bool, np.bool_)) for o in weak
    ):
        common = int64
    if row.types is scalars.floating and not common.is_float:
        common = float32
    if row.types is scalars.arithmetic and common.is_bool:
        common = int64
    if row.types is not scalars.bitwise and row.types is not scalars.comparison and row.name != "where":
        common = common.compute
    _check_integers_fit(row, weak, common)
    return tuple(cast(lift(o, common), common) for o in operands)


def _check_integers_fit(row: ScalarFunction, weak: list[Any], common: DType) -> None:
    if not common.is_integer:
        return
    low, high = (
        (0, 2**common.bits - 1)
        if common.kind == "uint"
        else (-(2 ** (common.bits - 1)), 2 ** (common.bits - 1) - 1)
    )
    for value in weak:
        if not low <= int(value) <= high:
            raise DTypeError(
                f"{value} does not fit {common.name}, the dtype of the other operand of {row.name}; "
                f"write tw.cast(x, tw.int64)"
            )


def _as_expr(value: Any) -> Expr | None:
    if isinstance(value, Expr):
        return value
    return Expr(value) if isinstance(value, Node) else None


def power(base: Any, exponent: Any) -> Any:
    """base ** exponent; small whole and half exponents become products and roots, which are cheap."""
    whole = (
        isinstance(exponent, (int, float)) and not isinstance(exponent, bool) and float(exponent).is_integer()
    )
    if whole and isinstance(base, Expr) and abs(exponent) <= 64:
        if base.dtype.is_integer and exponent < 0:
            base = cast(base, float32)
        positive = _whole_power(base, abs(int(exponent)))
        return 1 / positive if exponent < 0 else positive
    if isinstance(exponent, float) and exponent == 0.5:
        return scalars.sqrt(base)
    if isinstance(exponent, float) and exponent == -0.5:
        return scalars.rsqrt(base)
    return apply(scalars.power, (base, exponent))


def _whole_power(base: Expr, exponent: int) -> Expr:
    if exponent == 0:
        return constant(1, base.dtype)
    if exponent == 1:
        return base
    half = _whole_power(base, exponent // 2)
    square = half * half
    return square * base if exponent % 2 else square


def renamed(value: Expr, names: Any) -> Expr:
    """The same operand read under other axis names, position by position: `x["j d"]`."""
    if not isinstance(names, str):
        raise LanguageError(
            f'a tile is not indexed by position; write its axes\' new names, as in x["j d"], got x[{names!r}]'
        )
    wanted = split_names(names)
    batch = tuple(a for a in value.axes if is_batch_axis(a))
    if ELLIPSIS in wanted:
        wanted = wanted[: wanted.index(ELLIPSIS)] + batch + wanted[wanted.index(ELLIPSIS) + 1 :]
    current = value.node.names if isinstance(value.node, Read) else value.axes
    if len(wanted) != len(current) and len(wanted) == len(current) - len(batch):
        wanted = batch + wanted
    if len(wanted) != len(current):
        raise AxisError(
            f"x[{names!r}] gives {len(wanted)} names to a tile with the axes ({' '.join(current)})"
        )
    return Expr(rename(value.node, dict(zip(current, wanted, strict=True))))


def resolve_axes(value: Expr, axes: Any, what: str) -> tuple[str, ...]:
    """The axes that a reduction names, checked against those of its operand; `None` means all of them."""
    if axes is None:
        return value.axes
    names = split_names(axes) if isinstance(axes, str) else tuple(axes)
    result: list[str] = []
    for name in names:
        if name == ELLIPSIS:
            result.extend(a for a in value.axes if is_batch_axis(a))
        elif name in value.axes:
            result.append(name)
        else:
            raise AxisError(
                f"{what} over {name!r}, but the expression has the axes ({' '.join(value.axes) or 'none'}); "
                f"it was summed away before, or never there: reduce before it disappears, or name one of "
                f"these"
            )
    return tuple(result)


def reduce(combine: str, value: Any, axes: Any = None) -> Expr:
    expression = lift(value)
    over = resolve_axes(expression, axes, combine)
    if combine in ("any", "all") and not expression.dtype.is_bool:
        expression = expression != 0
    if combine in ("sum", "prod") and not expression.dtype.is_float:
        expression = cast(expression, int64)
    if combine in ("max", "min") and expression.dtype.is_bool:
        combine = "any" if combine == "max" else "all"
    expression = cast(expression, expression.dtype.compute)
    return expression if not over else Expr(Reduce(combine, over, expression.node))
