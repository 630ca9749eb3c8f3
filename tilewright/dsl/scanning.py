"""`tw.scan`: a scan of whatever a Python function combines.

The function is called once, on placeholders for both of its sides; what it returns is the scan's body. It is
tried with numbers whether it is associative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.dsl import scalars
from tilewright.dsl.axes import union
from tilewright.dsl.dtypes import DType, bool_
from tilewright.dsl.expression import Expr, cast, constant, lift, merged
from tilewright.dsl.program import Cast, Const, Index, Map, Node, Read, Scan, Size, topological
from tilewright.dsl.reference import combine_arrays
from tilewright.dsl.scans import Body, combined, left, placeholder, right
from tilewright.errors import AxisError, DTypeError, LanguageError


def scan_of(
    combine: Callable[[Any, Any], Any],
    values: Any,
    axis: str,
    reverse: bool,
    exclusive: bool,
    initial: Any,
) -> tuple[Expr, ...]:
    """The scans of all values that a combine carries."""
    if not callable(combine):
        raise LanguageError(
            "tw.scan takes the combine first, a function of what came before and what comes next, as in "
            "tw.scan(lambda left, right: left + right, x, 'i')"
        )
    many = isinstance(values, (tuple, list))
    operands = _operands(tuple(values) if many else (values,), axis)
    dtypes = tuple(o.dtype for o in operands)
    body = _traced(combine, dtypes, many)
    _check_associative(body)
    start: tuple[Const, ...] = ()
    if exclusive:
        start = _initial_numbers(initial, dtypes)
    elif initial is not None:
        operands = _started(body, operands, _initial_values(initial, dtypes), axis, reverse)
    order = merged(*(o.axes for o in operands))
    nodes = tuple(o.node for o in operands)
    return tuple(Expr(Scan(n, body, nodes, axis, reverse, start), order) for n in range(len(body)))


def _operands(values: tuple[Any, ...], axis: str) -> tuple[Expr, ...]:
    """The values as expressions; a Python number that stands next to floats is one of their dtype."""
    if not values:
        raise LanguageError("tw.scan needs a value to carry, as in tw.scan(combine, x, 'i')")
    floats = [v.dtype.compute for v in values if isinstance(v, (Expr, Node)) and v.dtype.is_float]
    like = max(floats, key=lambda d: d.bits) if floats else None
    operands = []
    for value in values:
        is_float = isinstance(value, (float, np.floating))
        operand = lift(value, like if is_float else None)
        operands.append(cast(operand, operand.dtype.compute))
    axes = union(*(o.axes for o in operands))
    if axis not in axes:
        raise AxisError(
            f"tw.scan along {axis!r}, but its values have the axes ({' '.join(axes) or 'none'}); name one of "
            f"these"
        )
    return tuple(operands)


def _traced(combine: Callable[[Any, Any], Any], dtypes: tuple[DType, ...], many: bool) -> Body:
    """What a combine function returns for placeholders."""
    lefts = tuple(Expr(left(n, dtype)) for n, dtype in enumerate(dtypes))
    rights = tuple(Expr(right(n, dtype)) for n, dtype in enumerate(dtypes))
    try:
        outcome = combine(lefts, rights) if many else combine(lefts[0], rights[0])
    except TypeError as error:
        kind = f"tuples of {_count(len(dtypes))}" if many else "tiles"
        raise LanguageError(f"the combine of tw.scan is called with two {kind}: {error}") from error
    results = tuple(outcome) if isinstance(outcome, (tuple, list)) else (outcome,)
    if len(results) != len(dtypes):
        raise LanguageError(
            f"the combine of tw.scan returns {_count(len(results))} but the scan carries {len(dtypes)}: it "
            f"takes two tuples like that of the values and returns one, as in "
            f"lambda left, right: (left[0] + right[0], left[1] + right[1])"
        )
    body = tuple(_typed(r, dtype, n).node for n, (r, dtype) in enumerate(zip(results, dtypes, strict=True)))
    for node in reversed(topological(body)):
        _check_allowed(node)
    return body


def _count(number: int) -> str:
    return f"{number} value" + "s" * (number != 1)


def _typed(result: Any, dtype: DType, position: int) -> Expr:
    """A result of the combine, which must have the dtype that its value begins with."""
    expression = lift(result, dtype)
    if expression.dtype != dtype:
        raise DTypeError(
            f"value {position} of tw.scan begins as {dtype.name}, but the combine makes "
            f"{expression.dtype.name} of it; begin with tw.cast(value, tw.{expression.dtype.name})"
        )
    return expression


def _check_allowed(node: Node) -> None:
    if isinstance(node, (Const, Map, Cast)) or placeholder(node):
        return
    if isinstance(node, Read):
        what = f"the operand {node.param!r}"
    elif isinstance(node, (Index, Size)):
        what = f"tw.{type(node).__name__.lower()}({node.axis!r})"
    else:
        what = "a reduction or another scan"
    raise LanguageError(
        f"the combine of tw.scan uses {what}, which is in neither of its sides; pass it as one more of the "
        f"values, so that it is there for every position, and return right's as it is"
    )


def _initial_numbers(initial: Any, dtypes: tuple[DType, ...]) -> tuple[Const, ...]:
    """The state before the first position, as numbers."""
    values = _initial_values(initial, dtypes)
    numbers = tuple(v.node for v in values if isinstance(v.node, Const))
    if len(numbers) != len(values):
        raise LanguageError(
            "an exclusive tw.scan begins with numbers; begin with those that change nothing, as in "
            "initial=(1.0, 0.0), and combine your tile with the result"
        )
    return numbers


def _initial_values(initial: Any, dtypes: tuple[DType, ...]) -> tuple[Expr, ...]:
    values = tuple(initial) if isinstance(initial, (tuple, list)) else (initial,)
    if len(values) != len(dtypes) or any(v is None for v in values):
        raise LanguageError(
            f"tw.scan needs {_count(len(dtypes))} as initial, the state before the first position, got "
            f"{initial!r}; those that change nothing are 0 for a sum, 1 for a product"
        )
    return tuple(_initial_value(v, d, n) for n, (v, d) in enumerate(zip(values, dtypes, strict=True)))


def _initial_value(value: Any, dtype: DType, position: int) -> Expr:
    is_number = not isinstance(value, (Expr, Node))
    fits = not isinstance(value, (float, np.floating)) or dtype.is_float
    if is_number and fits and isinstance(value, (bool, np.bool_)) == dtype.is_bool:
        return lift(value, dtype) if dtype.is_integer else constant(value, dtype)
    expression = lift(value, dtype)
    if not is_number and expression.dtype.compute == dtype:
        return cast(expression, dtype)
    raise DTypeError(
        f"value {position} of tw.scan is {dtype.name}, but initial gives it {expression.dtype.name}"
        f"{f' ({value!r})' if is_number else ''}; give it {dtype.name}, or begin with "
        f"tw.cast(value, tw.{expression.dtype.name})"
    )


def _started(
    body: Body, operands: tuple[Expr, ...], initial: tuple[Expr, ...], axis: str, reverse: bool
) -> tuple[Expr, ...]:
    """The operands with what the scan starts from combined into those of the first position."""
    position = Expr(Index(axis))
    first = position == (Expr(Size(axis)) - 1 if reverse else 0)
    begun = combined(body, [v.node for v in initial], [o.node for o in operands])
    return tuple(scalars.where(first, Expr(b), operand) for b, operand in zip(begun, operands, strict=True))


# --- whether a combine is associative ---------------------------------------------------------------------

PROBES = 64
CLOSE = 1e-6


def _check_associative(body: Body) -> None:
    """Raises `LanguageError` if combining in another order gives another result, tried with numbers.

    A combine may be associative on a part of the numbers alone (counts, or weights that add up to 1), so it
    is refused only if it fails for most positive numbers.
    """
    random = np.random.default_rng(0)
    a, b, c = (tuple(_probe(value.dtype, random) for value in body) for _ in range(3))
    with np.errstate(all="ignore"):
        one = combine_arrays(body, combine_arrays(body, a, b), c)
        other = combine_arrays(body, a, combine_arrays(body, b, c))
    for position, (x, y) in enumerate(zip(one, other, strict=True)):
        x, y = (np.asarray(v, np.float64) for v in (x, y))
        with np.errstate(all="ignore"):
            differs = np.abs(x - y) > CLOSE * np.maximum(np.abs(x), np.abs(y))
        if np.count_nonzero(differs) > PROBES // 2:
            sample = int(np.argmax(differs))
            raise LanguageError(
                f"the combine of tw.scan is not associative: value {position} of "
                f"combine(combine(a, b), c) is {x[sample]:.6g} where combine(a, combine(b, c)) gives "
                f"{y[sample]:.6g}. A scan may combine neighbours first; carry what makes up for that: "
                f"h = a * h + b is combine = lambda l, r: (l[0] * r[0], l[1] * r[0] + r[1]) on the values "
                f"(a, b)"
            )


def _probe(dtype: DType, random: np.random.Generator) -> np.ndarray:
    if dtype.is_float:
        return random.uniform(0.5, 1.5, PROBES)
    if dtype == bool_:
        return random.random(PROBES) < 0.5
    return random.integers(1, 5, PROBES).astype(dtype.numpy)
