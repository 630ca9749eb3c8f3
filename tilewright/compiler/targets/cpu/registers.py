"""The vector registers that a kernel has: how many, and the elements of each."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.cpu.spelling import value_type
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.dsl.program import Cast, Const, Map, Read

PLAIN = (Const, Read, Map, Cast)  # values of a lane that do not know its position
NOT_FOR_SUMS = 4  # registers of a register block that hold what is multiplied, at least
COMMON = 16  # sums of a register block that hide all latencies: more of them save loads alone


@dataclass(frozen=True)
class Registers:
    """count: of a target; lanes: of each, for the numbers that a kernel computes with."""

    count: int
    lanes: int

    @property
    def most(self) -> int:
        """The most sums that a register block has."""
        return self.count - NOT_FOR_SUMS

    def hold(self, rows: int, vectors: int) -> bool:
        """Whether there is room for the sums of a register block, its columns, and an element of a row."""
        return rows * vectors + (vectors if rows > 1 else 0) < self.count

    def rows_beside(self, vectors: int) -> int:
        """The most rows that a register block of so many vectors of columns has room for."""
        return (self.count - 1 - vectors) // vectors

    @property
    def sums(self) -> int:
        """The sums of a register block beside which columns and addresses wait."""
        return min(COMMON, self.most)


def registers_of(kernel: Kernel, target: CpuTarget) -> Registers:
    """Those that a kernel has."""
    return Registers(target.registers, lanes_of(kernel, target))


def lanes_of(kernel: Kernel, target: CpuTarget) -> int:
    """As many elements as a register holds of the widest float, or scanned value, that is computed with; of
    pointwise kernels without floats of the widest integer. No fewer bits than 32 where lanes are numbered.
    """
    nodes = kernel.nodes()
    counted = [n.dtype for n in nodes if n.dtype.is_float]
    counted += [value.dtype for scan in kernel.scans for value in scan.body]
    widest = max((value_type(d.compute).bits for d in counted), default=0)
    if kernel.kind == "pointwise" and not counted and all(isinstance(n, PLAIN) for n in nodes):
        return target.vector_bits // max(8, min(32, max(value_type(n.dtype).bits for n in nodes)))
    return target.vector_bits // max(32, widest)
