"""What deriving gives: a Program with its backward."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dsl.program import Program


@dataclass(frozen=True)
class Derivative:
    """A Program with its backward.

    `saved` are the params of `backward` that are results of `forward` (of the original op, or residuals that
    were added). `cotangents` pairs each floating result with its param `d_<result>` of `backward`, and
    `gradients` each operand asked for with its result `d_<param>`; a name that is taken gets a number.
    """

    forward: Program
    backward: Program
    saved: tuple[str, ...]
    cotangents: tuple[tuple[str, str], ...]
    gradients: tuple[tuple[str, str], ...]
