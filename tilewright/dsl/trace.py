"""Tracing: a Python function over tiles becomes a Program.

`Signature` reads the function's annotations once. `trace` runs the body on expressions, for operands of known
dtypes and batch ranks and known constants; every error it raises names the op and the user's line.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tilewright.dsl.axes import PAIR, Scalar, ScalarSpec, TileSpec, base, batch_axes, fresh, union
from tilewright.dsl.complex_numbers import halves_together
from tilewright.dsl.dtypes import DType, float32, float64, int64
from tilewright.dsl.expression import Expr, cast, lift, merged
from tilewright.dsl.extents import axis_sites, known_axes, used_extents
from tilewright.dsl.grouped import Splitter, join, stated_extents
from tilewright.dsl.location import is_prebuilt, raising_line, users_line
from tilewright.dsl.program import Const, Index, Node, Param, Program, Read, Result, Size, indexed
from tilewright.dsl.renaming import rename
from tilewright.dsl.scope import Scope, in_place, is_batch, read_along, scope
from tilewright.errors import ArgumentError, AxisError, DTypeError, LanguageError, UserError


@dataclass(frozen=True)
class TileParameter:
    name: str
    spec: TileSpec
    optional: bool


@dataclass(frozen=True)
class Signature:
    """What a function's annotations say: operands, run-time scalars, constants, the results' axes.

    `scalars` and `constants` map names to default values; `scalar_dtypes` has the scalars that state one.
    """

    name: str
    function: Callable[..., Any]
    tiles: tuple[TileParameter, ...]
    scalars: Mapping[str, Any]
    constants: Mapping[str, Any]
    results: tuple[TileSpec, ...] | None
    scalar_dtypes: Mapping[str, DType] = field(default_factory=dict)

    @property
    def specs(self) -> tuple[TileSpec, ...]:
        return (*(tile.spec for tile in self.tiles), *(self.results or ()))

    def without(self, units: frozenset[str]) -> Signature:
        """The same op for operands and results that lack some axes."""
        if not units:
            return self
        tiles = tuple(replace(tile, spec=tile.spec.without(units)) for tile in self.tiles)
        results = self.results and tuple(spec.without(units) for spec in self.results)
        return replace(self, tiles=tiles, results=results)

    @property
    def location(self) -> str:
        code = inspect.unwrap(self.function).__code__
        return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"


REQUIRED = inspect.Parameter.empty


def read_signature(function: Callable[..., Any]) -> Signature:
    """The `Signature` of an op's function. Raises `LanguageError` where the annotations are not an op's."""
    name = function.__name__
    where = (
        f"{os.path.basename(function.__code__.co_filename)}:{function.__code__.co_firstlineno}: op {name!r}"
    )
    try:
        signature = inspect.signature(function, eval_str=True)
    except UserError as error:
        raise type(error)(f"{where}: {error}") from None
    except NameError as error:
        raise LanguageError(f"{where}: an annotation cannot be evaluated: {error}") from error
    except SyntaxError as error:
        raise LanguageError(
            f"{where}: the annotation {(error.text or '').strip()!r} is no Python expression; axes are "
            f'written as in x: tw.Tile["... d"]'
        ) from None
    tiles: list[TileParameter] = []
    scalars: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    dtypes: dict[str, DType] = {}
    for parameter in signature.parameters.values():
        annotation = parameter.annotation
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise LanguageError(
                f"{where}: *{parameter.name} is not possible; name every operand and constant"
            )
        if isinstance(annotation, TileSpec):
            if parameter.default not in (REQUIRED, None):
                raise LanguageError(f"{where}: operand {parameter.name!r} may only have the default None")
            tiles.append(TileParameter(parameter.name, annotation, parameter.default is None))
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise LanguageError(
                f"{where}: operand {parameter.name!r} needs its axes, as in "
                f'{parameter.name}: tw.Tile["... d"]; '
                f"constants are keyword-only: put them behind a `*`"
            )
        is_scalar = annotation is Scalar or isinstance(annotation, ScalarSpec)
        _check_hashable(parameter, where)
        target = scalars if is_scalar else constants
        target[parameter.name] = parameter.default
        if isinstance(annotation, ScalarSpec) and annotation.dtype is not None:
            dtypes[parameter.name] = annotation.dtype
    results = _result_specs(signature, where)
    for one, other in itertools.combinations(results or (), 2):
        if one.axes == other.axes and one.dimensions != other.dimensions:
            raise LanguageError(
                f'{where}: two results have the same axes, grouped as Tile["{one}"] and as Tile["{other}"]; '
                f"rename those of one of them"
            )
    return Signature(name, function, tuple(tiles), scalars, constants, results, dtypes)


def _check_hashable(parameter: inspect.Parameter, where: str) -> None:
    try:
        hash(parameter.default)
    except TypeError:
        kind = type(parameter.default).__name__
        raise LanguageError(
            f"{where}: {parameter.name!r} is a compile-time constant and cannot be a {kind}, which may "
            f"change; write a number, string or tuple"
        ) from None


def _result_specs(signature: inspect.Signature, where: str) -> tuple[TileSpec, ...] | None:
    annotation = signature.return_annotation
    if annotation is REQUIRED or annotation is None:
        return None
    arguments = getattr(annotation, "__args__", None)
    specs = (annotation,) if isinstance(annotation, TileSpec) else arguments
    if isinstance(annotation, tuple):
        specs = annotation
    if not specs or not all(isinstance(spec, TileSpec) for spec in specs):
        raise LanguageError(
            f'{where}: the result is annotated -> tw.Tile["..."] or a tuple of those; got {annotation!r}'
        )
    return tuple(specs)


@dataclass(frozen=True)
class Operand:
    """What tracing must know of an argument: its dtype and its batch axes (`batch_rank` unless named)."""

    dtype: DType
    batch_rank: int
    batch: tuple[str, ...] | None = None

    @property
    def batch_axes(self) -> tuple[str, ...]:
        return batch_axes(self.batch_rank) if self.batch is None else self.batch


def trace(
    signature: Signature,
    operands: Mapping[str, Operand | None],
    scalar_dtypes: Mapping[str, DType],
    constants: Mapping[str, Any],
) -> Program:
    """The Program of an op for these operands; an optional operand that is absent maps to None."""
    params: list[Param] = []
    arguments: dict[str, Any] = dict(constants)
    for tile in signature.tiles:
        operand = operands.get(tile.name)
        if operand is None:
            arguments[tile.name] = None
            continue
        axes = operand.batch_axes + tile.spec.axes
        params.append(Param(tile.name, axes, operand.dtype))
        arguments[tile.name] = Read(tile.name, axes, operand.dtype)
    for name, dtype in scalar_dtypes.items():
        params.append(Param(name, (), dtype, scalar=True))
        arguments[name] = Read(name, (), dtype)
    own = union(*(p.axes for p in params))
    batch = merged(*(o.batch_axes for o in operands.values() if o is not None))
    current = Scope(batch=_batch_order(batch), seen=set(own), operand_axes=frozenset(own))
    token = scope.set(current)
    try:
        with _errors_name_the_line(signature):
            tiles = {n: Expr(read) for n, read in arguments.items() if isinstance(read, Read)}
            outcome = signature.function(**arguments | tiles)
            results = _results(signature, outcome, tuple(params))
            extents = used_extents(results, _extents(tuple(params), results, current))
            program = Program(signature.name, tuple(params), results, extents, tuple(current.second_names))
            check_known_axes(program, current.mentioned)
        return program
    finally:
        scope.reset(token)


def _extents(params: tuple[Param, ...], results: tuple[Result, ...], current: Scope) -> dict[str, Node]:
    """Of the axes that a body declares, and of second names for them, which no operand has."""
    extents = dict(current.extents)
    known = axis_sites(Program("", params, results))
    for second in current.second_names:
        if base(second.axis) not in known:
            extents.setdefault(second.axis, second.size)
    return extents


class _errors_name_the_line:
    """Makes an error raised inside the user's function start with the op and the user's line."""

    def __init__(self, signature: Signature):
        self.signature = signature

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, RecursionError):
            error = LanguageError(
                "Python's limit of nested calls was reached; an op that calls itself ends by a constant, as "
                "in `if depth == 0: return x`"
            )
        if not isinstance(error, UserError) or getattr(error, "located", False):
            return False
        where = f"{raising_line(trace) or self.signature.location}: in"
        if is_prebuilt(self.signature.function.__module__):
            where = f"{users_line(beyond_the_library=True) or self.signature.location}:"
        located = type(error)(f"{where} op {self.signature.name!r}: {error}")
        located.located = True  # type: ignore[attr-defined]
        raise located from None


def _returned(signature: Signature, outcome: Any) -> Sequence[Any]:
    values = outcome if isinstance(outcome, (tuple, list)) else (outcome,)
    if not values or any(value is None for value in values):
        raise LanguageError(
            f"the op {signature.name!r} returns nothing; end its body with `return` and the formula"
        )
    count = len(signature.results) if signature.results is not None else len(values)
    if count != len(values):
        raise LanguageError(
            f"the op {signature.name!r} returns {len(values)} results but is annotated with {count}; write "
            f'one Tile["..."] for each, as in -> tuple[tw.Tile["... d"], tw.Tile["..."]]'
        )
    return values


def _results(signature: Signature, outcome: Any, params: tuple[Param, ...]) -> tuple[Result, ...]:
    values = _returned(signature, outcome)
    specs = signature.results
    low = _low_precision(params)
    known = merged(*(in_place(p.axes) for p in params))
    names = _result_names(len(values), {p.name for p in params})
    results = []
    for position, (name, value) in enumerate(zip(names, values, strict=True)):
        expression = lift(halves_together(value), float32)
        if low and expression.dtype == float32 and not expression.stated:
            expression = cast(expression, low)
        order = _axis_order(expression.axes, known, specs[position] if specs else None)
        results.append(Result(name, expression.node, order))
    return tuple(results)


def _result_names(count: int, taken: set[str]) -> tuple[str, ...]:
    """`y`, or `y0`, `y1`, …; another letter where an operand has that name."""
    for stem in ("y", "z", "out", "result", "_result"):
        names = (stem,) if count == 1 else tuple(f"{stem}{position}" for position in range(count))
        if not taken & set(names):
            return names
    raise LanguageError("name the operands otherwise: y, z, out and result are all taken")


def _low_precision(params: tuple[Param, ...]) -> DType | None:
    """The dtype of 8 or 16 bits that float results are narrowed to: the widest of the float operands, if
    those of that width are all of it.
    """
    floats = {p.dtype for p in params if p.dtype.is_float and not p.scalar}
    widest = max((dtype.bits for dtype in floats), default=32)
    common = [dtype for dtype in floats if dtype.bits == widest]
    return common[0] if widest < 32 and len(common) == 1 else None


def _batch_order(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Batch axes outermost first: an operand may have met only some of them, so appearance does not tell."""
    numbered = all(a[1:].isdigit() for a in axes)
    return tuple(sorted(axes, key=lambda a: -int(a[1:]))) if numbered else axes


