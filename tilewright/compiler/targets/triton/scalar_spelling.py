"""How each scalar function of the language is spelled in Triton: one row a function.

    spell("tanh", "f32", "x")            # "tanh_f32(x)", a helper of the prelude
    spell("exp", "f32", "x")             # "exp_f32(x)": within 2 ULP for every x
    spell("exp", "f32", "x", fast=True)  # "tl.exp(x)": two instructions, error growing with |x|
    prelude_for(body)                    # the helpers' sources that a kernel's text needs

Kinds of operands: "f32", "f64" (narrower floats are widened to f32 first), "int" (any width), "bool".
Everything here compiles for CUDA and HIP and runs in Triton's interpreter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tilewright.compiler.targets.triton.scalar_math import PRELUDE, prelude_for
from tilewright.dsl.philox import WORDS
from tilewright.errors import InternalError

__all__ = ["LIBDEVICE", "PRELUDE", "SPELLINGS", "Spelling", "cast", "literal", "prelude_for", "spell"]


@dataclass(frozen=True)
class Spelling:
    """One row: a text for each kind of operand, `{0}`, `{1}`, … standing for the operands.

    `fast` is a float32 text that trades accuracy for speed; it is right where the loss does not matter, as
    in an exponential whose inexact results are the negligible terms of a sum.
    """

    f32: str = ""
    f64: str = ""
    int: str = ""
    bool: str = ""
    fast: str = ""


def _same(text: str) -> Spelling:
    return Spelling(f32=text, f64=text)


def _helpers(name: str, operands: str = "{0}", **others: str) -> Spelling:
    """A helper with a version for each float."""
    return Spelling(f32=f"{name}_f32({operands})", f64=f"{name}_f64({operands})", **others)


def _number(text: str, int: str = "") -> Spelling:
    return Spelling(f32=text, f64=text, int=int or text)


def _every(text: str) -> Spelling:
    return Spelling(f32=text, f64=text, int=text, bool=text)


def _bits(text: str) -> Spelling:
    return Spelling(int=text, bool=text)


_NAN = "propagate_nan=tl.PropagateNan.ALL"

SPELLINGS: dict[str, Spelling] = {
    # arithmetic
    "add": _number("{0} + {1}"),
    "sub": _number("{0} - {1}"),
    "mul": _number("{0} * {1}"),
    "div": Spelling(f32="tl.div_rn({0}, {1})", f64="{0} / {1}", fast="{0} / {1}"),
    # `-x` is `0 - x` before Triton 3.8, which loses the sign of zero
    "neg": Spelling(f32="{0} * -1.0", f64="{0} * -1.0", int="-{0}"),
    "floordiv": Spelling(
        f32="tl.floor(tl.div_rn({0}, {1}))", f64="tl.floor({0} / {1})", int="floordiv_int({0}, {1})"
    ),
    "mod": _helpers("mod", "{0}, {1}", int="mod_int({0}, {1})"),
    "fmod": _helpers("fmod", "{0}, {1}"),
    "pow": _helpers("pow", "{0}, {1}"),
    "abs": _number("tl.abs({0})"),
    "sign": Spelling(f32="sign({0})", f64="sign({0})", int="sign_int({0})"),
    "minimum": _number(f"tl.minimum({{0}}, {{1}}, {_NAN})", int="tl.minimum({0}, {1})"),
    "maximum": _number(f"tl.maximum({{0}}, {{1}}, {_NAN})", int="tl.maximum({0}, {1})"),
    "fma": _same("tl.fma({0}, {1}, {2})"),
    # exponentials and powers
    "exp": Spelling(f32="exp_f32({0})", f64="tl.exp({0})", fast="tl.exp({0})"),
    "exp2": _same("tl.exp2({0})"),
    "expm1": _helpers("expm1"),
    "log": _same("tl.log({0})"),
    "log2": _same("tl.log2({0})"),
    "log1p": _same("log1p({0})"),
    "sqrt": Spelling(f32="tl.sqrt_rn({0})", f64="tl.sqrt({0})", fast="tl.sqrt({0})"),
    "rsqrt": Spelling(f32="tl.div_rn(1.0, tl.sqrt_rn({0}))", f64="1.0 / tl.sqrt({0})", fast="tl.rsqrt({0})"),
    # trigonometric and hyperbolic
    "sin": _same("tl.sin({0})"),
    "cos": _same("tl.cos({0})"),
    "tan": _helpers("tan"),
    "asin": _helpers("asin"),
    "acos": _helpers("acos"),
    "atan": _helpers("atan"),
    "atan2": _helpers("atan2", "{0}, {1}"),
    "sinh": _helpers("sinh"),
    "cosh": _helpers("cosh"),
    "tanh": _helpers("tanh"),
    "asinh": _helpers("asinh"),
    "acosh": _helpers("acosh"),
    "atanh": _helpers("atanh"),
    # special functions
    "erf": _same("tl.erf({0})"),
    "erfc": _helpers("erfc"),
    "lgamma": _helpers("lgamma"),
    "digamma": _helpers("digamma"),
    "sigmoid": _helpers("sigmoid", fast="tl.sigmoid({0})"),
    "softplus": _helpers("softplus"),
    # rounding
    "floor": _same("tl.floor({0})"),
    "ceil": _same("tl.ceil({0})"),
    "round": _helpers("round"),
    "trunc": _same("trunc({0})"),
    # parts of numbers, random bits
    "mantissa": _helpers("mantissa"),
    "exponent": _helpers("exponent"),
    **{name: Spelling(int=f"{name}({{0}}, {{1}}, {{2}})") for name in (f"philox{n}" for n in range(WORDS))},
    # predicates, logic, bits
    "isnan": _same("{0} != {0}"),
    "isinf": _same('tl.abs({0}) == float("inf")'),
    "isfinite": _same('tl.abs({0}) < float("inf")'),
    "eq": _every("{0} == {1}"),
    "ne": _every("{0} != {1}"),
    "lt": _every("{0} < {1}"),
    "le": _every("{0} <= {1}"),
    "gt": _every("{0} > {1}"),
    "ge": _every("{0} >= {1}"),
    "and": _bits("{0} & {1}"),
    "or": _bits("{0} | {1}"),
    "xor": _bits("{0} ^ {1}"),
    "not": _bits("~{0}"),
    "shl": Spelling(int="{0} << {1}"),
    "shr": Spelling(int="{0} >> {1}"),
    "mulhi": Spelling(int="tl.umulhi({0}, {1})"),
    "where": _every("tl.where({0}, {1}, {2})"),
    **dict.fromkeys(("stop_gradient", "recomputed", "kept"), _every("{0}")),
}
"""By the name of the row in the language's scalar table."""

