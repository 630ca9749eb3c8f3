"""Rows of windows that leave their operand together: the order in which rows are numbered.

    y[n, h, w, o] = Σ_rsc k[o, r, s, c] · x[n, h + r - 1, w + s - 1, c]        at w = 0, s = 0 is outside

Runs of taps of which all rows of a register block are outside are passed over (`finite`). The rows of a line
are outside one by one; those of many images at one place are, all of them, and have every tap that the border
takes passed over if the images come last: (h, w, n). Of an image of 14×14 that is one tap in eleven.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tilewright.compiler.nest import Contraction
from tilewright.dsl.axes import base
from tilewright.dsl.positions import everywhere
from tilewright.dsl.program import At

FEWEST = 8  # rows at one place, all of a register block's
WORTH = 1 / 44  # of the taps along a line, at least, that are outside: images then lie apart, row by row
COUNTED = 1 << 16  # positions of a line's taps, at most: where there are more, few are outside


def rows_together(contraction: Contraction, extents: Mapping[str, int]) -> dict[At, tuple[str, ...]]:
    """The axes of each side that windows do not slide along, where it is worth having them last: often enough
    all positions along them are outside at once.
    """
    found: dict[At, tuple[str, ...]] = {}
    for node, own in ((contraction.left, contraction.m), (contraction.right, contraction.n)):
        if not isinstance(node, At):
            continue
        still = tuple(axis for axis in own if not any(axis in p.axes for p in node.positions))
        line = next((a for a in reversed(own) if a not in still and extents[base(a)] > 1), None)
        together = math.prod(extents[base(axis)] for axis in still)
        if line and together >= FEWEST and _often_outside(node, line, extents):
            found[node] = still
    return found


def _often_outside(node: At, line: str, extents: Mapping[str, int]) -> bool:
    """Whether a good part of the taps along a line is outside."""
    for axis, position in zip(node.along, node.positions, strict=True):
        places = everywhere(position, extents, COUNTED) if line in position.axes else None
        if places is not None and np.mean((places < 0) | (places >= extents[base(axis)])) >= WORTH:
            return True
    return False
