"""Generated Triton source run on NumPy arrays: the numerics of the GPU path, tested without a GPU or torch.

    interpret(source, "add", (4,), [x, y, out, x.size, 2.0], {"BLOCK": 256})

Triton's own interpreter does the work. What it lacks is added for the duration of one call:

- it is chosen by an environment variable when Triton is imported; here it is put in place by hand, and
  everything that it replaces in `triton.language` is put back, so that the same process can also compile;
- every access is checked against the arrays passed (`memory_guard`);
- the numerics of a GPU where they are not those of the interpreter (`interpreter_numerics`);
- types of tiles are made once, and nothing is computed twice (`interpreter_types`);
- tensors, as wide as the bounds, where a `for` over `range` would give Python's ints;
- `tl.reduce` and `tl.associative_scan` with a combine function run over whole arrays, not element by element.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.compiler.targets.triton.interpreter_numerics import (
    NUMPY_NAMES,
    TYPE_NAMES,
    mend_builder,
    to_bfloat16,
    triton_type,
)
from tilewright.compiler.targets.triton.interpreter_types import remember_types
from tilewright.compiler.targets.triton.memory_guard import MemoryGuard
from tilewright.compiler.targets.triton.sources import LANGUAGE, PARSER, import_triton, load_functions
from tilewright.errors import InternalError, LaunchError


def interpret(
    source: str,
    kernel_name: str,
    grid: Sequence[int],
    arguments: Sequence[np.ndarray | np.generic | int | float | bool],
    constexprs: Mapping[str, Any] | None = None,
    *,
    signature: Mapping[str, str] | None = None,
    checked: bool = True,
) -> None:
    """Run every program of the grid, one after the other; arrays are written in place.

    source: a whole module text, as for `compile_source`.
    grid: one to three extents; zero means that nothing runs.
    arguments: the run-time arguments in the order of the kernel's parameters, without constexprs. An array
        is passed as the address of its first element, so views with an offset and any strides work as on the
        GPU: the kernel gets the strides as integers of its own. float16, bfloat16 (ml_dtypes), float32,
        float64, bool and all integers.
    constexprs: values of the constexpr parameters; defaults may be left out.
    signature: Triton types of scalar arguments, by name; otherwise int is i32 (i64 where it needs to be),
        float is fp32.
    checked: refuse, with `LaunchError`, every load or store outside of the arrays passed.

    Raises `LaunchError` with the program's position and the line when the kernel fails.
    """
    import_triton()
    constexprs = dict(constexprs or {})
    # NumPy would warn of each overflow and each NaN that a kernel makes on purpose, as in a masked lane.
    with LANGUAGE.alone(), _interpreting(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        kernel = _device_functions(source).get(kernel_name)
        if kernel is None:
            raise InternalError(f"the generated source has no kernel {kernel_name!r}")
        names = [name for name in kernel.parameters if name not in constexprs]
        names = names[: len(arguments)]
        if len(names) != len(arguments):
            raise InternalError(
                f"kernel {kernel_name!r} takes {names}; {len(arguments)} arguments were given"
            )
        kinds = signature or {}
        values = {
            name: _argument(value, kinds.get(name)) for name, value in zip(names, arguments, strict=True)
        }
        arrays = [
            (name, value)
            for name, value in zip(names, arguments, strict=True)
            if isinstance(value, np.ndarray)
        ]
        guard = MemoryGuard(kernel_name, arrays) if checked else None
        with _guarded(guard):
            _run(kernel, kernel_name, grid, {**values, **constexprs})


def _run(kernel: DeviceFunction, kernel_name: str, grid: Sequence[int], arguments: dict[str, Any]) -> None:
    from triton.runtime.interpreter import interpreter_builder

    extents = (*grid, 1, 1, 1)[:3]
    interpreter_builder.set_grid_dim(*extents)
    for program in itertools.product(*map(range, extents)):
        interpreter_builder.set_grid_idx(*program)
        try:
            kernel(**arguments)
        except LaunchError as error:
            raise LaunchError(f"{error}{_where(error, kernel)}") from None
        except Exception as error:
            message = f"{type(error).__name__}: {error}{_where(error, kernel)}"
            raise LaunchError(f"kernel {kernel_name!r}, program {program}: {message}") from error


def _where(error: BaseException, kernel: DeviceFunction) -> str:
    """The generated line at which an error rose."""
    file_name = kernel.fn.__code__.co_filename
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file_name]
    if not frames:
        return ""
    return f", at line {frames[-1].lineno}: {frames[-1].line}"


def _argument(value: Any, kind: str | None) -> Any:
    """A NumPy array, or a scalar, as the tensor that the interpreter computes with."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    if isinstance(value, np.ndarray):
        pointer = tl.pointer_type(triton_type(_type_name(value.dtype)))
        address = value.__array_interface__["data"][0]
        return tl.tensor(TensorHandle(np.array([address], dtype=np.uint64), pointer), pointer)
    kind = kind or _scalar_kind(value)
    scalar = triton_type(kind)
    data = np.array([value]).astype(np.dtype(NUMPY_NAMES[kind]) if kind != "bf16" else np.float32)
    if kind == "bf16":
        data = to_bfloat16(data)
    return tl.tensor(TensorHandle(data, scalar), scalar)


