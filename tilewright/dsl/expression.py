"""Expressions: what a user's op computes with while it is traced, and what rules are written in.

An `Expr` wraps a `Node` and gives it operators, promotion and error messages. Python numbers are weakly
typed: they take the dtype of the expression that they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.dsl import scalars
from tilewright.dsl.axes import ELLIPSIS, union
from tilewright.dsl.dtypes import DType, as_dtype, bool_, float32, int64, promote
from tilewright.dsl.foreign import OPERATORS, instead_of, instead_of_attribute, instead_of_numpy
from tilewright.dsl.program import Cast, Const, Map, Node, Read, Reduce, reduced
from tilewright.dsl.renaming import rename
from tilewright.dsl.scalars import ScalarFunction
from tilewright.dsl.scope import axis_names, caller_name, is_batch, is_unit, read_along, scope
from tilewright.errors import AxisError, DTypeError, LanguageError

# Set by the layer that knows arrays and Tensors: how `tw.exp(tensor)` works outside of an op.
eager_apply: Callable[[ScalarFunction, tuple[Any, ...]], Any] | None = None
eager_kind: type | None = None
eager_cast: Callable[[Any, Any], Any] | None = None


def merged(*groups: tuple[str, ...]) -> tuple[str, ...]:
    """All axes of several groups, in an order that keeps each group's own if it can: (d), (n d) → (n d)."""
    result: list[str] = []
    for group in groups:
        position = len(result)
        for axis in reversed(group):
            if axis in result:
                position = result.index(axis)
            else:
                result.insert(position, axis)
    return tuple(result)


class Expr:
    """A value of the language: a node with operators, and an order for its axes.

    `stated` is whether the formula itself says its dtype, by a cast around all of it.
    """

    __slots__ = ("_order", "node", "stated", "trace")

    def __init__(self, node: Node, order: tuple[str, ...] | None = None, stated: bool = False):
        self.node, self.stated = node, stated
        self._order = order or node.axes
        current = scope.get()
        self.trace = current.draws if current else None  # a tile of one trace has no meaning in another

    @property
    def axes(self) -> tuple[str, ...]:
        """Batch axes first, then the others in order of first appearance."""
        batch = tuple(a for a in self._order if is_batch(a))
        return batch + tuple(a for a in self._order if a not in batch)

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
            "chained comparisons cannot look at it; write tw.where(condition, a, b) to choose (tw.maximum "
            "for Python's max), and & | ~ to combine conditions"
        )

    def __iter__(self) -> Any:
        raise LanguageError("a tile cannot be looped over; name its axis and reduce it, as in tw.sum(x, 'i')")

    def __len__(self) -> int:
        raise LanguageError("the extent of an axis is tw.size('i'), not len(x)")

    def __float__(self) -> float:
        raise LanguageError(
            "a tile's value is not known while the op is traced, so it is no Python number; use tw functions "
            "(tw.exp, not math.exp) and tw.cast"
        )

    def __int__(self) -> int:
        return int(float(self))

    __index__ = __int__

    def __complex__(self) -> complex:
        return complex(float(self))

    def __format__(self, how: str) -> str:
        if how:
            raise LanguageError(
                f"a tile's value is not known while the op is traced, so it cannot be printed as {how!r}; "
                f"return it and print what the call gives"
            )
        return repr(self)

    @classmethod
    def __torch_function__(cls, function: Any, *args: Any, **keywords: Any) -> Any:
        raise LanguageError(instead_of("torch", function.__name__.strip("_"), "torch tensors"))

    def __array__(self, *args: Any, **keywords: Any) -> Any:
        raise LanguageError(
            "a tile is no NumPy array while the op is traced; use tw functions, as in tw.exp(x)"
        )

    def __array_function__(self, function: Any, *args: Any) -> Any:
        raise LanguageError(instead_of_numpy(function.__name__))

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        row = OPERATORS.get(function.__name__)
        operands = tuple(o[()] if isinstance(o, np.ndarray) and not o.ndim else o for o in inputs)
        numbers = [o for o in operands if isinstance(o, np.generic)]
        if method == "__call__" and row and len(numbers) == 1 and not keywords:
            return apply(row, operands)
        if method == "__call__" and any(isinstance(o, np.ndarray) for o in inputs):
            raise LanguageError(
                "a NumPy array cannot be part of an op's formula; pass it as a Tile parameter"
            )
        raise LanguageError(instead_of_numpy(function.__name__))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _AttributeError(instead_of_attribute(name))

    def __setitem__(self, names: Any, value: Any) -> None:
        raise LanguageError("a tile cannot be assigned to; write y = tw.where(condition, new, x)")

    def __getitem__(self, names: Any) -> Expr:
        return renamed(self, names)

    def at(self, *unnamed: Any, fill: Any = 0, **positions: Any) -> Expr:
        """The tile with the coordinate along each named axis replaced by a position, `fill` outside.

        y[i, …] = x[p(i), …] if 0 ≤ p(i) < size, else fill. A position is any integer expression, of
        positions along other axes (`x.at(h=tw.index("oh") * 2 + tw.index("r") - 1)`) or of values
        (`table.at(row=ids)`).
        """
        from tilewright.dsl.indexing import at_positions

        if unnamed:
            axis = self.axes[-1] if self.axes else "i"
            raise LanguageError(
                f"x.at(…) takes each position by the axis that it is along, as in x.at({axis}={unnamed[0]!r})"
            )
        return at_positions(self, positions, fill)

    def __hash__(self) -> int:
        return hash(self.node)

    # fmt: off
    def __matmul__(self, other: Any) -> Any: raise LanguageError(_NO_MATMUL)
    def __rmatmul__(self, other: Any) -> Any: raise LanguageError(_NO_MATMUL)
    def __divmod__(self, other: Any) -> tuple[Expr, Expr]: return self // other, self % other
    def __round__(self, digits: Any = None) -> Expr: return _rounded(self, digits)
    def __rlshift__(self, other: Any) -> Expr: return apply(scalars.shl, (other, self))
    def __rrshift__(self, other: Any) -> Expr: return apply(scalars.shr, (other, self))
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


