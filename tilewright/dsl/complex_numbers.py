"""Complex numbers: pairs of real tiles with the arithmetic of complex ones.

A complex operand is a real one with an axis more, `re_im`, of two positions; a `Complex` in an op's body is
its two halves. Everything behind the language (derivatives, kernels, targets) sees real tiles alone: a
complex contraction is four real ones, and a gradient holds ∂/∂re + i · ∂/∂im of a real loss, the direction of
steepest ascent (twice Wirtinger's ∂/∂z̄, what torch has as well).

Division is a·b̄ / |b|²: it overflows where |b|² does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.dsl import scalars
from tilewright.dsl.axes import PAIR
from tilewright.dsl.dtypes import DType, int64, promote
from tilewright.dsl.expression import Expr, Halves, apply, cast, lift, merged, renamed
from tilewright.dsl.program import Const, Index, indexed
from tilewright.dsl.scalars import ScalarFunction, where
from tilewright.dsl.scope import scope
from tilewright.errors import DTypeError, LanguageError


class Complex(Halves):
    """A complex value of the language: two real expressions."""

    __slots__ = ("im", "re")

    def __init__(self, re: Any, im: Any):
        self.re, self.im = lift(re), lift(im)

    @property
    def axes(self) -> tuple[str, ...]:
        return merged(self.re.axes, self.im.axes)

    @property
    def dtype(self) -> DType:
        """Of each half."""
        return promote(self.re.dtype, self.im.dtype)

    def paired(self) -> Expr:
        """Both halves as one real tile, along the last axis."""
        current = scope.get()
        if current is not None and PAIR not in current.operand_axes:
            current.extents.setdefault(PAIR, Const(2, int64))
        first = Expr(Index(PAIR)) == 0
        both = where(first, self.re, self.im)
        return Expr(both.node, (*self.axes, PAIR))

    def __repr__(self) -> str:
        return f"({self.re!r} + i {self.im!r})"

    def __getitem__(self, names: Any) -> Complex:
        return Complex(renamed(self.re, names), renamed(self.im, names))

    def at(self, *, fill: Any = 0, **positions: Any) -> Complex:
        """Both halves at computed positions; see `Expr.at`."""
        outside = as_complex(fill)
        return Complex(self.re.at(fill=outside.re, **positions), self.im.at(fill=outside.im, **positions))

    def __bool__(self) -> bool:
        raise LanguageError("a tile's value is not known while the op is traced; write tw.where to choose")

    def __float__(self) -> float:
        raise LanguageError("a complex tile is no Python number; take tw.real(z), tw.imag(z) or tw.abs(z)")

    __int__ = __index__ = __float__  # type: ignore[assignment]

    # fmt: off
    def __add__(self, other: Any) -> Any: return apply(scalars.add, (self, other))
    def __radd__(self, other: Any) -> Any: return apply(scalars.add, (other, self))
    def __sub__(self, other: Any) -> Any: return apply(scalars.sub, (self, other))
    def __rsub__(self, other: Any) -> Any: return apply(scalars.sub, (other, self))
    def __mul__(self, other: Any) -> Any: return apply(scalars.mul, (self, other))
    def __rmul__(self, other: Any) -> Any: return apply(scalars.mul, (other, self))
    def __truediv__(self, other: Any) -> Any: return apply(scalars.div, (self, other))
    def __rtruediv__(self, other: Any) -> Any: return apply(scalars.div, (other, self))
    def __pow__(self, other: Any) -> Any: return apply(scalars.power, (self, other))
    def __rpow__(self, other: Any) -> Any: return apply(scalars.power, (other, self))
    def __neg__(self) -> Any: return apply(scalars.neg, (self,))
    def __pos__(self) -> Complex: return self
    def __abs__(self) -> Any: return apply(scalars.abs_, (self,))
    def __eq__(self, other: Any) -> Any: return apply(scalars.eq, (self, other))
    def __ne__(self, other: Any) -> Any: return apply(scalars.ne, (self, other))
    def __lt__(self, other: Any) -> Any: return apply(scalars.lt, (self, other))
    def __le__(self, other: Any) -> Any: return apply(scalars.le, (self, other))
    def __gt__(self, other: Any) -> Any: return apply(scalars.gt, (self, other))
    def __ge__(self, other: Any) -> Any: return apply(scalars.ge, (self, other))
    # fmt: on

    __hash__ = None  # type: ignore[assignment]


def is_complex(value: Any) -> bool:
    return isinstance(value, (Complex, complex, np.complexfloating))


def as_complex(value: Any) -> Complex:
    """A real or complex value of the language, or a number, as a complex one."""
    if isinstance(value, Complex):
        return value
    if isinstance(value, (complex, np.complexfloating)):
        return Complex(float(value.real), float(value.imag))
    return Complex(value, 0.0)


def from_pairs(tile: Expr) -> Complex:
    """The complex value of a real tile that runs along `re_im`."""
    halves = [
        Expr(indexed(tile.node, {PAIR: Const(n, int64)}), tuple(a for a in tile.axes if a != PAIR))
        for n in range(2)
    ]
    return Complex(*halves)


def halves_together(value: Any) -> Any:
    """A result of an op's body: a complex one as a real tile of pairs."""
    return as_complex(value).paired() if is_complex(value) else value