def _scalar_kind(value: Any) -> str:
    if isinstance(value, np.generic):
        return _type_name(value.dtype)
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    raise InternalError(f"a kernel argument of type {type(value).__name__}")


def _type_name(dtype: np.dtype) -> str:
    name = TYPE_NAMES.get(dtype.name)
    if name is None:
        raise InternalError(f"no Triton type for the dtype {dtype.name}")
    return name


class DeviceFunction:
    """A jitted function as its interpreted self; takes the place of Triton's `JITFunction`."""

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn
        self.__name__ = fn.__name__
        code = fn.__code__
        self.parameters = code.co_varnames[: code.co_argcount]

    @functools.cached_property
    def _rewritten(self) -> Callable[..., Any]:
        from triton.runtime.interpreter import FunctionRewriter

        with PARSER:
            return FunctionRewriter(self.fn).rewrite_ast()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        keywords.pop("_semantic", None)
        return self._rewritten(*arguments, **keywords)


@functools.lru_cache(maxsize=256)
def _device_functions(source: str) -> dict[str, DeviceFunction]:
    """The jitted functions of a module text, interpreted, and seeing each other so."""
    namespace = load_functions(source)
    functions = {name: DeviceFunction(value.fn) for name, value in namespace.items() if _is_jitted(value)}
    namespace.update(functions, range=_range)
    return functions


def _range(*bounds: Any) -> Iterator[Any]:
    """`range` in a kernel: its positions are tensors, as they are in compiled code."""
    kind = np.result_type(np.int32, *(b.handle.data.dtype for b in bounds if hasattr(b, "handle")))
    for position in range(*(int(bound) for bound in bounds)):
        yield _argument(position, _type_name(kind))


def _is_jitted(value: object) -> bool:
    """Whether `triton.jit` made it: a `JITFunction`, or an `InterpretedFunction` under TRITON_INTERPRET=1."""
    return type(value).__name__ in ("JITFunction", "InterpretedFunction")


