"""Scalar functions that Triton lacks, as readable `@triton.jit` source for generated kernels to carry along.

`PRELUDE` maps the name of each helper to its text. `prelude_for(text)` gives the texts that a kernel's source
uses, with what they use in turn, in an order in which each is defined before it is called.
"""

from __future__ import annotations

import functools
import re

from tilewright.compiler.targets.triton.scalar_math import (  # noqa: F401
    exponential,
    hyperbolic,
    number_parts,
    power,
    random_words,
    rounding,
    special,
    trigonometric,
)
from tilewright.compiler.targets.triton.scalar_math.helpers import PRELUDE


@functools.cache
def _used_by(name: str) -> tuple[str, ...]:
    return tuple(word for word in _names_in(PRELUDE[name]) if word != name)


def _names_in(text: str) -> list[str]:
    """Helpers that a text calls, in order of first appearance."""
    calls = re.findall(r"(?<![\w.])(\w+)\(", text)
    return [name for name in dict.fromkeys(calls) if name in PRELUDE]


def prelude_for(text: str) -> str:
    """The source of every helper that `text` calls, directly or not; empty when it calls none."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in ordered:
            return
        for needed in _used_by(name):
            visit(needed)
        ordered[name] = None

    for name in _names_in(text):
        visit(name)
    return "\n\n".join(PRELUDE[name] for name in ordered)


__all__ = ["PRELUDE", "prelude_for"]