# --- functions ----------------------------------------------------------------------------------------------


def complex_apply(row: ScalarFunction, operands: tuple[Any, ...]) -> Any:
    """A row of the scalar table on complex operands. Raises `DTypeError` where it has no meaning there."""
    meaning = _MEANINGS.get(row.name)
    if meaning is None:
        raise DTypeError(
            f"{row.name} has no meaning for complex numbers; take tw.real(z), tw.imag(z) or tw.abs(z) first"
        )
    if row.name == "where":
        condition, *branches = operands
        return meaning(condition, *map(as_complex, branches))
    if row.name == "pow" and isinstance(operands[1], int) and abs(operands[1]) <= 64:
        return _whole_power(as_complex(operands[0]), operands[1])
    return meaning(*map(as_complex, operands))


def _mul(a: Complex, b: Complex) -> Complex:
    return Complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def _div(a: Complex, b: Complex) -> Complex:
    size = _square(b)
    product = _mul(a, conj(b))
    return Complex(product.re / size, product.im / size)


def _square(a: Complex) -> Expr:
    """|a|²"""
    return a.re * a.re + a.im * a.im


def _abs(a: Complex) -> Expr:
    """|a|, whose gradient at 0 is 0."""
    size = _square(a)
    zero = size == 0
    return where(zero, 0, scalars.sqrt(where(zero, 1, size)))


def _exp(a: Complex) -> Complex:
    size = scalars.exp(a.re)
    return Complex(size * scalars.cos(a.im), size * scalars.sin(a.im))


def _log(a: Complex) -> Complex:
    return Complex(scalars.log(_abs(a)), angle(a))


def _sqrt(a: Complex) -> Complex:
    """The root with a real part ≥ 0: t = √((|re| + |a|) / 2), and im / 2t, exchanged where re < 0."""
    root = scalars.sqrt((scalars.abs_(a.re) + _abs(a)) / 2)
    zero = root == 0
    other = a.im / (2 * where(zero, 1, root))
    right = a.re >= 0
    upper = where(a.im < 0, -root, root)
    return Complex(where(right, root, scalars.abs_(other)), where(right, other, upper))


def _sin(a: Complex) -> Complex:
    return Complex(scalars.sin(a.re) * scalars.cosh(a.im), scalars.cos(a.re) * scalars.sinh(a.im))


def _cos(a: Complex) -> Complex:
    return Complex(scalars.cos(a.re) * scalars.cosh(a.im), -scalars.sin(a.re) * scalars.sinh(a.im))


def _sinh(a: Complex) -> Complex:
    return Complex(scalars.sinh(a.re) * scalars.cos(a.im), scalars.cosh(a.re) * scalars.sin(a.im))


