"""Tracing: a Python function over tiles becomes a Program.

`Signature` reads the function's annotations once. `trace` runs the body on expressions, for operands of known
dtypes and batch ranks and known constants; every error it raises names the op and the user's line.
"""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.dsl.axes import Scalar, TileSpec, batch_axes, is_batch_axis, union
from tilewright.dsl.dtypes import DType, float32, float64, promote
from tilewright.dsl.expression import Expr, cast, lift
from tilewright.dsl.program import Node, Param, Program, Read, Result, rename, topological
from tilewright.errors import ArgumentError, AxisError, DTypeError, LanguageError, UserError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARY_OF_OPS = os.path.join(_PACKAGE, "kernels")


@dataclass(frozen=True)
class TileParameter:
    name: str
    spec: TileSpec
    optional: bool


@dataclass(frozen=True)
class Signature:
    """What a function's annotations say: operands, run-time scalars, constants, the results' axes."""

    name: str
    function: Callable[..., Any]
    tiles: tuple[TileParameter, ...]
    scalars: Mapping[str, Any]
    constants: Mapping[str, Any]
    results: tuple[TileSpec, ...] | None

    @property
    def location(self) -> str:
        code = self.function.__code__
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
    tiles: list[TileParameter] = []
    scalars: dict[str, Any] = {}
    constants: dict[str, Any] = {}
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
        target = scalars if annotation is Scalar else constants
        target[parameter.name] = parameter.default
    return Signature(name, function, tuple(tiles), scalars, constants, _result_specs(signature, where))


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
    """What tracing must know of one argument: its dtype and how many batch axes it has."""

    dtype: DType
    batch_rank: int


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
        axes = tile.spec.expand(operand.batch_rank)
        params.append(Param(tile.name, axes, operand.dtype))
        arguments[tile.name] = Expr(Read(tile.name, axes, operand.dtype))
    for name, dtype in scalar_dtypes.items():
        params.append(Param(name, (), dtype, scalar=True))
        arguments[name] = Expr(Read(name, (), dtype))
    with _errors_name_the_line(signature):
        outcome = signature.function(**arguments)
        results = _results(signature, outcome, tuple(params))
    return Program(signature.name, tuple(params), results)


class _errors_name_the_line:
    """Makes an error raised inside the user's function start with the op and the user's line."""

    def __init__(self, signature: Signature):
        self.signature = signature

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if not isinstance(error, UserError) or getattr(error, "located", False):
            return False
        frames = [f for f in traceback.extract_tb(trace) if _is_users(f.filename)]
        where = (
            f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}"
            if frames
            else self.signature.location
        )
        located = type(error)(f"{where}: in op {self.signature.name!r}: {error}")
        located.located = True  # type: ignore[attr-defined]
        raise located from None


def _is_users(filename: str) -> bool:
    path = os.path.abspath(filename)
    return not path.startswith(_PACKAGE) or path.startswith(_LIBRARY_OF_OPS)


def _results(signature: Signature, outcome: Any, params: tuple[Param, ...]) -> tuple[Result, ...]:
    values = outcome if isinstance(outcome, (tuple, list)) else (outcome,)
    if not values or any(value is None for value in values):
        raise LanguageError("the op returns nothing; end its body with `return` and the formula")
    specs = signature.results
    if specs is not None and len(specs) != len(values):
        raise LanguageError(f"the op returns {len(values)} results but is annotated with {len(specs)}")
    low = _low_precision(params)
    known = union(*(p.axes for p in params))
    names = ("y",) if len(values) == 1 else tuple(f"y{position}" for position in range(len(values)))
    results = []
    for position, (name, value) in enumerate(zip(names, values, strict=True)):
        expression = lift(value, float32)
        if low and expression.dtype == float32:
            expression = cast(expression, low)
        order = _axis_order(expression.node, known, specs[position] if specs else None)
        results.append(Result(name, expression.node, order))
    return tuple(results)


def _low_precision(params: tuple[Param, ...]) -> DType | None:
    """The half-precision dtype that float results are narrowed to, if all float operands are of it."""
    floats = [p.dtype for p in params if p.dtype.is_float and not p.scalar]
    if not floats:
        return None
    common = floats[0]
    for dtype in floats[1:]:
        common = promote(common, dtype)
    return common if common.bits < 32 else None


def _axis_order(node: Node, known: tuple[str, ...], spec: TileSpec | None) -> tuple[str, ...]:
    batch = tuple(a for a in known if is_batch_axis(a))
    batch = tuple(a for a in batch_axes(len(batch)) if a in node.axes)
    appearance = tuple(a for a in known if a in node.axes and a not in batch) + tuple(
        a for a in node.axes if a not in known
    )
    natural = batch + appearance
    if spec is None:
        return natural
    wanted = (batch if spec.batched else ()) + spec.axes
    missing = [a for a in natural if a not in wanted]
    if missing:
        raise AxisError(
            f'the result has the axis {missing[0]!r}, which its annotation -> Tile["{spec}"] lacks; '
            f"reduce it, as in tw.sum(y, {missing[0]!r}), or add it to the annotation"
        )
    unknown = [a for a in wanted if a not in natural and a not in known]
    if unknown:
        raise AxisError(f'the annotation -> Tile["{spec}"] has the axis {unknown[0]!r}, which no operand has')
    return wanted


def inline(signature: Signature, tiles: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """An op called inside an op: its body on the caller's expressions, under the callee's axis names."""
    to_caller: dict[str, str] = {}
    arguments: dict[str, Any] = dict(keywords)
    for tile, value in zip(signature.tiles, tiles, strict=True):
        if value is None:
            arguments[tile.name] = None
            continue
        expression = lift(value)
        arguments[tile.name] = _bind_inline(signature, tile, expression, to_caller)
    outcome = signature.function(**arguments)

    def back(value: Any) -> Expr:
        expression = lift(value, float32)
        return Expr(rename(expression.node, {a: to_caller.get(a, a) for a in expression.axes}))

    return tuple(back(v) for v in outcome) if isinstance(outcome, (tuple, list)) else back(outcome)


def _bind_inline(signature: Signature, tile: TileParameter, value: Expr, to_caller: dict[str, str]) -> Expr:
    named = tile.spec.axes
    axes = value.axes
    if len(axes) < len(named) or (not tile.spec.batched and len(axes) != len(named)):
        raise AxisError(
            f'{signature.name} declares {tile.name} as Tile["{tile.spec}"] but is given a tile with the axes '
            f"({' '.join(axes)})"
        )
    split = len(axes) - len(named)
    names: dict[str, str] = {}
    for axis in axes[:split]:
        names[axis] = f"_{axis}"
        to_caller[f"_{axis}"] = axis
    for axis, callee in zip(axes[split:], named, strict=True):
        names[axis] = callee
        to_caller.setdefault(callee, axis)
    return Expr(rename(value.node, names))


def check_known_axes(program: Program) -> None:
    """Raise `AxisError` for a position or size along an axis that no operand has."""
    from tilewright.dsl.extents import extent_sources

    sources = extent_sources(program)
    from tilewright.dsl.axes import base
    from tilewright.dsl.program import Index, Size

    for node in topological(r.node for r in program.results):
        if isinstance(node, (Index, Size)) and base(node.axis) not in sources:
            raise AxisError(
                f"op {program.name!r}: tw.{type(node).__name__.lower()}({node.axis!r}) names an axis that no "
                f"operand has; the axes are {', '.join(sorted(sources))}"
            )


__all__ = [
    "ArgumentError",
    "DTypeError",
    "Operand",
    "Signature",
    "float64",
    "inline",
    "read_signature",
    "trace",
]