_LIBDEVICE_NAMES = (
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cosh", "erf", "erfc", "exp", "expm1"),
    *("fmod", "lgamma", "log1p", "pow", "sinh", "tan", "tanh"),
)
LIBDEVICE: dict[str, str] = {name: f"libdevice.{name}" for name in _LIBDEVICE_NAMES}
"""Alternatives that only compile: the makers' own functions, imported by
`from triton.language.extra import libdevice`; Triton's interpreter has none of them."""

_ATOM = re.compile(r"-?[\w.]+|[\w.]+\([^()]*\)")


def spell(function: str, kind: str, *operands: str, fast: bool = False) -> str:
    """A Triton expression: `function` of operands that are texts of Triton expressions.

    Operands that are not a name, a literal or a call are put in parentheses; the result is not.
    """
    row = SPELLINGS.get(function, Spelling())
    text = (row.fast if fast and kind == "f32" else "") or getattr(row, kind, "")
    if not text:
        raise InternalError(
            f"the Triton target has no spelling of {function!r} for operands of kind {kind!r}"
        )
    return text.format(*map(_enclosed, operands))


def _enclosed(operand: str) -> str:
    return operand if _ATOM.fullmatch(operand) and not operand.startswith("-") else f"({operand})"


def literal(value: float | int | bool) -> str:
    """A number as Triton source: infinities and NaN are not Python literals.

    >>> literal(float("-inf"))
    '-float("inf")'
    """
    if isinstance(value, bool | int):
        return repr(value)
    if value != value:
        return 'float("nan")'
    if abs(value) == float("inf"):
        return 'float("inf")' if value > 0 else '-float("inf")'
    return repr(float(value))


TYPES = {
    "bool": "tl.int1",
    "int8": "tl.int8",
    "int16": "tl.int16",
    "int32": "tl.int32",
    "int64": "tl.int64",
    "uint8": "tl.uint8",
    "uint16": "tl.uint16",
    "uint32": "tl.uint32",
    "uint64": "tl.uint64",
    "float16": "tl.float16",
    "bfloat16": "tl.bfloat16",
    "float32": "tl.float32",
    "float64": "tl.float64",
}
"""Triton's dtype for each dtype of the language."""


def cast(operand: str, source: str, target: str) -> str:
    """A conversion between dtypes of the language, by name. A number is a true bool when it is not zero.

    Floats narrow to nearest, ties to even (float64 to bfloat16 by way of float32). A float beyond the range
    of the integer that it becomes, or NaN, gives what the device gives.
    """
    if source == target:
        return operand
    if target == "bool":
        return f"{_enclosed(operand)} != 0"
    return f"{_enclosed(operand)}.to({TYPES[target]})"
