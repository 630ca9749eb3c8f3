"""Which addresses a kernel may touch: the memory checker of interpreted kernels.

A load or store whose mask is true must address an element of one of the kernel's array arguments, and a
store one of a writable array. For a strided view the gaps between its elements are out of bounds too, which
is more than guard pages can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.errors import LaunchError


@dataclass(frozen=True)
class Region:
    """The memory of one array argument."""

    name: str
    start: int
    end: int
    """One past the last byte."""
    itemsize: int
    writable: bool
    element_starts: np.ndarray | None
    """For a view with gaps: of every byte, whether an element starts there."""

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Region:
        start, end = np.lib.array_utils.byte_bounds(array) if array.size else (0, 0)
        writable = array.flags.writeable
        if not array.size or array.size * array.itemsize == end - start:
            return cls(name, start, end, array.itemsize, writable, None)
        element_starts = np.zeros(end - start, dtype=bool)
        first = array.__array_interface__["data"][0] - start
        marks = np.ndarray(array.shape, bool, element_starts.data, first, array.strides)
        marks[...] = True
        return cls(name, start, end, array.itemsize, writable, element_starts)

    def contains(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """Of every address, whether `size` bytes from there on are elements of the array."""
        inside = (addresses >= self.start) & (addresses + size <= self.end)
        if size != self.itemsize:
            return inside
        offsets = np.where(inside, addresses - self.start, 0)
        if self.element_starts is not None:
            return inside & self.element_starts[offsets] if self.element_starts.size else inside
        return inside & (offsets % size == 0)


class MemoryGuard:
    """Checks every access of one launch against the arrays that were passed."""

    def __init__(self, kernel_name: str, arrays: Sequence[tuple[str, np.ndarray]]):
        self.kernel_name = kernel_name
        self.regions = [Region.of(name, array) for name, array in arrays]

    def check(
        self,
        access: str,
        addresses: np.ndarray,
        mask: np.ndarray,
        size: int,
        program: tuple[int, ...],
        *,
        writing: bool,
    ) -> None:
        """Raise `LaunchError` at the first access that is out of bounds; `access` names it in the message."""
        wanted = addresses[np.broadcast_to(mask, addresses.shape)].astype(np.int64)
        allowed = np.zeros(wanted.shape, dtype=bool)
        for region in self.regions:
            if region.writable or not writing:
                allowed |= region.contains(wanted, size)
        if allowed.all():
            return
        bad = int(wanted[~allowed][0])
        raise LaunchError(
            f"kernel {self.kernel_name!r}, program {program}: {access} of {size} bytes out of bounds: "
            f"{self._describe(bad, size, writing)} ({int((~allowed).sum())} of {wanted.size} lanes)"
        )

    def _describe(self, address: int, size: int, writing: bool) -> str:
        """Where a bad address lies, in terms of the nearest argument."""
        occupied = [region for region in self.regions if region.end > region.start]
        if not occupied:
            return "the kernel has no array that is not empty"
        nearest = min(occupied, key=lambda region: max(region.start - address, address - region.end + 1))
        if writing and not nearest.writable and nearest.contains(np.array([address]), size).all():
            return f"argument {nearest.name!r} is read-only"
        offset = address - nearest.start
        return (
            f"byte {offset} from the start of argument {nearest.name!r}, which has "
            f"{nearest.end - nearest.start} bytes in elements of {nearest.itemsize}"
        )