_NO_MATMUL = "there is no `@`: a contraction is a product and a sum, as in tw.sum(a * b, 'k')"


class _AttributeError(LanguageError, AttributeError):
    """A missing attribute, in the words of the language."""


def _rounded(value: Expr, digits: Any) -> Expr:
    if digits is None:
        return apply(scalars.round_, (value,))
    raise LanguageError(
        f"tiles are rounded to whole numbers; write tw.round(x * 10**{digits}) / 10**{digits} for "
        f"{digits!r} digits"
    )


def constant(value: Any, dtype: DType) -> Expr:
    return Expr(Const(value, dtype))


def lift(value: Any, like: DType | None = None) -> Expr:
    """`value` as an expression: numbers take the dtype `like` where it can hold them."""
    if isinstance(value, Expr):
        _check_same_trace(value)
        return value
    if isinstance(value, Node):
        return Expr(value)
    if isinstance(value, (bool, np.bool_)):
        return constant(bool(value), bool_)
    if isinstance(value, (int, np.integer)):
        dtype = like if like and not like.is_bool else int64
        _check_fits(int(value), dtype, "the formula")
        return constant(int(value), dtype)
    if isinstance(value, (float, np.floating)):
        return constant(float(value), like if like and like.is_float else float32)
    if value is None:
        raise LanguageError(
            "None cannot be part of an op's formula; an optional operand that was not given is None: test it "
            "with `if bias is not None:`"
        )
    raise LanguageError(
        f"{type(value).__name__} {value!r} cannot be part of an op's formula; use numbers, tiles and "
        f"tw functions, and pass arrays as Tile parameters"
    )


def _check_same_trace(value: Expr) -> None:
    current = scope.get()
    if current is None or value.trace is None or value.trace is current.draws:
        return
    raise LanguageError(
        f"the tile {value!r} belongs to another trace of an op: it was kept when that op ran; pass it to "
        f"this op as an operand, or call this op inside the other one"
    )


_IN_FORMULAS = (Expr, Node, bool, int, float, np.generic, type(None))


def cast(value: Any, dtype: Any) -> Expr:
    """`value` converted. Anything → bool is `value != 0`; int → int keeps the low bits.

    float → int truncates towards zero; a value out of range gives the nearest limit, NaN gives 0.
    """
    if eager_cast is not None and scope.get() is None and not isinstance(value, _IN_FORMULAS):
        return eager_cast(value, dtype)
    expression, target = lift(value), as_dtype(dtype)
    if expression.dtype == target:
        return expression
    node = expression.node
    if isinstance(node, Const) and target.is_float:
        return constant(float(node.value), target)
    if target.is_float and _chooses_numbers(node):
        assert isinstance(node, Map)
        condition, *branches = node.operands
        chosen = tuple(cast(branch, target).node for branch in branches)
        return Expr(Map("where", (condition, *chosen)), expression.axes)
    if target.is_bool:
        return apply(scalars.ne, (expression, 0))
    return Expr(Cast(expression.node, target), expression.axes)


