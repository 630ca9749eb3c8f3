"""The frame: how a kernel is told what to work on.

A kernel is `void kernel(int64 *frame)`. The frame's slots are, in this order:

    threads, items, workspace address, workspace bytes a thread, five sizes of blocks (contractions),
    a bit for each piece of the items that a thread has taken (0 at first),
    whether the workspace holds what is packed once already (contractions; `slice_loop`),
    the extent of each axis of the kernel,
    for each tile read and each buffer written: address, then the stride of each dimension in bytes,
    each scalar: the bits of its float64, or its int64

Work items are independent pieces of the grid; threads share them in contiguous pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tilewright.compiler.nest import Kernel

THREADS, ITEMS, WORKSPACE, WORKSPACE_BYTES, BLOCK_M, BLOCK_N, BLOCK_K, CHUNK_M, CHUNK_N, TAKEN, PACKED = (
    range(11)
)
SIZES = BLOCK_M  # the slot of the first of them
HEADER = 11
WORDS_COPIED = 8  # at once: a frame's template is whole pieces of so many


@dataclass(frozen=True)
class Frame:
    """Which slot holds what, for one kernel."""

    kernel: Kernel

    @cached_property
    def axes(self) -> tuple[str, ...]:
        return self.kernel.axes()

    @cached_property
    def operands(self) -> tuple[tuple[str, int], ...]:
        """(name, rank) of every tile read and buffer written, in frame order."""
        reads = [(p.name, len(p.axes)) for p in self.kernel.tiles]
        writes = [(o.buffer.name, len(o.buffer.axes)) for o in self.kernel.outputs]
        return (*reads, *writes)

    @cached_property
    def extent_slot(self) -> dict[str, int]:
        return {axis: HEADER + position for position, axis in enumerate(self.axes)}

    @cached_property
    def operand_slot(self) -> dict[tuple[str, bool], int]:
        """The address slot of (name, written?); the strides follow it."""
        slot = HEADER + len(self.axes)
        table: dict[tuple[str, bool], int] = {}
        for position, (name, rank) in enumerate(self.operands):
            table[name, position >= len(self.kernel.tiles)] = slot
            slot += 1 + rank
        return table

    @cached_property
    def scalar_slot(self) -> dict[str, int]:
        first = HEADER + len(self.axes) + sum(1 + rank for _, rank in self.operands)
        return {p.name: first + position for position, p in enumerate(self.kernel.scalars)}

    @cached_property
    def size(self) -> int:
        return HEADER + len(self.axes) + sum(1 + rank for _, rank in self.operands) + len(self.kernel.scalars)

    @cached_property
    def padded_size(self) -> int:
        """Words of a template: whole pieces of those copied at once."""
        return -(-self.size // WORDS_COPIED) * WORDS_COPIED