def _cosh(a: Complex) -> Complex:
    return Complex(scalars.cosh(a.re) * scalars.cos(a.im), scalars.sinh(a.re) * scalars.sin(a.im))


def _tanh(a: Complex) -> Complex:
    """(sinh 2re + i sin 2im) / (cosh 2re + cos 2im), in terms of tanh so that nothing overflows."""
    t, u = scalars.tanh(a.re), scalars.tan(a.im)
    size = 1 + (t * u) * (t * u)
    return Complex(t * (1 + u * u) / size, u * (1 - t * t) / size)


def _tan(a: Complex) -> Complex:
    turned = _tanh(Complex(-a.im, a.re))
    return Complex(turned.im, -turned.re)


def _power(a: Complex, b: Complex) -> Complex:
    return _exp(_mul(b, _log(a)))


def _whole_power(a: Complex, exponent: int) -> Complex:
    if exponent < 0:
        return _div(as_complex(1.0), _whole_power(a, -exponent))
    if exponent == 0:
        return Complex(a.re * 0 + 1, a.im * 0)
    half = _whole_power(a, exponent // 2) if exponent > 1 else None
    square = a if half is None else _mul(half, half)
    return _mul(square, a) if half is not None and exponent % 2 else square


def _sign(a: Complex) -> Complex:
    """a / |a|, 0 at 0"""
    size = _abs(a)
    safe = where(size == 0, 1, size)
    return Complex(a.re / safe, a.im / safe)


def _reciprocal_root(a: Complex) -> Complex:
    return _div(as_complex(1.0), _sqrt(a))


_MEANINGS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: Complex(a.re + b.re, a.im + b.im),
    "sub": lambda a, b: Complex(a.re - b.re, a.im - b.im),
    "neg": lambda a: Complex(-a.re, -a.im),
    "mul": _mul,
    "div": _div,
    "abs": _abs,
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "rsqrt": _reciprocal_root,
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "pow": _power,
    "sign": _sign,
    "eq": lambda a, b: (a.re == b.re) & (a.im == b.im),
    "ne": lambda a, b: (a.re != b.re) | (a.im != b.im),
    "isnan": lambda a: scalars.isnan(a.re) | scalars.isnan(a.im),
    "isinf": lambda a: scalars.isinf(a.re) | scalars.isinf(a.im),
    "isfinite": lambda a: scalars.isfinite(a.re) & scalars.isfinite(a.im),
    "where": lambda c, a, b: Complex(where(c, a.re, b.re), where(c, a.im, b.im)),
    "stop_gradient": lambda a: Complex(scalars.stop_gradient(a.re), scalars.stop_gradient(a.im)),
    "kept": lambda a: Complex(scalars.kept(a.re), scalars.kept(a.im)),
    "recomputed": lambda a: Complex(scalars.recomputed(a.re), scalars.recomputed(a.im)),
}


# --- what an op's body may call -----------------------------------------------------------------------------


def complex_number(re: Any, im: Any = 0.0) -> Complex:
    """re + i · im, of real tiles or numbers."""
    if is_complex(re) or is_complex(im):
        raise DTypeError("tw.complex takes two real tiles or numbers; add complex ones with +")
    halves = [
        cast(lift(half), "float32") if not lift(half).dtype.is_float else lift(half) for half in (re, im)
    ]
    return Complex(*halves)


def real(value: Any) -> Any:
    """The real part; a real value is its own."""
    return as_complex(value).re if is_complex(value) else lift(value)


def imag(value: Any) -> Any:
    """The imaginary part; that of a real value is 0."""
    return as_complex(value).im if is_complex(value) else lift(value) * 0


def conj(value: Any) -> Any:
    """re - i · im"""
    if not is_complex(value):
        return lift(value)
    value = as_complex(value)
    return Complex(value.re, -value.im)


def angle(value: Any) -> Any:
    """The angle in radians, -π … π."""
    value = as_complex(value)
    return scalars.atan2(value.im, value.re)


def over_halves(function: Callable[[Expr], Expr], value: Complex) -> Complex:
    """A linear function of a complex value."""
    return Complex(function(value.re), function(value.im))
