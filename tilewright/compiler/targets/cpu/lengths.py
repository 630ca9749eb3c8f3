"""How long axes are, roughly: what a kernel is specialised by where it need not know the extent itself."""

from __future__ import annotations

ONE, TINY, SHORT, MEDIUM, LONG, WHOLE, ENDLESS = "1", "t", "s", "m", "l", "w", "e"
LEAST = {TINY: 2, SHORT: 5, MEDIUM: 8, LONG: 15}  # the fewest elements of each class of extents


def length_class(extent: int, lanes: int) -> str:
    """That of an axis of a contraction, along which vectors may have so many lanes."""
    if extent == 1:
        return ONE
    if extent % lanes == 0 and extent >= LEAST[LONG]:
        return WHOLE
    return next((name for name, least in reversed(LEAST.items()) if extent >= least), TINY)