def stated_cast(value: Any, dtype: Any) -> Expr:
    """`value` converted. Anything → bool is `value != 0`; int → int keeps the low bits.

    float → int truncates towards zero; a value out of range gives the nearest limit, NaN gives 0. A result
    that is a cast has that dtype, whatever those of the operands are.
    """
    found = cast(value, dtype)
    return Expr(found.node, found.axes, stated=True) if isinstance(found, Expr) else found


def _chooses_numbers(node: Node) -> bool:
    """Whether a node is where(c, 0.1, where(d, 0.2, …)): numbers take the dtype that they meet."""
    if not isinstance(node, Map) or node.function != "where":
        return False
    return all(isinstance(branch, Const) or _chooses_numbers(branch) for branch in node.operands[1:])


class Halves:
    """What `dsl.complex_numbers.Complex` is: two real expressions."""

    __slots__ = ()


_COMPLEX = (Halves, complex, np.complexfloating)


def apply(row: ScalarFunction, operands: tuple[Any, ...]) -> Any:
    """A row of the scalar table applied to operands that are brought to one dtype."""
    if eager_kind is not None and eager_apply is not None and isinstance(operands[0], eager_kind):
        for operand in operands[1:]:
            if not isinstance(operand, eager_kind):
                break
        else:
            return eager_apply(row, operands)
    if any(isinstance(operand, _COMPLEX) for operand in operands):
        from tilewright.dsl.complex_numbers import complex_apply

        return complex_apply(row, operands)
    if not any(isinstance(operand, (Expr, Node)) for operand in operands):
        return _apply_to_numbers(row, operands)
    if len(operands) != row.arity:
        raise LanguageError(f"{row.name} takes {row.arity} operands, got {len(operands)}")
    if row.name == "where":
        condition = lift(operands[0])
        operands = (condition, *_unify(row, operands[1:]))
    else:
        operands = _unify(row, operands)
    node = Map(row.name, tuple(o.node for o in operands))
    return Expr(node, merged(*(o.axes for o in operands)))


scalars.apply = apply


def _apply_to_numbers(row: ScalarFunction, operands: tuple[Any, ...]) -> Any:
    if all(isinstance(operand, (bool, int, float, np.generic)) for operand in operands):
        with np.errstate(all="ignore"):
            return np.asarray(row.numpy(*operands)).item()
    if eager_apply is not None:
        return eager_apply(row, operands)
    raise LanguageError(f"tw.{row.name} works on tiles inside an op and on arrays and Tensors outside")


def _unify(row: ScalarFunction, operands: tuple[Any, ...]) -> tuple[Expr, ...]:
    typed = [o.dtype for o in map(_as_expr, operands) if o is not None]
    common = typed[0] if typed else int64
    for dtype in typed[1:]:
        common = promote(common, dtype)
    weak = [o for o in operands if _as_expr(o) is None]
    if not common.is_float and any(isinstance(o, (float, np.floating)) for o in weak):
        common = float32
    if common.is_bool and any(
        isinstance(o, (int, np.integer)) and not isinstance(o, (bool, np.bool_)) for o in weak
    ):
        common = int64
    if row.types in (scalars.floating, scalars.whole) and not common.is_float:
        common = float32
    if row.types is scalars.arithmetic and common.is_bool:
        common = int64
    if row.types is not scalars.bitwise and row.types is not scalars.comparison and row.name != "where":
        common = common.compute
    if row.types is scalars.comparison and any(dtype.is_integer for dtype in typed):
        common = common.compute  # which holds more integers
    if not all(_is_held(value, common) for value in weak):
        common = common.compute
    for value in weak:
        _check_fits(value, common, f"the other operand of {row.name}")
    return tuple(cast(lift(o, common), common) for o in operands)


def _is_held(value: Any, dtype: DType) -> bool:
    """Whether a number is one of a half-precision dtype; if not, it meets others in float32, unrounded."""
    if not dtype.is_float or dtype == dtype.compute:
        return True
    with np.errstate(over="ignore"):
        held = float(dtype.numpy.type(value))
    return held == value or value != value


