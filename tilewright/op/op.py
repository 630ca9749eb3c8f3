"""Op: one definition that can be called, differentiated, printed, checked and timed.

A `TracedOp` (`op.traced`) comes from a function; its derivatives (`op.derived`) are ops again, whose Programs
come from the Program of the op that they belong to. Calling an op on tiles inlines it, on NumPy arrays it
gives NumPy arrays, and any other type of argument may take the call over by a method
`__tilewright_apply__(op, arguments, out)` (Tensors do). A short way to the same is
`__tilewright_call__(op, tiles)`, for a call of all operands by position and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.compiler.pipeline import Executable, compile_program
from tilewright.dsl.complex_numbers import Complex
from tilewright.dsl.dtypes import DType, float32
from tilewright.dsl.expression import Expr
from tilewright.dsl.extents import result_shapes
from tilewright.dsl.program import Program
from tilewright.dsl.reference import reference
from tilewright.dsl.trace import REQUIRED, TileParameter
from tilewright.errors import ArgumentError, DTypeError
from tilewright.op import outputs, storage
from tilewright.op.binding import Binding, where
from tilewright.op.pairs import as_real, back, complex_names, is_complex_array, on_pairs
from tilewright.op.seen import Seen
from tilewright.runtime.devices import Array
from tilewright.runtime.recent import Recent

Shape = tuple[int, ...]
Arrays = tuple[np.ndarray, ...]

TAKES_OVER = "__tilewright_apply__"
MAX_SITES = 2048  # that are remembered of an op
MAX_PROGRAMS = 1024


@dataclass(frozen=True)
class Call:
    """One call of an op, brought to the form of its Program: operands as views in the Program's shapes."""

    program: Program
    arrays: Mapping[str, np.ndarray]
    scalars: Mapping[str, float | int]
    binding: Binding
    given: Mapping[str, Seen] = field(default_factory=dict)  # each operand as the user has it
    owners: Mapping[str, str] = field(default_factory=dict)  # the argument that each operand is
    decided: Mapping[str, Seen] = field(default_factory=dict)  # results, where their axes do not say it all

    def seen(self, position: int, shape: tuple[int, ...]) -> Seen:
        """A result as the user has it, for its shape in the Program."""
        result = self.program.results[position]
        decided = self.decided.get(result.name)
        return Seen(self.binding.user_shape(result.axes, shape)) if decided is None else decided


