"""The derivatives of a Program at a call's shapes: derived once, for all processes.

What was derived is kept in the build cache as text, by the text of the Program and by everything that the
derivative generator depends on. A second process derives nothing, nor imports what deriving takes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping

import numpy as np

from tilewright.autograd.derivative import Derivative
from tilewright.compiler.version import derivative_version
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.dsl.text import from_text, to_text
from tilewright.runtime.cache import Sections, shared_cache


def at_call(program: Program, arrays: Mapping[str, np.ndarray]) -> Program:
    """The Program that a call with these operands differentiates and runs: no value in it has an empty axis.

    A sum over nothing is 0 whatever is summed, so its gradient is 0; that of the general Program could be
    0 / 0.
    """
    shapes = {param.name: arrays[param.name].shape for param in program.tiles}
    return without_empty_axes(program, bind_extents(program, shapes))


def vjp(program: Program, wrt: tuple[str, ...] | None = None) -> Derivative:
    """`autograd.derive.vjp`, remembered."""
    return _vjp(program, wrt or _differentiable(program))


def jvp(program: Program, wrt: tuple[str, ...] | None = None) -> Program:
    """`autograd.derive.jvp`, remembered."""
    return _jvp(program, wrt or _differentiable(program))


def _differentiable(program: Program) -> tuple[str, ...]:
    return tuple(p.name for p in program.tiles if p.dtype.is_float)


@functools.lru_cache(maxsize=2048)
def _vjp(program: Program, wrt: tuple[str, ...]) -> Derivative:
    def build() -> Sections:
        from tilewright.autograd import derive

        return _as_text(derive.vjp(program, wrt or None))

    return _from_text(shared_cache().get_or_build(_material("vjp", program, wrt), build))


@functools.lru_cache(maxsize=2048)
def _jvp(program: Program, wrt: tuple[str, ...]) -> Program:
    def build() -> Sections:
        from tilewright.autograd import derive

        return {"program": to_text(derive.jvp(program, wrt or None)).encode()}

    return from_text(shared_cache().get_or_build(_material("jvp", program, wrt), build)["program"].decode())


def _material(kind: str, program: Program, wrt: tuple[str, ...]) -> dict[str, str]:
    return {
        "derivative": kind,
        "program": to_text(program),
        "wrt": json.dumps(wrt),
        "code": derivative_version(),
    }


def _as_text(derivative: Derivative) -> Sections:
    names = {
        "saved": derivative.saved,
        "cotangents": derivative.cotangents,
        "gradients": derivative.gradients,
    }
    return {
        "forward": to_text(derivative.forward).encode(),
        "backward": to_text(derivative.backward).encode(),
        "names": json.dumps(names).encode(),
    }


def _from_text(sections: Sections) -> Derivative:
    names = json.loads(sections["names"])
    return Derivative(
        from_text(sections["forward"].decode()),
        from_text(sections["backward"].decode()),
        tuple(names["saved"]),
        tuple((result, cotangent) for result, cotangent in names["cotangents"]),
        tuple((operand, gradient) for operand, gradient in names["gradients"]),
    )
