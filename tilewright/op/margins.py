"""Results on a device with margins around them: what a kernel writes beside its result shows there.

│ margin │ result │ margin │      all bytes are 255 before, which is NaN in floating-point numbers
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.runtime.devices import Device

MARGIN = 4096  # bytes, a multiple of what addresses are aligned to
POISON = 255


@dataclass(frozen=True)
class Poisoned:
    """An array on a device, `inside` of a longer one, `whole`."""

    inside: Any
    whole: Any

    @property
    def is_whole(self) -> bool:
        """Whether the margins are as they were."""
        found = self.whole.to_numpy()
        return bool(
            (found[:MARGIN] == POISON).all() and (found[MARGIN + self.inside.nbytes :] == POISON).all()
        )


def poisoned(shape: Sequence[int], dtype: np.dtype, target: str) -> Poisoned:
    """A C-contiguous array on a device such as "cuda:1"."""
    from tilewright.runtime.cuda import arrays, cards

    extents = tuple(shape)
    size = math.prod(extents) * dtype.itemsize
    whole = arrays.empty((size + 2 * MARGIN,), np.uint8, ordinal=cards.ordinal_of(Device(target)))
    whole.fill_bytes(POISON)
    inside = whole[MARGIN : MARGIN + size]
    return Poisoned(
        inside.laid_out(extents, arrays.contiguous_strides(extents, dtype.itemsize), dtype), whole
    )
