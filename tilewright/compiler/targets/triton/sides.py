"""The sides of a contraction as `tl.dot` takes them: widened to float32, in 16 bits, or in 8."""

from __future__ import annotations

from tilewright.compiler.nest import Contraction, Kernel
from tilewright.compiler.targets.triton.toolchain import Target
from tilewright.dsl.dtypes import FLOAT8, DType, float16
from tilewright.dsl.program import Cast, Const, Map, Node, Read, masked
from tilewright.runtime.precision import FLOAT32

LEAST_BYTES = 32  # summed positions that a product of floats of 8 bits has at least
FIRST_OF_BYTES = 89  # the compute capability that has such products
FLOAT32_SUMS = range(100, 120)  # those that add them up in float32


def uses_dot(kernel: Kernel) -> bool:
    """Whether the hardware's tile product has the contraction's types."""
    assert kernel.contraction is not None
    return kernel.contraction.root.dtype.short == "f32"


def narrow(node: Node) -> Node | None:
    """The value of 8 or 16 bits that a side of a product widens to float32, None where it is no such side."""
    if isinstance(node, Cast) and node.dtype.short == "f32":
        return node.arg if node.arg.dtype.is_float and node.arg.dtype.bits < 32 else None
    if isinstance(node, Map) and node.function == "where":
        condition, value, other = node.operands
        half = narrow(value)
        if half is not None and isinstance(other, Const) and other.value == 0:
            return masked(condition, half)
    return None


def common_type(contraction: Contraction) -> DType | None:
    """The type of 16 bits that holds both sides: their own, or the other side's for one of 8 bits."""
    halves = [half for side in (contraction.left, contraction.right) if (half := narrow(side))]
    if len(halves) < 2:
        return None
    wide = {half.dtype for half in halves} - {*FLOAT8} or {float16}
    return wide.pop() if len(wide) == 1 else None


def are_bytes(kernel: Kernel) -> bool:
    """Whether both sides of a contraction are operands of 8 bits as they lie in memory."""
    contraction = kernel.contraction
    assert contraction is not None
    sides = [narrow(side) for side in (contraction.left, contraction.right)]
    return uses_dot(kernel) and all(isinstance(side, Read) and side.dtype in FLOAT8 for side in sides)


def multiplies_bytes(target: Target, precision: str) -> bool:
    """Whether a device multiplies floats of 8 bits as exactly as is wanted: their sums are float32 from
    compute capability 10 on, before that their lower bits are lost.
    """
    if target.backend != "cuda":
        return False
    capability = int(target.architecture)
    return capability in FLOAT32_SUMS or (precision != FLOAT32 and capability >= FIRST_OF_BYTES)