def _axis_order(
    axes: tuple[str, ...], known: tuple[str, ...], spec: TileSpec | None, inner: Scope | None = None
) -> tuple[str, ...]:
    """The order of a result's axes: as annotated, else batch first, then as the operands declare them."""
    batch = _batch_order(tuple(a for a in known if is_batch(a) and a in axes))
    natural = (
        *batch,
        *(a for a in known if a in axes and a not in batch),
        *(a for a in axes if a not in known),
    )
    pair = (PAIR,) if PAIR in natural else ()
    natural = tuple(a for a in natural if a != PAIR)
    if spec is None:
        return natural + pair
    named = tuple(inner.caller_name(a) for a in spec.axes) if inner else spec.axes
    wanted = (batch if spec.batched else ()) + named
    missing = [a for a in natural if a not in wanted]
    if missing:
        raise AxisError(
            f'the result has the axis {missing[0]!r}, which its annotation -> Tile["{spec}"] lacks; '
            f"reduce it, as in tw.sum(y, {missing[0]!r}), or add it to the annotation"
        )
    current = scope.get()
    declared = current.extents if current else {}
    unknown = [a for a in wanted if a not in natural and a not in known and a not in declared]
    if unknown:
        raise AxisError(f'the annotation -> Tile["{spec}"] has the axis {unknown[0]!r}, which no operand has')
    return wanted + pair


