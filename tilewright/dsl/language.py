"""What an op's body may call: `tw.sum`, `tw.index`, `tw.where` and their kin.

Everything here builds expressions; what is not a row of the scalar table or a reduction is a formula of
those. Outside of an op the same names act on arrays and Tensors (`eager` is set by the layer that knows
them).

What holds on every target:

- NaN goes through max, min, maximum, minimum and clip. max and min over no elements are -inf and inf
  (for integers the smallest and the largest value), sum is 0, prod 1, any False, all True, mean NaN.
- argmax and argmin give the first position of ties, and of NaNs if there are any; argcummax and argcummin
  the newest of equals, and of NaNs from the first one on.
- Integers wrap. `//` rounds down and `%` has the sign of the divisor, as Python has it; dividing by 0
  gives 0. `<<` by a negative count or by the width or more gives 0, `>>` then leaves the sign: 0 or -1.
- sum, prod, cumsum and cumprod of integers and bool are int64; arithmetic of bool alone is int64. Half
  precision is computed in float32 and results are narrowed at the end. A number takes the dtype of what it
  meets; it must fit.
- An integer that meets a float becomes that float. float → int truncates towards zero; out of range it gives
  the nearest limit, for NaN 0. round goes to the even neighbour at a half.
- Axes of a result come as the operands declare them, batch axes first, or as the annotation says. Axes of an
  intermediate value come in order of first appearance, where (d) next to (n d) is (n d).
"""

from __future__ import annotations

import builtins
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from tilewright.dsl import complex_numbers, draws, ordering, scalars
from tilewright.dsl.axes import ELLIPSIS
from tilewright.dsl.complex_numbers import Complex
from tilewright.dsl.dtypes import float32, int64
from tilewright.dsl.expression import Expr, constant, lift, reduce, reduce_over, resolve_axes
from tilewright.dsl.expression import stated_cast as cast
from tilewright.dsl.indexing import axis, scatter_add
from tilewright.dsl.program import Index, Node, Size
from tilewright.dsl.scanning import scan_of
from tilewright.dsl.scans import extreme_and_position, named_scan
from tilewright.dsl.scope import axis_names, mention, scope
from tilewright.errors import AxisError, LanguageError

inf = math.inf
nan = math.nan
pi = math.pi

# Set by the layer that knows Tensors: called with (function name, operands, keywords) outside of ops.
eager: Callable[[str, tuple[Any, ...], dict[str, Any]], Any] | None = None


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, (Expr, Node, Complex))


def _over_names(name: str, value: Any, keywords: dict[str, Any]) -> bool:
    """Whether a call is one over named axes, on a tile; such a call takes none of the keywords of Tensors."""
    if not _is_symbolic(value):
        return False
    for keyword, given in keywords.items():
        if keyword in ("axis", "axes", "dim"):
            raise LanguageError(
                f"tw.{name} on a tile takes the names of axes behind it, not {keyword}=: write "
                f"tw.{name}(x, {given if isinstance(given, str) else 'i'!r})"
            )
        if keyword in ("keepdims", "keepdim"):
            raise LanguageError(
                f"tw.{name} on a tile has no {keyword}=: what is left meets other tiles by the names of its "
                f"axes, so that x / tw.sum(x, 'i') needs nothing more"
            )
        raise LanguageError(f"tw.{name} on a tile has no argument {keyword!r}")
    return True


def _eagerly(name: str, *operands: Any, **keywords: Any) -> Any:
    if eager is None:
        raise LanguageError(f"tw.{name} works on tiles inside an op and on arrays and Tensors outside of one")
    return eager(name, operands, keywords)


def _single_axis(axis: Any, what: str) -> str:
    names = axis_names(axis) if isinstance(axis, str) else ()
    if len(names) != 1 or names[0] == ELLIPSIS:
        call = f"tw.{what}('i')" if what in ("index", "size") else f"tw.{what}(x, 'i')"
        raise AxisError(f"tw.{what} takes one axis name, as in {call}; got {axis!r}")
    return names[0]


