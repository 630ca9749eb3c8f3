"""The arithmetic of Triton's interpreter where it is not that of a GPU.

bfloat16 is kept as its bits in uint16, which Triton's own operations take for whole numbers; conversions to
it truncate. `tl.fma` rounds twice in some versions. `mend_builder` replaces these operations on the builder
of the interpreter, for as long as the caller wants.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.compiler.targets.triton.rounded_once import float32_to_odd, fma64, fma_narrow

TYPE_NAMES = {
    "bool": "i1",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    "float8_e4m3fn": "fp8e4nv",
    "float8_e5m2": "fp8e5",
}
"""Triton's name of every NumPy (or ml_dtypes) dtype that a kernel can take."""

NUMPY_NAMES = {triton: numpy for numpy, triton in TYPE_NAMES.items()}


def triton_type(kind: str) -> Any:
    """Triton's type of a name."""
    import triton.language as tl

    return tl.int1 if kind == "i1" else tl.str_to_ty(kind, None)


def mend_builder(interpreter: Any) -> None:
    """Replace, on the builder alone, the operations whose results are not those of a GPU."""
    builder = interpreter.interpreter_builder
    kind = type(builder)
    vars(builder).update(
        cast_impl=functools.partial(_cast, builder, kind.cast_impl),
        create_fp_to_fp=functools.partial(_convert, builder, kind.create_fp_to_fp),
        binary_op=functools.partial(_binary, builder, kind.binary_op),
        unary_op=functools.partial(_unary, builder, kind.unary_op),
        ternary_op=functools.partial(_ternary, builder, kind.ternary_op),
        create_fma=_fused_multiply_add,
        create_dot=functools.partial(_dot, builder, kind.create_dot),
        create_maxnumf=lambda left, right: builder.binary_op(left, right, np.fmax),
        create_minnumf=lambda left, right: builder.binary_op(left, right, np.fmin),
        get_all_ones_value=functools.partial(_all_ones, builder, kind.get_all_ones_value),
        get_bf16=lambda value: _rounded(np.array([value], dtype=np.float32)),
    )


def _all_ones(builder: Any, original: Callable[..., Any], kind: Any) -> Any:
    """The operand of `~x`; older interpreters refuse unsigned integers."""
    from triton.runtime.interpreter import TensorHandle

    name = NUMPY_NAMES.get(kind.scalar.name.replace("uint", "u"), "")
    if not name.startswith("uint"):
        return original(builder, kind)
    return TensorHandle(np.full(1, np.iinfo(name).max, dtype=name), kind.scalar)


def _is_bfloat16(handle: Any) -> bool:
    return handle.dtype.scalar.name == "bf16"


def _values(handle: Any) -> np.ndarray:
    """The numbers of a handle: bfloat16 is kept as its bits in uint16."""
    if not _is_bfloat16(handle):
        return handle.data
    return (handle.data.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, ties to even, as bits."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16).reshape(np.shape(values))


def _rounded(values: np.ndarray) -> Any:
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    return TensorHandle(to_bfloat16(values), tl.bfloat16)


def _cast(builder: Any, original: Callable[..., Any], source: Any, target: Any) -> Any:
    """Conversions from and to bfloat16; Triton's own truncate, and take the bits where the width differs."""
    from triton.runtime.interpreter import TensorHandle

    scalar = target.scalar
    if _is_bfloat16(source) and scalar.name != "bf16":
        widened = TensorHandle(_values(source), triton_type("fp32"))
        return widened if scalar.name == "fp32" else original(builder, widened, target)
    if scalar.name == "bf16" and not _is_bfloat16(source):
        return _rounded(source.data.astype(np.float32))
    return original(builder, source, target)


def _convert(builder: Any, original: Callable[..., Any], source: Any, target: Any, rounding: Any) -> Any:
    """Float to float: by NumPy, which rounds to nearest even; the rest (float8, toward zero) is Triton's."""
    import triton._C.libtriton as libtriton

    standard = {"fp16", "bf16", "fp32", "fp64"}
    toward_zero = rounding is not None and rounding == libtriton.ir.ROUNDING_MODE.RTZ
    if toward_zero or not {source.dtype.scalar.name, target.scalar.name} <= standard:
        return original(builder, source, target, rounding)
    return builder.cast_impl(source, target)


def _binary(
    builder: Any, original: Callable[..., Any], left: Any, right: Any, operation: Callable[..., Any]
) -> Any:
    from triton.runtime.interpreter import TensorHandle

    if not _is_bfloat16(left):
        result = original(builder, left, right, operation)
        # A comparison is a bool; Triton's keeps the operands' dtype, which a broadcast would convert it to.
        return TensorHandle(result.data, triton_type("i1")) if result.data.dtype == np.bool_ else result
    result = operation(_values(left), _values(right))
    return TensorHandle(result, triton_type("i1")) if result.dtype == np.bool_ else _rounded(result)


def _unary(builder: Any, original: Callable[..., Any], value: Any, operation: Callable[..., Any]) -> Any:
    if not _is_bfloat16(value):
        return original(builder, value, operation)
    return _rounded(operation(_values(value)))


def _ternary(
    builder: Any, original: Callable[..., Any], first: Any, second: Any, third: Any, operation: Any
) -> Any:
    if operation is np.where or not _is_bfloat16(third):
        return original(builder, first, second, third, operation)
    return _rounded(operation(_values(first), _values(second), _values(third)))


def _fused_multiply_add(left: Any, right: Any, addend: Any) -> Any:
    """left · right + addend, rounded once."""
    import triton._C.libtriton as libtriton
    from triton.runtime.interpreter import TensorHandle

    operands = np.broadcast_arrays(_values(left), _values(right), _values(addend))
    kind = operands[2].dtype
    if kind == np.float64:
        result = getattr(libtriton.interpreter, "fma_fp64", fma64)(*operands)
    elif np.issubdtype(kind, np.floating):
        result = fma_narrow(*operands)
    else:
        result = operands[0] * operands[1] + operands[2]
    if _is_bfloat16(addend):
        return _rounded(float32_to_odd(result))
    return TensorHandle(result.astype(kind), addend.dtype.scalar)


def _dot(
    builder: Any,
    original: Callable[..., Any],
    left: Any,
    right: Any,
    accumulator: Any,
    precision: Any,
    imprecise: Any,
) -> Any:
    """`tl.dot`, its operands read as what they are and its sum kept in the accumulator's dtype."""
    import triton._C.libtriton as libtriton
    from triton.runtime.interpreter import TensorHandle

    names = {left.dtype.scalar.name, right.dtype.scalar.name}
    if not names <= {"fp16", "bf16", "fp32"}:
        return original(builder, left, right, accumulator, precision, imprecise)
    operands = [_values(operand).astype(np.float32) for operand in (left, right)]
    if names == {"fp32"} and precision == libtriton.ir.INPUT_PRECISION.TF32:
        operands = [_round_to_tf32(operand) for operand in operands]
    result = np.matmul(*operands) + _values(accumulator)
    if _is_bfloat16(accumulator):
        return _rounded(result)
    return TensorHandle(result.astype(accumulator.data.dtype), accumulator.dtype.scalar)


def _round_to_tf32(values: np.ndarray) -> np.ndarray:
    """float32 with the 10 fraction bits that TF32 keeps."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)