def _check_fits(value: Any, dtype: DType, where: str) -> None:
    if not isinstance(value, (int, np.integer)):
        return
    if dtype.is_float and abs(int(value)) >= 2**1024:
        raise DTypeError(f"a whole number of {len(str(value))} digits is beyond {dtype.name}; write tw.inf")
    if not dtype.is_integer:
        return
    low, high = dtype.range
    if not low <= int(value) <= high:
        remedy = "write tw.cast(x, tw.int64)" if dtype != int64 else "write it as a float, as in 1e30"
        raise DTypeError(f"{value} does not fit {dtype.name}, the dtype of {where}; {remedy}")


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
    wanted = axis_names(names)
    if wanted.count(ELLIPSIS) > 1:
        raise AxisError(f"'...' stands once in x[{names!r}]")
    batch = tuple(a for a in value.axes if is_batch(a))
    if ELLIPSIS in wanted:
        wanted = wanted[: wanted.index(ELLIPSIS)] + batch + wanted[wanted.index(ELLIPSIS) + 1 :]
    current = value.node.names if isinstance(value.node, Read) else value.axes
    if len(wanted) != len(current) and len(wanted) == len(current) - len(batch):
        wanted = batch + wanted
    if len(wanted) != len(current):
        raise AxisError(
            f"x[{names!r}] gives {len(wanted)} names to a tile with the axes ({' '.join(current)})"
        )
    if isinstance(value.node, Read):
        return Expr(Read(value.node.param, wanted, value.node.type))
    names_of = dict(zip(current, wanted, strict=True))
    read_along(names_of)
    return Expr(rename(value.node, names_of), union(wanted))


def resolve_axes(value: Expr, axes: Any, what: str) -> tuple[str, ...]:
    """The axes that a reduction names, checked against those of its operand; `None` means all of them."""
    if axes is None:
        return value.axes
    if not isinstance(axes, (str, tuple, list)):
        raise AxisError(
            f"{what} takes axis names, as in tw.{what}(x, 'i'), not {axes!r}: axes have no numbers"
        )
    names = axis_names(axes) if isinstance(axes, str) else tuple(map(caller_name, axes))
    if isinstance(axes, str) and not names:
        raise AxisError(f"{what} over no axis; name one, as in tw.{what}(x, 'i'), or leave it out for all")
    result: list[str] = []
    for name in names:
        if name == ELLIPSIS:
            result.extend(a for a in value.axes if is_batch(a))
        elif name in result:
            raise AxisError(f"{what} over {name!r} twice; name each axis once")
        elif name in value.axes:
            result.append(name)
        elif not is_unit(name):
            raise AxisError(
                f"{what} over {name!r}, but the expression has the axes ({' '.join(value.axes) or 'none'}); "
                f"it was summed away before, or never there: reduce before it disappears, or name one of "
                f"these"
            )
    return tuple(result)


def reduce(combine: str, value: Any, axes: Any = None) -> Any:
    if isinstance(value, Halves):
        return _reduce_complex(combine, value, axes)
    expression = lift(value)
    return reduce_over(combine, expression, resolve_axes(expression, axes, combine))


def _reduce_complex(combine: str, value: Any, axes: Any) -> Any:
    from tilewright.dsl.complex_numbers import over_halves

    if combine != "sum":
        raise DTypeError(f"{combine} has no meaning for complex numbers; reduce tw.abs(z) or tw.real(z)")
    over = resolve_axes(Expr(value.re.node, value.axes), axes, combine)
    return over_halves(lambda half: _sum_of_half(half, over), value)


def _sum_of_half(half: Expr, over: tuple[str, ...]) -> Expr:
    """A half may lack some of the axes that the other one has."""
    left = tuple(a for a in half.axes if a not in over)
    return Expr(reduced("sum", over, cast(half, half.dtype.compute).node), left)


def reduce_over(combine: str, expression: Expr, over: tuple[str, ...]) -> Expr:
    """`reduce` over axes that are already resolved."""
    if combine in ("any", "all") and not expression.dtype.is_bool:
        expression = expression != 0
    if combine in ("sum", "prod") and not expression.dtype.is_float:
        expression = cast(expression, int64)
    if combine in ("max", "min") and expression.dtype.is_bool:
        combine = "any" if combine == "max" else "all"
    expression = cast(expression, expression.dtype.compute)
    if not over:
        return expression
    left = tuple(a for a in expression.axes if a not in over)
    return Expr(Reduce(combine, over, expression.node), left)