class Op:
    """An op of the language; see the module's docstring. Subclasses say where its Programs come from."""

    name: str
    tiles: tuple[TileParameter, ...]
    scalars: Mapping[str, Any]
    constants: Mapping[str, Any]
    scalar_dtypes: Mapping[str, DType] = {}
    direct = True
    """Whether the op's operands are `tiles` and no others."""

    def __init__(self) -> None:
        # What whatever takes calls over remembers of them.
        self.sites: Recent[tuple, Any] = Recent(MAX_SITES)

    # --- calling ----------------------------------------------------------------------------------

    def __call__(self, *tiles: Any, **keywords: Any) -> Any:
        """The op's results: one, or a tuple of them.

        `out=` an array (for several results a tuple of arrays and None) has results written there; it may be
        an operand of the call. Raises `ArgumentError`, `ShapeError`, `DTypeError`, `OverlapError`.
        """
        out = keywords.pop("out") if "out" in keywords and self._out_is_free else None
        arguments = self.arguments(tiles, keywords)
        if arguments.scalars and (given := arguments.scalars_in_arrays()):
            return self.with_operands(frozenset(given))._called(arguments.with_operands(given), out)
        return self._called(arguments, out)

    def _called(self, arguments: Arguments, out: Any) -> Any:
        for value in arguments.tiles.values():
            kind = type(value)
            if kind is np.ndarray and value.dtype.kind != "c":
                continue
            if isinstance(value, Complex) or is_complex_array(value):
                return self._on_pairs(arguments, out)
            if isinstance(value, Expr):
                return self._inlined(arguments, out)
            take_over = getattr(kind, TAKES_OVER, None)
            if take_over is not None:
                return take_over(self, arguments, out)
        results = self._run(arguments, out)
        return results[0] if len(results) == 1 else results

    def _run(self, arguments: Arguments, out: Any) -> Arrays:
        """The results for operands that are arrays or numbers."""
        call = self.bind(arguments)
        shapes = result_shapes(call.program, {name: a.shape for name, a in call.arrays.items()})
        seen = tuple(call.seen(n, shape) for n, shape in enumerate(shapes))
        run = functools.partial(self.executable(call.program).run, call.arrays, call.scalars)
        return outputs.placed(self.name, call.program, run, (shapes, seen), out)

    def _on_pairs(self, arguments: Arguments, out: Any) -> Any:
        """The call with each complex operand as real numbers along one axis more."""
        op = self.with_pairs(complex_names(arguments.tiles))
        real = Arguments(as_real(arguments.tiles), arguments.scalars, arguments.constants)
        if any(isinstance(value, Expr) for value in real.tiles.values()):
            return back(op._inlined(real, out))
        results = op._run(real, out)
        return results[0] if len(results) == 1 else results

    def with_pairs(self, names: frozenset[str]) -> Op:
        """The op whose operands `names` are complex: real ones with one axis more."""
        raise DTypeError(f"{where(self.name)} has no meaning for complex numbers")

    def with_operands(self, names: frozenset[str]) -> Op:
        """The op whose run-time scalars `names` are operands without axes, the last ones."""
        raise ArgumentError(
            f"{where(self.name)}: {min(names)!r} is a number passed at run time, which only a call of the op "
            "itself takes from a Tensor; pass a number here"
        )

    def _inlined(self, arguments: Arguments, out: Any) -> Any:
        if out is None:
            return self.inline(arguments)
        raise ArgumentError(
            f"{where(self.name)}: results inside an op are values; out= belongs to calls on arrays"
        )

    def arguments(self, tiles: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
        """Sort a call's arguments into operands, run-time scalars and constants. Raises `ArgumentError`."""
        names = self._tile_names
        if len(tiles) > len(names):
            raise ArgumentError(
                f"{where(self.name)} takes {len(names)} operands, got {len(tiles)}: {self.usage()}"
            )
        if not keywords and len(tiles) == len(names) and self._plain is not None:
            operands = dict(zip(names, tiles, strict=True))
            self._check_given(operands)
            return Arguments(operands, *self._plain)
        operands = dict.fromkeys(names)
        operands.update(zip(names, tiles, strict=False))
        scalars, constants = dict(self.scalars), dict(self.constants)
        for name, value in keywords.items():
            if name in scalars:
                scalars[name] = value
            elif name in constants:
                constants[name] = value
            elif name not in operands:
                raise ArgumentError(f"{where(self.name)} has no argument {name!r}: {self.usage()}")
            elif name in names[: len(tiles)]:
                raise ArgumentError(f"{where(self.name)} is given {name!r} twice: {self.usage()}")
            else:
                operands[name] = value
        self._check_given(operands)
        for name in self._needed_keywords:
            if name not in keywords:
                raise ArgumentError(f"{where(self.name)} needs the keyword {name!r}: {self.usage()}")
        return Arguments(operands, scalars, self._hashable(constants))

    def _check_given(self, operands: Mapping[str, Any]) -> None:
        for name in self._needed_tiles:
            if operands[name] is None:
                raise ArgumentError(f"{where(self.name)} needs the operand {name!r}: {self.usage()}")

    @functools.cached_property
    def _plain(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The scalars and constants of a call without keywords, if there can be one."""
        return None if self._needed_keywords else (dict(self.scalars), self._hashable(dict(self.constants)))

    @functools.cached_property
    def _tile_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.tiles)

    @functools.cached_property
    def _needed_tiles(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.tiles if not t.optional)

    @functools.cached_property
    def _needed_keywords(self) -> tuple[str, ...]:
        return tuple(n for n, default in {**self.scalars, **self.constants}.items() if default is REQUIRED)

    @functools.cached_property
    def _out_is_free(self) -> bool:
        """Whether `out=` says where results go, and not what an argument of the op's own is."""
        return "out" not in {*self._tile_names, *self.scalars, *self.constants}

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
        names = self._tile_names
        operands = {n: v for n, v in arguments.tiles.items() if n in names}
        further = {n: v for n, v in arguments.tiles.items() if n not in names}
        call = self._bind(Arguments(operands, arguments.scalars, arguments.constants), further)
        for name in further:
            takes = f"it takes {', '.join(call.given)}"
            if name in call.given:
                raise ArgumentError(f"{where(self.name)} is given {name!r} twice; {takes}")
            if not name.startswith("#"):
                raise ArgumentError(f"{where(self.name)} has no argument {name!r}; {takes}")
            raise ArgumentError(f"{where(self.name)} is given {len(further)} operands more; {takes}")
        return call

    def _bind(self, arguments: Arguments, further: dict[str, Any]) -> Call:
        """The call of `arguments` and of those of `further` that the op adds, which are removed there."""
        raise NotImplementedError

    def _scalar_values(self, arguments: Arguments) -> dict[str, float | int]:
        values: dict[str, float | int] = {}
        for name, value in arguments.scalars.items():
            if isinstance(value, (bool, int, float, np.generic)) or (
                isinstance(value, np.ndarray) and value.ndim == 0
            ):
                dtype = self.scalar_dtypes.get(name, float32)
                values[name] = self._whole(name, value, dtype) if dtype.is_integer else float(value)
                continue
            raise ArgumentError(
                f"{where(self.name)}: {name!r} is a number passed at run time, got {type(value).__name__}"
            )
        return values

    def _whole(self, name: str, value: Any, dtype: DType) -> int:
        low, high = dtype.range
        is_whole = isinstance(value, (int, np.integer)) or float(value).is_integer()
        if is_whole and low <= int(value) <= high:
            return int(value)
        raise ArgumentError(f"{where(self.name)}: {name!r} is a whole number of {dtype.name}, got {value!r}")

    def executable(self, program: Program, target: str = "cpu") -> Executable:
        return compile_program(program, target)

    # --- questions --------------------------------------------------------------------------------

    def reference(self, *tiles: Any, **keywords: Any) -> Any:
        """The op's float64 meaning, by NumPy: one array or a tuple of them."""
        op, tiles, keywords = on_pairs(self, tiles, keywords)
        if op is not self:
            return op.reference(*tiles, **keywords)
        arguments = self.arguments(tiles, keywords)
        call = self.bind(arguments.as_arrays())
        results = reference(call.program, {**call.arrays, **call.scalars})
        seen = [call.seen(n, r.shape) for n, r in enumerate(results)]
        shaped = tuple(r.reshape(s.front_shape) for r, s in zip(results, seen, strict=True))
        shaped = outputs.complex_again(call.program, shaped)
        shaped = tuple(s.from_front(r) for r, s in zip(shaped, seen, strict=True))
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

    @functools.cached_property
    def hvp(self) -> Op:
        """The op (operands…, directions…) ↦ the Hessian of the sum of the results, times the directions."""
        return self.grad.jvp

    def jacobian(self, *tiles: Any, **keywords: Any) -> Any:
        """∂result / ∂operand as arrays; see `tilewright.op.matrices`."""
        from tilewright.op.matrices import jacobian

        return jacobian(self, *tiles, **keywords)

    def hessian(self, *tiles: Any, **keywords: Any) -> Any:
        """The second derivatives of the sum of the results as arrays."""
        from tilewright.op.matrices import hessian

        return hessian(self, *tiles, **keywords)

    def cost(self, *tiles: Any, **keywords: Any) -> Any:
        """Bytes and operations of a call and of its gradient, as formulas and numbers; nothing runs."""
        from tilewright.op.shapes import cost

        return cost(*on_pairs(self, tiles, keywords))

    def explain(self, *tiles: Any, **keywords: Any) -> str:
        """The mathematics, the derived gradient as formulas, the kernels it became and why, as text."""
        from tilewright.op.explain import explain

        return explain(*on_pairs(self, tiles, keywords))

    def code(self, *tiles: Any, target: str = "cpu", grad: bool = False, **keywords: Any) -> str:
        """The generated source for operands like these: Triton Python, MLIR, LLVM IR, PTX or assembly."""
        from tilewright.op.code import code

        return code(*on_pairs(self, tiles, keywords), target, grad)

    def check(self, *tiles: Any, **keywords: Any) -> Any:
        """Every target against the reference, and the gradient against finite differences: a report."""
        from tilewright.op.check import check

        return check(*on_pairs(self, tiles, keywords))

    def bench(self, *tiles: Any, **keywords: Any) -> Any:
        """Time the op and its gradient against NumPy's reference and the machine's limits: a report."""
        from tilewright.op.bench import bench

        return bench(*on_pairs(self, tiles, keywords))

    def __repr__(self) -> str:
        return f"<op {self.usage()}>"


@dataclass(slots=True)
class Arguments:
    """A call's arguments, sorted."""

    tiles: dict[str, Any]
    scalars: dict[str, Any]
    constants: dict[str, Any]

    @property
    def constants_key(self) -> tuple:
        return constants_key(self.constants)

    def scalars_in_arrays(self) -> list[str]:
        """The run-time scalars that are given as Tensors, which are read where they lie."""
        return [name for name, value in self.scalars.items() if hasattr(type(value), TAKES_OVER)]

    def with_operands(self, names: Collection[str]) -> Arguments:
        """The same call with some scalars among the operands."""
        tiles = {**self.tiles, **{name: self.scalars[name] for name in names}}
        return Arguments(tiles, {n: v for n, v in self.scalars.items() if n not in names}, self.constants)

    def target(self, op_name: str) -> str:
        """Where the operands lie: "cpu" or "cuda:0", … Raises `DeviceError` where they lie apart."""
        seen = [(name, storage.behind(value), value) for name, value in self.tiles.items()]
        arrays = [
            (n, a, a is not v or isinstance(a, Array))
            for n, a, v in seen
            if isinstance(a, (np.ndarray, Array))
        ]
        return storage.common_target(op_name, arrays)

    def as_arrays(self) -> Arguments:
        """The same call on arrays: shapes stand for random data, and objects that have an array give it."""
        return Arguments({n: _array_of(v) for n, v in self.tiles.items()}, self.scalars, self.constants)


class Defaults(dict[str, Any]):
    """The constants of all calls without keywords, whose key is worked out once."""

    @functools.cached_property
    def key(self) -> tuple:
        return constants_key(dict(self))


def constants_key(constants: Mapping[str, Any]) -> tuple:
    """Constants as a key that tells 1 from 1.0 and True, 0.0 from -0.0, (1,) from (1.0,)."""
    if type(constants) is Defaults:
        return constants.key
    return tuple((name, type(value), value, _spelt(value)) for name, value in constants.items())


def _spelt(value: Any) -> str:
    """What tells apart constants that are equal and of one type; numbers but 0, and dtypes, never are."""
    plain = type(value) in (int, float, str, bool, DType) and value and value == value
    return "" if plain else repr(value)


def _array_of(value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(extent, int) for extent in value):
        return np.random.default_rng(0).standard_normal(value).astype(np.float32)
    return storage.on_host(value)
