"""Positions as numbers that a network can use."""

import math

import tilewright as tw


def _frequency(pair, pairs, base):
    """base^(-pair / pairs): a turn for each position at the first pair, ever slower ones behind it."""
    return tw.exp(pair * (-math.log(base) / pairs))


@tw.op
def rope(
    x: tw.Tile["... t d"], positions: tw.Tile["... t"] = None,
    *, base: float = 10000.0, interleaved: bool = False, rotary: int | None = None,
):  # fmt: skip
    """Pairs of features turned by the angle position · base^(-2j / d), j counting pairs (Su et al., 2021).

    Pair j is (x[j], x[j + d/2]), or `interleaved` (x[2j], x[2j + 1]). Positions are those along t unless
    given. `rotary` turns the first features alone, d of them; what is left over, as the last of an odd
    number, stays as it is.
    """
    feature = tw.index("d")
    whole = tw.size("d") if rotary is None else tw.minimum(tw.size("d"), rotary)
    half = tw.maximum(whole // 2, 1)
    position = tw.index("t") if positions is None else positions
    if interleaved:
        pair, first = feature // 2, feature % 2 == 0
        behind, before = x.at(d=feature + 1), x.at(d=feature - 1)
    else:
        pair, first = feature % half, feature < half
        behind, before = x.at(d=feature + half), x.at(d=feature - half)
    dtype = x.dtype.compute
    angle = tw.cast(position, dtype) * _frequency(tw.cast(pair, dtype), tw.cast(half, dtype), base)
    turned = x * tw.cos(angle) + tw.where(first, -behind, before) * tw.sin(angle)
    return tw.where(feature < whole // 2 * 2, turned, x)


@tw.op
def sinusoidal_positions(positions: tw.Tile["..."], *, width: int, base: float = 10000.0):
    """sin and cos of position · base^(-2j / width), at 2j and 2j + 1 along a new last axis.

    (Vaswani et al., 2017). Whole positions give float32.
    """
    feature = tw.axis("d", width)
    dtype = positions.dtype.compute if positions.dtype.is_float else tw.float32
    pair = tw.cast(feature // 2, dtype)
    angle = tw.cast(positions, dtype) * _frequency(pair, width / 2, base)
    return tw.where(feature % 2 == 0, tw.sin(angle), tw.cos(angle))


@tw.op
def alibi(scores: tw.Tile["... h i j"]):
    """scores - m[h] · |i - j|, m[h] = 2^(-8 (h + 1) / size(h)): attention with linear biases.

    (Press et al., 2022, for numbers of heads that are powers of 2.)
    """
    dtype = scores.dtype.compute
    slope = tw.exp2(tw.cast(tw.index("h") + 1, dtype) * (-8 / tw.cast(tw.size("h"), dtype)))
    return scores - slope * tw.cast(tw.abs(tw.index("i") - tw.index("j")), dtype)