def _of_parts(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the parts of complex numbers, outside of ops as well."""

    @functools.wraps(function)
    def call(*values: Any) -> Any:
        plain = (bool, int, float, builtins.complex)
        outside = scope.get() is None and not builtins.any(map(_is_symbolic, values))
        if outside and not builtins.all(isinstance(v, plain) for v in values):
            return _eagerly(name, *values)
        return function(*values)

    call.__name__ = call.__qualname__ = name
    return call


real = _of_parts("real", complex_numbers.real)
imag = _of_parts("imag", complex_numbers.imag)
conj = _of_parts("conj", complex_numbers.conj)
angle = _of_parts("angle", complex_numbers.angle)
complex = _of_parts("complex", complex_numbers.complex_number)


def index(axis: str) -> Expr:
    """The position along `axis`, 0 … size - 1, int64."""
    name = _single_axis(axis, "index")
    mention(name)
    return Expr(Index(name))


def size(axes: str) -> Expr:
    """The extent of `axes` (their product if there are several), int64."""
    if not isinstance(axes, str) or not axes.split() or ELLIPSIS in axes.split():
        raise AxisError(f"tw.size takes axis names, as in tw.size('i'); got {axes!r}")
    result: Expr | None = None
    for name in axis_names(axes):
        mention(name)
        extent = Expr(Size(name))
        result = extent if result is None else result * extent
    assert result is not None
    return result


def _extent(value: Expr, over: tuple[str, ...]) -> Expr:
    """How many elements `over` has, as a number of the dtype that `value` is averaged in."""
    dtype = value.dtype.compute if value.dtype.is_float else float32
    extents = [cast(Expr(Size(axis)), dtype) for axis in over]
    return functools.reduce(lambda a, b: a * b, extents) if extents else constant(1, dtype)


def sum(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """Σ value over `axes` (all of them if omitted). Integers and bool sum in int64."""
    if _over_names("sum", value, keywords):
        return reduce("sum", value, axes)
    return _eagerly("sum", value, axes, **keywords)


def prod(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """Π value over `axes`."""
    if _over_names("prod", value, keywords):
        return reduce("prod", value, axes)
    return _eagerly("prod", value, axes, **keywords)


def max(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """The largest value over `axes`; NaN if there is one; -inf over no elements."""
    if _over_names("max", value, keywords):
        return reduce("max", value, axes)
    return _eagerly("max", value, axes, **keywords)


def min(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """The smallest value over `axes`; NaN if there is one; inf over no elements."""
    if _over_names("min", value, keywords):
        return reduce("min", value, axes)
    return _eagerly("min", value, axes, **keywords)


def any(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """Whether any value over `axes` is true (not 0); False over no elements."""
    if _over_names("any", value, keywords):
        return reduce("any", value, axes)
    return _eagerly("any", value, axes, **keywords)


def all(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """Whether every value over `axes` is true (not 0); True over no elements."""
    if _over_names("all", value, keywords):
        return reduce("all", value, axes)
    return _eagerly("all", value, axes, **keywords)


def mean(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """Σ value / n over `axes`; NaN over no elements."""
    if not _over_names("mean", value, keywords):
        return _eagerly("mean", value, axes, **keywords)
    if isinstance(value, Complex):
        over = resolve_axes(Expr(value.re.node, value.axes), axes, "mean")
        return reduce("sum", value, axes) / _extent(value.re, over)
    value = lift(value)
    over = resolve_axes(value, axes, "mean")
    if not value.dtype.is_float:
        value = cast(value, float32)
    return reduce_over("sum", value, over) / _extent(value, over)


def var(value: Any, axes: Any = None, *, correction: int = 0, **keywords: Any) -> Any:
    """Σ (value - mean)² / (n - correction) over `axes`."""
    if not _over_names("var", value, keywords):
        return _eagerly("var", value, axes, correction=correction, **keywords)
    value = lift(value)
    over = resolve_axes(value, axes, "var")
    centred = value - reduce_over("sum", value, over) / _extent(value, over)
    count = _extent(value, over)
    return reduce_over("sum", centred * centred, over) / (count - correction if correction else count)


def logsumexp(value: Any, axes: Any = None, **keywords: Any) -> Any:
    """log Σ exp(value) over `axes`, shifted by the largest value; -inf where every value is -inf."""
    if not _over_names("logsumexp", value, keywords):
        return _eagerly("logsumexp", value, axes, **keywords)
    value = lift(value)
    if not value.dtype.is_float:
        value = cast(value, float32)
    over = resolve_axes(value, axes, "logsumexp")
    largest = reduce_over("max", value, over)
    shift = where(isfinite(largest), largest, 0)
    return log(reduce_over("sum", exp(value - shift), over)) + shift


def _argument(combine: str, value: Any, axis: Any, keywords: dict[str, Any]) -> Any:
    if not _over_names(f"arg{combine}", value, keywords):
        return _eagerly(f"arg{combine}", value, axis, **keywords)
    value = lift(value)
    name = _single_axis(axis, f"arg{combine}")
    if name not in value.axes:
        resolve_axes(value, axis, f"arg{combine}")
    extreme = reduce_over(combine, value, (name,))
    hit = value == extreme
    if value.dtype.is_float:
        hit = hit | isnan(value)
    return reduce_over("min", where(hit, Expr(Index(name)), Expr(Size(name))), (name,))


def argmax(value: Any, axis: Any = None, **keywords: Any) -> Any:
    """The first position of the largest value along one axis (of the first NaN, if any), int64."""
    return _argument("max", value, axis, keywords)


def argmin(value: Any, axis: Any = None, **keywords: Any) -> Any:
    """The first position of the smallest value along one axis (of the first NaN, if any), int64."""
    return _argument("min", value, axis, keywords)


# --- scans ------------------------------------------------------------------------------------------------


def _named_scan(
    name: str, value: Any, axis: Any, reverse: bool, exclusive: bool, keywords: dict[str, Any]
) -> Any:
    if not _over_names(name, value, keywords):
        return _eagerly(name, value, axis, reverse=reverse, exclusive=exclusive, **keywords)
    value, along = _along(name, value, axis)
    if name == "logcumsumexp" and not value.dtype.is_float:
        value = cast(value, float32)
    if name in ("cumsum", "cumprod") and not value.dtype.is_float:
        value = cast(value, int64)
    return named_scan(name, value, along, reverse, exclusive)


def _along(name: str, value: Any, axis: Any) -> tuple[Expr, str]:
    value = lift(value)
    along = _single_axis(axis, name)
    if along not in value.axes:
        resolve_axes(value, axis, name)
    return value, along


def cumsum(
    value: Any, axis: Any = None, *, reverse: bool = False, exclusive: bool = False, **keywords: Any
) -> Any:
    """Σ of value up to each position along one axis. Integers and bool sum in int64.

    `reverse` runs from the last position to the first; `exclusive` leaves out the position itself, so that it
    begins with 0. So do all scans, each with the number that changes nothing.
    """
    return _named_scan("cumsum", value, axis, reverse, exclusive, keywords)


def cumprod(
    value: Any, axis: Any = None, *, reverse: bool = False, exclusive: bool = False, **keywords: Any
) -> Any:
    """Π of value up to each position along one axis. Integers and bool multiply in int64."""
    return _named_scan("cumprod", value, axis, reverse, exclusive, keywords)


def cummax(
    value: Any, axis: Any = None, *, reverse: bool = False, exclusive: bool = False, **keywords: Any
) -> Any:
    """The largest value up to each position along one axis; NaN from the first NaN on.

    The gradient goes to the newest of equal values.
    """
    return _named_scan("cummax", value, axis, reverse, exclusive, keywords)


def cummin(
    value: Any, axis: Any = None, *, reverse: bool = False, exclusive: bool = False, **keywords: Any
) -> Any:
    """The smallest value up to each position along one axis; NaN from the first NaN on."""
    return _named_scan("cummin", value, axis, reverse, exclusive, keywords)


def logcumsumexp(
    value: Any, axis: Any = None, *, reverse: bool = False, exclusive: bool = False, **keywords: Any
) -> Any:
    """log Σ exp(value) up to each position along one axis; -inf where every value so far is -inf."""
    return _named_scan("logcumsumexp", value, axis, reverse, exclusive, keywords)


def _position_so_far(name: str, value: Any, axis: Any, reverse: bool, keywords: dict[str, Any]) -> Any:
    if not _over_names(f"arg{name}", value, keywords):
        return _eagerly(f"arg{name}", value, axis, reverse=reverse, **keywords)
    value, along = _along(f"arg{name}", value, axis)
    return extreme_and_position(name, value, along, reverse)[1]


def argcummax(value: Any, axis: Any = None, *, reverse: bool = False, **keywords: Any) -> Any:
    """The position of the largest value so far along one axis, int64: the newest of equals."""
    return _position_so_far("cummax", value, axis, reverse, keywords)


def argcummin(value: Any, axis: Any = None, *, reverse: bool = False, **keywords: Any) -> Any:
    """The position of the smallest value so far along one axis, int64: the newest of equals."""
    return _position_so_far("cummin", value, axis, reverse, keywords)


def scan(
    combine: Callable[[Any, Any], Any],
    values: Any,
    axis: str,
    *,
    reverse: bool = False,
    exclusive: bool = False,
    initial: Any = None,
) -> Any:
    """What an associative `combine` makes of all values up to each position along one axis.

        h = a[t] · h[t-1] + b[t]:   tw.scan(lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1]), (a, b), "t")[1]

    `values` is one value or a tuple of them; `combine(left, right)` takes what came before and what comes
    next, each like `values`, and returns the same. With `initial` the scan begins with that state before the
    first position. An `exclusive` scan gives the state before each position, and its `initial` are numbers.
    """
    carried = values if isinstance(values, (tuple, list)) else (values,)
    if scope.get() is None and not builtins.any(map(_is_symbolic, carried)):
        raise LanguageError("tw.scan works on tiles inside an op; wrap the scan in a function with @tw.op")
    results = scan_of(combine, values, _single_axis(axis, "scan"), reverse, exclusive, initial)
    return results if isinstance(values, (tuple, list)) else results[0]


# --- parts of numbers, random numbers ---------------------------------------------------------------------


def frexp(value: Any) -> tuple[Any, Any]:
    """(m, k) with value = m · 2ᵏ and ½ ≤ |m| < 1, k int32; 0, infinities and NaN have k = 0."""
    return scalars.mantissa(value), scalars.exponent(value)


def _drawn(draw: Callable[..., Any]) -> Callable[..., Any]:
    """`draw` inside of ops; outside of them the function that makes a Tensor of a shape."""

    @functools.wraps(draw)
    def call(*operands: Any, **keywords: Any) -> Any:
        if scope.get() is None and not builtins.any(map(_is_symbolic, operands)):
            return _eagerly(draw.__name__, *operands, **keywords)
        return draw(*operands, **keywords)

    return call


def _ordered(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` inside of ops; outside of them the same along a numbered dimension."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*operands: Any, **keywords: Any) -> Any:
        if scope.get() is not None or builtins.any(map(_is_symbolic, operands)):
            return function(*operands, **keywords)
        given = dict(zip(names, operands, strict=False)) | keywords
        value, axis = given.pop("value", None), given.pop("axis", None)
        return _eagerly(function.__name__, value, axis, **given)

    return call


argsort, sort, topk = map(_ordered, (ordering.argsort, ordering.sort, ordering.topk))
median, quantile = map(_ordered, (ordering.median, ordering.quantile))

rand, randn, truncated_randn = map(_drawn, (draws.rand, draws.randn, draws.truncated_randn))
randint, bernoulli = map(_drawn, (draws.randint, draws.bernoulli))


def clip(value: Any, low: Any = None, high: Any = None) -> Any:
    """min(max(value, low), high); NaN stays NaN. The gradient is 1 inside, ½ at a bound, 0 outside."""
    if low is not None:
        value = scalars.maximum(value, low)
    return value if high is None else scalars.minimum(value, high)


def checkpoint(value: Any, *, keep: bool = False) -> Any:
    """`value` itself, which the backward computes again instead of reading it, whatever that costs.

    With `keep` the forward writes it for the backward, whatever that costs. Values that are not marked are
    kept or computed again as moves the fewest bytes; what has more axes than every operand and result is
    never kept unless it is marked.
    """
    return scalars.kept(value) if keep else scalars.recomputed(value)


def square(value: Any) -> Any:
    """value²"""
    return value * value


def einsum(*operands: Any, axes: str) -> Expr:
    """Σ Π operands over `axes`: a product and a sum under one name."""
    product = operands[0]
    for operand in operands[1:]:
        product = product * operand
    return reduce("sum", product, axes)


abs = scalars.abs_
round = scalars.round_
pow = scalars.power
exp, exp2, expm1 = scalars.exp, scalars.exp2, scalars.expm1
log, log2, log1p = scalars.log, scalars.log2, scalars.log1p
sqrt, rsqrt = scalars.sqrt, scalars.rsqrt
sin, cos, tan = scalars.sin, scalars.cos, scalars.tan
asin, acos, atan, atan2 = scalars.asin, scalars.acos, scalars.atan, scalars.atan2
sinh, cosh, tanh = scalars.sinh, scalars.cosh, scalars.tanh
asinh, acosh, atanh = scalars.asinh, scalars.acosh, scalars.atanh
erf, erfc, lgamma, digamma = scalars.erf, scalars.erfc, scalars.lgamma, scalars.digamma
sigmoid, softplus, logaddexp = scalars.sigmoid, scalars.softplus, scalars.logaddexp
sign, floor, ceil, trunc = scalars.sign, scalars.floor, scalars.ceil, scalars.trunc
minimum, maximum, fmod = scalars.minimum, scalars.maximum, scalars.fmod
isnan, isinf, isfinite = scalars.isnan, scalars.isinf, scalars.isfinite
where, stop_gradient = scalars.where, scalars.stop_gradient

__all__ = [
    "abs", "acos", "acosh", "all", "angle", "any", "argcummax", "argcummin", "argmax", "argmin",
    "argsort", "asin", "asinh", "atan", "atan2", "atanh", "axis", "bernoulli", "cast", "ceil",
    "checkpoint", "clip", "complex", "conj", "cos", "cosh", "cummax", "cummin", "cumprod", "cumsum",
    "digamma", "einsum", "erf", "erfc", "exp", "exp2", "expm1", "floor", "fmod", "frexp", "imag",
    "index", "inf", "isfinite", "isinf", "isnan", "lgamma", "log", "log1p", "log2", "logaddexp",
    "logcumsumexp", "logsumexp", "max", "maximum", "mean", "median", "min", "minimum", "nan", "pi",
    "pow", "prod", "quantile", "rand", "randint", "randn", "real", "round", "rsqrt", "scan",
    "scatter_add", "sigmoid", "sign", "sin", "sinh", "size", "softplus", "sort", "sqrt", "square",
    "stop_gradient", "sum", "tan", "tanh", "topk", "trunc", "truncated_randn", "var", "where",
]  # fmt: skip
