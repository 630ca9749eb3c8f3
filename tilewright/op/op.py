"""Op: one definition that can be called, differentiated, printed, checked and timed.

A `TracedOp` comes from a function; its derivatives are ops again, whose Programs come from the Program of
the op that they belong to. Calling an op on tiles inlines it, on NumPy arrays it gives NumPy arrays, and
any other type of argument may take the call over by a method `__tilewright_apply__(op, tiles, keywords)`
(Tensors do).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.compiler.pipeline import Executable, compile_program
from tilewright.dsl.dtypes import DType, float32, promote
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.dsl.trace import REQUIRED, Operand, Signature, TileParameter, inline, read_signature, trace
from tilewright.errors import ArgumentError, DTypeError, MemoryLimitError, ShapeError, TargetError
from tilewright.op.binding import Binding, as_operands, bind, where

MAX_CALLS = 1024  # combinations of shapes, strides and constants that an op remembers


@dataclass(frozen=True)
class Call:
    """One call of an op, brought to the form of its Program: operands as views in the Program's shapes."""

    program: Program
    arrays: Mapping[str, np.ndarray]
    scalars: Mapping[str, float | int]
    binding: Binding
    given: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # each operand's shape as the user has it
    owners: Mapping[str, str] = field(default_factory=dict)  # the argument that each operand is
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of results that an operand decides

    def result_shape(self, position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a user expects of a result."""
        result = self.program.results[position]
        decided = self.shapes.get(result.name)
        return self.binding.user_shape(result.axes, shape) if decided is None else decided


@dataclass
class _Specialised:
    """The Programs of one op, by what they depend on: dtypes, batch axes, constants."""

    programs: dict[Any, Program] = field(default_factory=dict)


class Op:
    """An op of the language; see the module's docstring. Subclasses say where its Programs come from."""

    name: str
    tiles: tuple[TileParameter, ...]
    scalars: Mapping[str, Any]
    constants: Mapping[str, Any]

    def __init__(self) -> None:
        self._specialised = _Specialised()
        self._calls: dict[tuple, tuple[Any, ...]] = {}

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        """The Program for operands of these dtypes and batch axes."""
        raise NotImplementedError

    # --- calling ----------------------------------------------------------------------------------

    def __call__(self, *tiles: Any, **keywords: Any) -> Any:
        """The op's results: one, or a tuple of them. Raises `ArgumentError`, `ShapeError`, `DTypeError`."""
        arguments = self.arguments(tiles, keywords)
        for value in arguments.tiles.values():
            if isinstance(value, Expr):
                return self.inline(arguments)
            take_over = getattr(type(value), "__tilewright_apply__", None)
            if take_over is not None:
                return take_over(self, arguments)
        call = self.bind(arguments)
        try:
            results = self.executable(call.program).run(call.arrays, call.scalars)
        except (TargetError, MemoryLimitError) as error:
            raise type(error)(f"{where(self.name)}: {error}") from None
        shaped = tuple(r.reshape(call.result_shape(n, r.shape)) for n, r in enumerate(results))
        return shaped[0] if len(shaped) == 1 else shaped

    def arguments(self, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
        """Sort a call's arguments into operands, run-time scalars and constants. Raises `ArgumentError`."""
        if len(tiles) > len(self.tiles):
            raise ArgumentError(
                f"{where(self.name)} takes {len(self.tiles)} operands, got {len(tiles)}: {self.usage()}"
            )
        operands = dict(zip((t.name for t in self.tiles), tiles, strict=False))
        scalars: dict[str, Any] = {}
        constants: dict[str, Any] = {}
        tile_names = {t.name for t in self.tiles}
        for name, value in keywords.items():
            if name in tile_names:
                if name in operands:
                    raise ArgumentError(f"{where(self.name)} is given {name!r} twice: {self.usage()}")
                operands[name] = value
            elif name in self.scalars:
                scalars[name] = value
            elif name in self.constants:
                constants[name] = value
            else:
                raise ArgumentError(f"{where(self.name)} has no argument {name!r}: {self.usage()}")
        ordered = {t.name: operands.get(t.name) for t in self.tiles}
        for tile in self.tiles:
            if ordered[tile.name] is None and not tile.optional:
                raise ArgumentError(f"{where(self.name)} needs the operand {tile.name!r}: {self.usage()}")
        return Arguments(
            ordered,
            self._complete(scalars, self.scalars),
            self._hashable(self._complete(constants, self.constants)),
        )

    def _complete(self, given: dict[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
        complete = {}
        for name, default in declared.items():
            if name not in given and default is REQUIRED:
                raise ArgumentError(f"{where(self.name)} needs the keyword {name!r}: {self.usage()}")
            complete[name] = given.get(name, default)
        return complete

    def _hashable(self, constants: dict[str, Any]) -> dict[str, Any]:
        for name, value in constants.items():
            try:
                hash(value)
            except TypeError:
                raise ArgumentError(
                    f"{where(self.name)}: {name!r} is a compile-time constant and cannot be a "
                    f"{type(value).__name__}; pass a number, string or tuple, annotate it tw.Scalar to pass "
                    f"a number at run time, or make it a Tile"
                ) from None
        return constants

    def usage(self) -> str:
        """The op's signature as a user writes a call."""
        tiles = [f"{t.name}: [{t.spec}]" + (" = None" if t.optional else "") for t in self.tiles]
        keywords = [
            name if default is REQUIRED else f"{name}={default!r}"
            for name, default in {**self.scalars, **self.constants}.items()
        ]
        return f"{self.name}({', '.join(tiles + (['*', *keywords] if keywords else []))})"

    def inline(self, arguments: Arguments) -> Any:
        raise ArgumentError(
            f"{where(self.name)}: a derivative op cannot be called inside an op; call it on arrays"
        )

    def bind(self, arguments: Arguments) -> Call:
        """Everything about a call that can be known before it runs."""
        arrays: dict[str, Any] = as_operands(arguments.tiles, self.name)
        key = (
            *((a.shape, a.strides, a.dtype) if a is not None else None for a in arrays.values()),
            *arguments.constants_key,
        )
        known = self._calls.get(key)
        if known is None:
            binding = bind(self.name, self.tiles, arrays)
            program = self.program(binding, arguments.constants)
            shapes = tuple((p.name, binding.operands[p.name].shape) for p in program.tiles)  # type: ignore[union-attr]
            given = {p.name: arrays[p.name].shape for p in program.tiles}
            known = program, binding, shapes, given, {name: name for name in given}
            if len(self._calls) >= MAX_CALLS:
                self._calls.clear()
            self._calls[key] = known
        program, binding, shapes, given, owners = known
        views = {name: _view(arrays[name], shape) for name, shape in shapes}
        return Call(program, views, self._scalar_values(arguments), binding, given, owners)

    def _scalar_values(self, arguments: Arguments) -> dict[str, float | int]:
        values = {}
        for name, value in arguments.scalars.items():
            if isinstance(value, (bool, int, float, np.generic)) or (
                isinstance(value, np.ndarray) and value.ndim == 0
            ):
                values[name] = float(value)
                continue
            raise ArgumentError(
                f"{where(self.name)}: {name!r} is a number passed at run time, got {type(value).__name__}"
            )
        return values

    def executable(self, program: Program, target: str = "cpu") -> Executable:
        return compile_program(program, target)

    # --- questions --------------------------------------------------------------------------------

    def reference(self, *tiles: Any, **keywords: Any) -> Any:
        """The op's float64 meaning, by NumPy: one array or a tuple of them."""
        arguments = self.arguments(tiles, keywords)
        call = self.bind(arguments.as_arrays())
        results = reference(call.program, {**call.arrays, **call.scalars})
        shaped = tuple(r.reshape(call.result_shape(n, r.shape)) for n, r in enumerate(results))
        return shaped[0] if len(shaped) == 1 else shaped

    @functools.cached_property
    def vjp(self) -> Op:
        """The op (operands…, cotangents of the results…) ↦ gradients of the floating-point operands."""
        from tilewright.op.derived import VjpOp

        return VjpOp(self)

    @functools.cached_property
    def jvp(self) -> Op:
        """The op (operands…, tangents of the floating-point operands…) ↦ tangents of the results."""
        from tilewright.op.derived import JvpOp

        return JvpOp(self)

    @functools.cached_property
    def grad(self) -> Op:
        """The op operands ↦ gradients of the sum of the (floating-point) results."""
        from tilewright.op.derived import GradOp

        return GradOp(self)

    def explain(self, *tiles: Any, **keywords: Any) -> str:
        """The mathematics, the derived gradient as formulas, the kernels it became and why, as text."""
        from tilewright.op.explain import explain

        return explain(self, tiles, keywords)

    def code(self, *tiles: Any, target: str = "cpu", grad: bool = False, **keywords: Any) -> str:
        """The generated source for operands like these: Triton Python, MLIR, LLVM IR, PTX or assembly."""
        from tilewright.op.code import code

        return code(self, tiles, keywords, target, grad)

    def check(self, *tiles: Any, **keywords: Any) -> Any:
        """Every target against the reference, and the gradient against finite differences: a report."""
        from tilewright.op.check import check

        return check(self, tiles, keywords)

    def bench(self, *tiles: Any, **keywords: Any) -> Any:
        """Time the op and its gradient against NumPy's reference and the machine's limits: a report."""
        from tilewright.op.bench import bench

        return bench(self, tiles, keywords)

    def __repr__(self) -> str:
        return f"<op {self.usage()}>"


@dataclass(frozen=True)
class Arguments:
    """A call's arguments, sorted."""

    tiles: dict[str, Any]
    scalars: dict[str, Any]
    constants: dict[str, Any]

    @property
    def constants_key(self) -> tuple:
        return constants_key(self.constants)

    def as_arrays(self) -> Arguments:
        """The same call on arrays: shapes stand for random data, and objects that have an array give it."""
        return Arguments({n: _array_of(v) for n, v in self.tiles.items()}, self.scalars, self.constants)


def constants_key(constants: Mapping[str, Any]) -> tuple:
    """Constants as a key that tells 1 from 1.0 and True, 0.0 from -0.0, (1,) from (1.0,)."""
    return tuple((name, type(value), value, repr(value)) for name, value in constants.items())


def _array_of(value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(extent, int) for extent in value):
        return np.random.default_rng(0).standard_normal(value).astype(np.float32)
    if isinstance(value, np.ndarray):
        return value
    to_numpy = getattr(value, "numpy", None)
    return to_numpy() if callable(to_numpy) else value


def _view(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array if array.shape == shape else array.reshape(shape)


class TracedOp(Op):
    """An op that a user's function defines."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.signature: Signature = read_signature(function)
        self.name = self.signature.name
        self.tiles = self.signature.tiles
        self.scalars = self.signature.scalars
        self.constants = self.signature.constants
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def program(self, binding: Binding, constants: Mapping[str, Any]) -> Program:
        key = (binding.key, constants_key(constants))
        found = self._specialised.programs.get(key)
        if found is None:
            operands = {
                name: None if o is None else Operand(o.dtype, len(o.batch), o.batch)
                for name, o in binding.operands.items()
            }
            scalar_dtype = _scalar_dtype(binding)
            found = trace(self.signature, operands, dict.fromkeys(self.scalars, scalar_dtype), constants)
            self._specialised.programs[key] = found
        return found

    def inline(self, arguments: Arguments) -> Any:
        return inline(
            self.signature, tuple(arguments.tiles.values()), {**arguments.scalars, **arguments.constants}
        )  # fmt: skip


def _scalar_dtype(binding: Binding) -> DType:
    """Run-time numbers take the dtype that the op's floating-point operands compute in."""
    result = float32
    for operand in binding.operands.values():
        if operand is not None and operand.dtype.is_float:
            result = promote(result, operand.dtype).compute
    return result


def op(function: Callable[..., Any]) -> TracedOp:
    """Make an op of a function whose operands are annotated `tw.Tile["..."]`.

    Raises `LanguageError` or `AxisError` where the annotations are not an op's.
    """
    return TracedOp(function)


__all__ = ["Arguments", "Call", "DTypeError", "Op", "ShapeError", "TracedOp", "op"]