@contextlib.contextmanager
def _interpreting() -> Iterator[None]:
    """Triton's language as the interpreter needs it; afterwards exactly as it was."""
    import triton.language as tl
    from triton import knobs
    from triton.runtime import interpreter

    places: list[Any] = [tl, tl.core, tl.math, tl.standard, tl.random, tl.tensor, tl.dtype, knobs.runtime]
    places += [interpreter.ReduceOps, interpreter.ScanOps, interpreter.interpreter_builder]
    places += [interpreter, interpreter.interpreter_semantic, tl.core.block_type]
    places += [place for place in (getattr(tl, "condition", None),) if isinstance(place, type)]
    places += [getattr(tl.core, "tensor_descriptor_base", tl.dtype)]
    before = [dict(vars(place)) for place in places]
    try:
        if not _changed_again(places, before):
            _replace(knobs.runtime, "interpret", True)
            _interpret_library(tl, interpreter)
            interpreter._patch_lang(types.SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
            _replace(tl, "range", lambda *bounds, **options: _range(*bounds))
            _replace(tl.tensor, "__index__", lambda self: int(self.handle.data.item()))
            _replace(interpreter.ReduceOps, "generic_reduce", _reduce_in_pairs)
            _replace(interpreter.ScanOps, "generic_scan", _scan_by_doubling)
            mend_builder(interpreter)
            remember_types(tl, interpreter)
            _remember_changes(places, before)
        yield
    finally:
        for place, attributes in zip(places, before, strict=True):
            _put_back(place, attributes)


_changes: list[tuple[dict[str, Any], dict[str, Any]]] = []
"""Of each place, what stood there and what took its place; finding that takes as long as a small kernel."""


def _remember_changes(places: list[Any], before: list[dict[str, Any]]) -> None:
    _changes.clear()
    for place, stood in zip(places, before, strict=True):
        new = {name: value for name, value in vars(place).items() if stood.get(name) is not value}
        _changes.append(({name: stood.get(name) for name in new}, new))


def _changed_again(places: list[Any], before: list[dict[str, Any]]) -> bool:
    """Make the changes of the last time, if what they replace stands there as it did then."""
    if not _changes:
        return False
    for stands, (stood, _) in zip(before, _changes, strict=True):
        if any(stands.get(name) is not value for name, value in stood.items()):
            return False
    for place, (_, new) in zip(places, _changes, strict=True):
        for name, value in new.items():
            _replace(place, name, value)
    return True


def _replace(place: Any, name: str, value: Any) -> None:
    if isinstance(place, type):
        setattr(place, name, value)
    else:
        vars(place)[name] = value  # past the descriptors of Triton's settings


def _put_back(place: Any, attributes: dict[str, Any]) -> None:
    for name in [name for name in vars(place) if name not in attributes]:
        delattr(place, name)
    now = vars(place)
    for name, value in attributes.items():
        if now.get(name) is not value:
            setattr(place, name, value)


@functools.cache
def _library_function(fn: Callable[..., Any]) -> DeviceFunction:
    return DeviceFunction(fn)


def _interpret_library(tl: Any, interpreter: Any) -> None:
    """Let `tl.sum`, `tl.cdiv` and the rest of Triton's own library, jitted source too, be interpreted."""
    for module in (tl.standard, tl.random):
        # Rewritten functions name the interpreter's helpers; they run in their module's namespace.
        for name, value in vars(interpreter).items():
            vars(module).setdefault(name, value)
    for module in (tl.standard, tl.random, tl):
        for name, value in list(vars(module).items()):
            if _is_jitted(value):
                setattr(module, name, _library_function(value.fn))
    for name, value in list(vars(tl.tensor).items()):
        if _is_jitted(value):
            setattr(tl.tensor, name, functools.partialmethod(_call, _library_function(value.fn)))


def _call(tensor: Any, function: DeviceFunction, *arguments: Any, **keywords: Any) -> Any:
    return function(tensor, *arguments, **keywords)


@contextlib.contextmanager
def _guarded(guard: MemoryGuard | None) -> Iterator[None]:
    """Show every access of the interpreter to the guard before it happens."""
    from triton.runtime.interpreter import interpreter_builder as builder

    if guard is None:
        yield
        return
    load, store = builder.create_masked_load, builder.create_masked_store
    modify, swap = builder.create_atomic_rmw, builder.create_atomic_cas

    def check(access: str, pointer: Any, mask: Any, writing: bool) -> None:
        bits = pointer.get_element_ty().primitive_bitwidth
        allowed = np.ones(pointer.data.shape, dtype=bool) if mask is None else mask.data
        guard.check(access, pointer.data, allowed, max(1, bits // 8), builder.grid_idx, writing=writing)

    def checked_load(pointer: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        check("load", pointer, mask, False)
        return load(pointer, mask, *rest, **named)

    def checked_store(pointer: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        check("store", pointer, mask, True)
        return store(pointer, value, mask, *rest, **named)

    def checked_modify(operation: Any, pointer: Any, value: Any, mask: Any, *rest: Any) -> Any:
        check("atomic", pointer, mask, True)
        return modify(operation, pointer, value, mask, *rest)

    def checked_swap(pointer: Any, *rest: Any) -> Any:
        check("atomic", pointer, None, True)
        return swap(pointer, *rest)

    vars(builder).update(
        create_masked_load=checked_load,
        create_masked_store=checked_store,
        create_atomic_rmw=checked_modify,
        create_atomic_cas=checked_swap,
    )
    yield


# Reductions and scans over whole arrays


def _reduce_in_pairs(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """`tl.reduce` with any associative combine: neighbours first, so the order of operands is kept."""
    arrays = [value.handle.data for value in inputs]
    kinds = [value.dtype for value in inputs]
    rank = arrays[0].ndim
    axis = 0 if self.axis is None else self.axis % rank
    if self.axis is None:
        arrays = [array.reshape(-1) for array in arrays]
    while arrays[0].shape[axis] > 1:
        even = [_every_other(array, axis, 0) for array in arrays]
        odd = [_every_other(array, axis, 1) for array in arrays]
        arrays = _combine(self, even, odd, kinds)
    if not self.keep_dims:
        arrays = [np.squeeze(array, axis) for array in arrays]
    elif self.axis is None:
        arrays = [array.reshape((1,) * rank) for array in arrays]
    return [self.to_tensor(array, kind) for array, kind in zip(arrays, kinds, strict=True)]


def _every_other(array: np.ndarray, axis: int, first: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(first, None, 2),)]


def _scan_by_doubling(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """`tl.associative_scan` with any associative combine: each step doubles how far back an element sees."""
    arrays = [value.handle.data for value in inputs]
    kinds = [value.dtype for value in inputs]
    axis = self.axis % arrays[0].ndim
    extent = arrays[0].shape[axis]
    position = np.arange(extent).reshape([-1 if dim == axis else 1 for dim in range(arrays[0].ndim)])
    distance = 1
    while distance < extent:
        earlier = [np.roll(array, distance, axis) for array in arrays]
        combined = _combine(self, earlier, arrays, kinds)
        arrays = [np.where(position >= distance, new, old) for new, old in zip(combined, arrays, strict=True)]
        distance *= 2
    return [self.to_tensor(array, kind) for array, kind in zip(arrays, kinds, strict=True)]


def _combine(
    operation: Any, left: list[np.ndarray], right: list[np.ndarray], kinds: list[Any]
) -> list[np.ndarray]:
    operands = [
        operation.to_tensor(array, kind)
        for array, kind in zip([*left, *right], [*kinds, *kinds], strict=True)
    ]
    result = operation.combine_fn(*operands)
    results = result if isinstance(result, tuple) else (result,)
    shape = left[0].shape
    return [
        np.broadcast_to(operation.to_tensor(value.handle.data, kind).handle.data, shape)
        for value, kind in zip(results, kinds, strict=True)
    ]
