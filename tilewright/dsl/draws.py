"""Random numbers inside ops: pure functions of a seed and a position.

    keep = tw.bernoulli(seed, 1 - p, "... d")

The seed is an int64 operand Tile[""], a number tw.Scalar[tw.int64] passed at run time, or an int.
The position is the linear index over the named axes, in the order in which they are named. Every call has a
stream of its own, numbered as the calls come when the op is traced, also those of ops that are inlined: two
draws with one seed are independent. `stream=n` says which; streams that are given by hand never meet
automatic ones. Nothing depends on the target, the layout, the threads, or on how work is cut into blocks;
to differentiation the numbers are constants, and a backward computes them again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.dsl import scalars
from tilewright.dsl.axes import ELLIPSIS
from tilewright.dsl.dtypes import DType, as_dtype, float32, int64
from tilewright.dsl.expression import Expr, cast, constant, lift
from tilewright.dsl.philox import WORD
from tilewright.dsl.program import Index, Size
from tilewright.dsl.scope import axis_names, mention, scope
from tilewright.errors import ArgumentError, AxisError, DTypeError, LanguageError

WORDS_OF_A_DRAW = 2
DRAWS_OF_A_BLOCK = len(scalars.philox_words) // WORDS_OF_A_DRAW


def rand(seed: Any, axes: Any = None, *, dtype: Any = float32, stream: Any = None) -> Expr:
    """Uniform in [0, 1): a multiple of 2⁻²⁴ in float32, 2⁻⁵³ in float64, 2⁻¹¹ in float16, 2⁻⁸ in bfloat16,
    2⁻⁴ in float8_e4m3fn, 2⁻³ in float8_e5m2.
    """
    wanted = floating(dtype, "rand")
    bits = wanted.significant_bits
    low, high = words(seed, axes, stream, "rand")
    if bits <= 32:
        whole = (low >> (32 - bits)) & (2**bits - 1)
    else:
        whole = (unsigned(high) << (bits - 32)) | (unsigned(low) >> (64 - bits))
    return cast(cast(whole, wanted.compute) * 2.0**-bits, wanted)


def randn(seed: Any, axes: Any = None, *, dtype: Any = float32, stream: Any = None) -> Expr:
    """Normal with mean 0 and variance 1: the quantile of 64 random bits in float64, rounded to `dtype`."""
    wanted = floating(dtype, "randn")
    return cast(scalars.normal_quantile(bits_of_64(words(seed, axes, stream, "randn"))), wanted)


def truncated_randn(
    seed: Any, low: float, high: float, axes: Any = None, *, dtype: Any = float32, stream: Any = None
) -> Expr:
    """Normal with mean 0 and variance 1, under the condition that it lies in low … high (Python numbers)."""
    wanted = floating(dtype, "truncated_randn")
    first, end = shares_between(low, high)
    drawn = scalars.normal_quantile(randint(seed, first, end, axes, stream=stream))
    return cast(scalars.minimum(scalars.maximum(drawn, low), high), wanted)


def shares_between(low: float, high: float) -> tuple[int, int]:
    """The int64 whose normal quantiles lie in low … high: the first, and the one behind the last."""
    first, end = _share_below(low), _share_below(high)
    if not first < end:
        raise ArgumentError(f"hardly anything of the normal distribution lies in {low} … {high}")
    return first, end


def _share_below(z: float) -> int:
    """2⁶⁴ (Φ(z) - ½), within the range of int64."""
    tail = int(0.5 * math.erfc(abs(z) / math.sqrt(2)) * 2.0**64)
    return tail - 2**63 if z < 0 else 2**63 - max(1, tail)


def bernoulli(seed: Any, p: Any, axes: Any = None, *, stream: Any = None) -> Expr:
    """True with probability p, a number or an expression, to a multiple of 2⁻³²; 0 and 1 are exact."""
    low, _ = words(seed, axes, stream, "bernoulli")
    if isinstance(p, (bool, int, float)):
        if not 0 <= p <= 1:
            raise ArgumentError(f"tw.bernoulli needs a probability between 0 and 1, got {p}")
        return unsigned(low) < round(p * 2**32)
    share = lift(p)
    if not share.dtype.is_float:
        raise DTypeError(f"tw.bernoulli needs a floating-point probability, got {share.dtype.name}")
    return unsigned(low) < cast(scalars.round_(cast(share, share.dtype.compute) * 2.0**32), int64)


def randint(seed: Any, low: Any, high: Any, axes: Any = None, *, stream: Any = None) -> Expr:
    """Whole numbers from low to high - 1, int64, all equally likely up to (high - low) / 2⁶⁴.

    low and high are ints or integer expressions with low < high; their difference may exceed int64.
    """
    low, high = lift(low, int64), lift(high, int64)
    for bound in (low, high):
        if not bound.dtype.is_integer:
            raise DTypeError(
                f"tw.randint needs integer bounds, got {bound.dtype.name}; write tw.cast(x, tw.int64)"
            )
    return low + _below(bits_of_64(words(seed, axes, stream, "randint")), high - low)


def _below(bits: Expr, count: Expr) -> Expr:
    """⌊bits · count / 2⁶⁴⌋ for 64-bit operands read as unsigned, from products of their halves."""
    count = cast(count, int64)
    bits_high, bits_low = _upper(bits), unsigned(bits)
    count_high, count_low = _upper(count), unsigned(count)
    middle = bits_high * count_low + _upper(bits_low * count_low)
    carry = unsigned(middle) + bits_low * count_high
    return bits_high * count_high + _upper(middle) + _upper(carry)


def _upper(value: Expr) -> Expr:
    return (value >> 32) & WORD


def unsigned(word: Expr) -> Expr:
    """The low 32 bits of an integer as an int64 that is not negative."""
    return cast(word, int64) & WORD


def bits_of_64(pair: tuple[Expr, Expr]) -> Expr:
    low, high = pair
    return (cast(high, int64) << 32) | unsigned(low)


# --- what a draw depends on -------------------------------------------------------------------------------


def words(seed: Any, axes: Any, stream: Any, what: str) -> tuple[Expr, Expr]:
    """The 64 random bits of a draw as two int32 words."""
    key = _seed(seed, what)
    place = position(axes, what)
    block, first = _stream(stream, what)
    low, high = scalars.philox_words[first : first + WORDS_OF_A_DRAW]
    return low(key, place, block), high(key, place, block)


def position(axes: Any, what: str) -> Expr:
    """The linear index over the named axes, the last one fastest; 0 if there is none."""
    if not isinstance(axes, str):
        raise AxisError(
            f"inside an op tw.{what} draws for every position along named axes, which stand last, as in "
            f"tw.rand(seed, '... d'); got {axes!r}"
        )
    names = _expanded(axis_names(axes), what)
    result: Expr | None = None
    for name in names:
        mention(name)
        here = Expr(Index(name))
        result = here if result is None else result * Expr(Size(name)) + here
    return constant(0, int64) if result is None else result


def _expanded(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The named axes, with those of the op's operands in place of `...`."""
    current = scope.get()
    batch = current.batch if current is not None else ()
    found = tuple(a for name in names for a in (batch if name == ELLIPSIS else (name,)))
    twice = next((a for a in found if found.count(a) > 1), None)
    if twice:
        raise AxisError(f"tw.{what} draws over {twice!r} twice; name each axis once")
    return found


