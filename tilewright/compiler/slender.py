"""Contractions in which an axis has one position: products with a vector, products of vectors.

    Σ_k a(m, k) · b(k, n)     one n (or one m):  a row kernel, parallel in m, its row is k
                              one k:             pointwise, a(m, 0) · b(0, n)

A register block would be filled to a fraction. The axes of one position are walked by no loop; buffers keep
them. Which form a call takes is decided by its extents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tilewright.compiler.contraction import multiply
from tilewright.compiler.nest import ACCUMULATOR, Contraction, Kernel
from tilewright.compiler.phases import write_phases
from tilewright.dsl.axes import base
from tilewright.dsl.program import Read, Reduce
from tilewright.dsl.program import replace as replace_nodes


def reshaped(kernel: Kernel, extents: Mapping[str, int]) -> Kernel:
    """The kernel in the form that suits the extents of a call."""
    contraction = kernel.contraction
    if contraction is None or not is_slender(contraction, extents):
        return kernel
    return as_row(kernel, [a for a in (*kernel.parallel, *contraction.k) if extents[base(a)] > 1])


def is_slender(contraction: Contraction, extents: Mapping[str, int]) -> bool:
    """Whether a side of a contraction, or its sum, has one position."""
    sides = (contraction.m, contraction.n, contraction.k)
    return any(math.prod(extents[base(axis)] for axis in side) == 1 for side in sides)


def as_row(kernel: Kernel, walked: Sequence[str]) -> Kernel:
    """A contraction as the row kernel, or the pointwise one, that walks these axes: others have one place."""
    contraction = kernel.contraction
    assert contraction is not None
    summed = tuple(a for a in contraction.k if a in walked)
    product = multiply([contraction.left, contraction.right])
    value = Reduce("sum", summed, product) if summed else product
    root = contraction.root
    table = {Read(ACCUMULATOR, root.axes, root.dtype): value}
    outputs = [replace(output, node=replace_nodes(output.node, table)) for output in kernel.outputs]
    return replace(
        kernel,
        parallel=tuple(a for a in kernel.parallel if a in walked),
        row=summed,
        outputs=tuple(outputs),
        phases=write_phases(outputs, summed),
        contraction=None,
        single=tuple(a for a in (*kernel.parallel, *contraction.k) if a not in walked),
    )