def inline(signature: Signature, tiles: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """An op called inside an op: its body on the caller's expressions, in the caller's axis names.

    The inner op's axis names stand for the axes of the tiles it is given, position by position, as if it were
    called on arrays; leading axes that it covers with `...` combine by name. Axes that it makes itself, as in
    `x["j d"]`, keep their names unless the caller uses those for something else (then `j2`, `j3`, …).
    """
    values = _inline_operands(signature, tiles)
    stated = stated_extents(signature.name, signature.specs, keywords)
    units = frozenset(axis for axis, extent in stated.items() if extent == 1)
    signature = signature.without(units)
    values, whole = _split_operands(signature, values, stated)
    inner, renames = _inner_scope(signature, values)
    for table in renames.values():
        read_along(table)
    inner.units = frozenset(_declare_units(inner, units))
    arguments: dict[str, Any] = dict(keywords)
    for name, value in values.items():
        arguments[name] = None if value is None else Expr(rename(value.node, renames[name]))
    token = scope.set(inner)
    try:
        outcome = signature.function(**arguments)
        present = [expression for name in values if (expression := arguments[name]) is not None]
        known = merged(*(in_place(expression.axes) for expression in present))
        return _inline_results(signature, outcome, known, inner, whole)
    finally:
        scope.reset(token)
        if (caller := scope.get()) is not None:
            caller.seen |= inner.seen


def _inline_operands(signature: Signature, tiles: Sequence[Any]) -> dict[str, Expr | None]:
    required = [tile for tile in signature.tiles if not tile.optional]
    if not len(required) <= len(tiles) <= len(signature.tiles):
        names = ", ".join(tile.name for tile in signature.tiles)
        raise ArgumentError(f"{signature.name}({names}) is given {len(tiles)} operands")
    given = [*tiles, *[None] * (len(signature.tiles) - len(tiles))]
    values: dict[str, Expr | None] = {}
    for tile, value in zip(signature.tiles, given, strict=True):
        values[tile.name] = expression = None if value is None and tile.optional else lift(value)
        if expression is None:
            continue
        count, named = len(expression.axes), tile.spec.rank
        if count < named or (count > named and not tile.spec.batched):
            raise AxisError(
                f'{signature.name} declares {tile.name} as Tile["{tile.spec}"] but is given a tile with the '
                f"axes ({' '.join(expression.axes) or 'none'})"
            )
    return values


def _split_operands(
    signature: Signature, values: dict[str, Expr | None], stated: Mapping[str, int]
) -> tuple[dict[str, Expr | None], Mapping[tuple[str, ...], str]]:
    """The operands with an axis for each that the annotations name, and the caller's axes that were split."""
    caller = scope.get()
    present = {name: value for name, value in values.items() if value is not None}
    specs = {tile.name: tile.spec for tile in signature.tiles if tile.name in present}
    if caller is None or not any(spec.factors for spec in specs.values()):
        return values, {}
    splitter = Splitter(specs, present, stated, caller)
    return {**values, **splitter.split()}, splitter.whole


def _declare_units(inner: Scope, units: frozenset[str]) -> Iterator[str]:
    """Makes the axes that are 1 long known to a body that asks for their positions."""
    for axis in units:
        name = inner.caller_name(axis)
        inner.extents[name] = Const(1, int64)
        yield name


def _inner_scope(
    signature: Signature, values: Mapping[str, Expr | None]
) -> tuple[Scope, dict[str, dict[str, str]]]:
    """What the inner op's axis names mean, and how each operand's axes are renamed so that they agree."""
    split = {
        t.name: len(v.axes) - len(t.spec.axes) for t in signature.tiles if (v := values[t.name]) is not None
    }
    present = [(t, v) for t in signature.tiles if (v := values[t.name]) is not None]
    batch = _batch_order(merged(*(v.axes[: split[t.name]] for t, v in present)))
    named = [(t, pair) for t, v in present for pair in zip(t.spec.axes, v.axes[split[t.name] :], strict=True)]
    names: dict[str, str] = {}
    copies: dict[str, str] = {}
    renames: dict[str, dict[str, str]] = {t.name: {} for t, _ in present}
    for tile, (inner, outer) in named:
        if inner not in names:
            candidates = [o for _, (i, o) in named if i == inner]
            free = [o for o in candidates if o not in batch and o not in names.values()]
            names[inner] = free[0] if free else fresh(outer, {*batch, *names.values()})
            if not free:
                copies[names[inner]] = outer
        if names[inner] != outer:
            renames[tile.name][outer] = names[inner]
    own = frozenset((*batch, *names.values()))
    taken = {*own, *union(*(v.axes for _, v in present))}
    current = scope.get()
    taken |= current.seen if current is not None else set()
    extents = current.extents if current is not None else {}
    inner = Scope(names, batch, copies, taken, set(taken), extents=extents, operand_axes=own)
    if current is not None:
        inner.draws, inner.second_names = current.draws, current.second_names
    return inner, renames


def _inline_results(
    signature: Signature,
    outcome: Any,
    known: tuple[str, ...],
    inner: Scope,
    whole: Mapping[tuple[str, ...], str],
) -> Any:
    values = _returned(signature, outcome)
    results = []
    for position, value in enumerate(values):
        expression = _at_first(lift(halves_together(value), float32), inner.units)
        spec = signature.results[position] if signature.results else None
        order, node = _axis_order(expression.axes, known, spec, inner), expression.node
        if spec is not None and any(len(axes) != 1 for axes in spec.dimensions):
            dimensions = tuple(tuple(map(inner.caller_name, axes)) for axes in spec.dimensions)
            groups = {tuple(map(inner.caller_name, axes)): outer for axes, outer in whole.items()}
            node, order = join(node, order, dimensions, groups, inner)
        named = _under_callers_names(signature, node, order, inner.copies)
        results.append(Expr(named.node, named.axes, expression.stated))
    return tuple(results) if isinstance(outcome, (tuple, list)) else results[0]


def _at_first(value: Expr, units: Collection[str]) -> Expr:
    """The value at the one position along each of `units`."""
    order = tuple(a for a in value.axes if a not in units)
    if order == value.axes:
        return value
    at_first = indexed(value.node, {a: Const(0, int64) for a in value.axes if a in units})
    return Expr(at_first, order, value.stated)


def _under_callers_names(
    signature: Signature, node: Node, order: tuple[str, ...], copies: Mapping[str, str]
) -> Expr:
    outer = tuple(copies.get(axis, axis) for axis in order)
    twice = next((axis for axis in outer if outer.count(axis) > 1), None)
    if twice:
        raise AxisError(
            f"a result of {signature.name} has two axes that are both called {twice!r} here; rename one of "
            f'the operands first, as in {signature.name}(a, b["j k"])'
        )
    return Expr(rename(node, dict(zip(order, outer, strict=True))), outer)


def check_known_axes(program: Program, mentioned: Mapping[str, str | None] | None = None) -> None:
    """Raise `AxisError` for a position or size along an axis that no operand has."""
    sources = known_axes(program)
    for node in program.nodes():
        if not isinstance(node, (Index, Size)) or base(node.axis) in sources:
            continue
        line = (mentioned or {}).get(node.axis)
        error = AxisError(
            f"{line + ': in ' if line else ''}op {program.name!r}: "
            f"tw.{type(node).__name__.lower()}({node.axis!r}) names an axis that no operand has; the axes "
            f"are {', '.join(sorted(sources)) or 'none'}"
        )
        error.located = line is not None  # type: ignore[attr-defined]
        raise error


__all__ = [
    "ArgumentError",
    "DTypeError",
    "Operand",
    "Signature",
    "check_known_axes",
    "float64",
    "inline",
    "read_signature",
    "trace",
]