def _seed(seed: Any, what: str) -> Expr:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer, Expr)):
        raise LanguageError(f"tw.{what} needs a seed: an int64 operand, or an int; got {seed!r}")
    if not isinstance(seed, Expr) and not -(2**63) <= int(seed) < 2**63:
        raise ArgumentError(f"the seed {seed} of tw.{what} does not fit int64")
    value = lift(seed, int64)
    if not value.dtype.is_integer:
        raise DTypeError(
            f"the seed of tw.{what} is an integer, got {value.dtype.name}; declare it as seed: "
            f'tw.Tile[""] and pass an int, or as a keyword seed: tw.Scalar[tw.int64]'
        )
    return cast(value, int64)


def _stream(stream: Any, what: str) -> tuple[Expr, int]:
    """The stream's number and the draw's first word in its blocks.

    Automatic streams count down from -1, `DRAWS_OF_A_BLOCK` draws to each.
    """
    if stream is None:
        current = scope.get()
        if current is None:
            raise LanguageError(f"tw.{what} was called outside of an op's body; give it stream=0")
        number, part = divmod(next(current.draws), DRAWS_OF_A_BLOCK)
        return constant(-1 - number, int64), part * WORDS_OF_A_DRAW
    if isinstance(stream, int) and not isinstance(stream, bool) and stream < 0:
        raise ArgumentError(f"stream={stream} of tw.{what}: streams are numbered from 0")
    value = lift(stream, int64)
    if not value.dtype.is_integer:
        raise DTypeError(f"stream of tw.{what} is an integer, got {value.dtype.name}")
    return cast(value, int64), 0


def floating(dtype: Any, what: str) -> DType:
    wanted = as_dtype(dtype)
    if not wanted.is_float:
        raise DTypeError(f"tw.{what} draws real numbers, not {wanted.name}; use tw.randint")
    return wanted
