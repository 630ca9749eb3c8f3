"""What scalar functions mean where it takes more than one call of NumPy or sympy to say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def sp(name: str) -> Callable[..., Any]:
    """The sympy function called `name`, looked up when used: sympy is imported only to derive."""

    def call(*operands: Any) -> Any:
        import sympy

        return getattr(sympy, name)(*operands)

    return call


def elementwise(function: str) -> Callable[..., Any]:
    """A `math`-module function over arrays, for functions that NumPy lacks (the reference only)."""
    import math

    vectorised = np.vectorize(getattr(math, function), otypes=[np.float64])

    def call(x: Any) -> Any:
        return vectorised(x) if np.size(x) else np.asarray(x, np.float64)

    return call


def lgamma(x: Any) -> Any:
    """log |Γ(x)|, near its zeros too, where Python's own is thousands of roundings off."""
    import math

    def one(v: float) -> float:
        if np.isnan(v) or v == -np.inf:
            return np.inf if v == -np.inf else v
        if v <= 0 and v == np.floor(v):
            return np.inf
        try:
            value = math.lgamma(v)
        except OverflowError:
            return np.inf
        return value if abs(value) > 2 else _lgamma_by_mpmath(v)

    return np.vectorize(one, otypes=[np.float64])(x) if np.size(x) else np.asarray(x, np.float64)


def _lgamma_by_mpmath(v: float) -> float:
    import mpmath

    with mpmath.workprec(120):
        return float(mpmath.re(mpmath.loggamma(v)))


def polygamma(order: Any, x: Any) -> Any:
    import math

    import mpmath

    n = int(np.max(order)) if np.size(order) else 0

    def one(v: float) -> float:
        if np.isnan(v) or v == -np.inf:
            return np.nan
        if v == np.inf:
            return np.inf if n == 0 else 0.0
        if n == 0 and v == 0:
            return -math.copysign(np.inf, v)
        if v <= 0 and v == np.floor(v):
            return np.nan if n % 2 == 0 else np.inf
        return float(mpmath.polygamma(n, v))

    return np.vectorize(one, otypes=[np.float64])(x) if np.size(x) else np.asarray(x, np.float64)


def sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(np.asarray(x) >= 0, 1 / (1 + small), small / (1 + small))


def floordiv(x: Any, y: Any) -> Any:
    if np.issubdtype(np.asarray(x).dtype, np.integer):
        return np.floor_divide(x, y)
    return np.floor(np.true_divide(x, y))
