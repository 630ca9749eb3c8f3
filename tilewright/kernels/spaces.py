"""One definition for images of one, two and three axes.

    conv1d, conv2d, conv3d = in_every_space(conv)

A function is written once, its axes named by what they are: `{over}` are those of the image (`h w`), `{out}`
those of the result (`oh ow`) and `{taps}` those of a window (`r s`). Its first argument is the space.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tilewright as tw
from tilewright.kernels.windows import Sliding, Steps, sliding


@dataclass(frozen=True)
class Space:
    """The names of the axes of an image, of what is made of it, and of a window."""

    over: str
    out: str
    taps: str

    @property
    def rank(self) -> int:
        return len(self.over.split())

    def sliding(
        self, stride: Steps, padding: Any, dilation: Steps, ceil: bool = False
    ) -> tuple[Sliding, ...]:
        return sliding(self.over, self.out, self.taps, stride, padding, dilation, ceil)


LINE = Space("w", "ow", "s")
PLANE = Space("h w", "oh ow", "r s")
VOLUME = Space("d h w", "od oh ow", "q r s")


def in_every_space(function: Callable[..., Any]) -> tuple[tw.Op, tw.Op, tw.Op]:
    """The op that a function of a space is along one axis, along two and along three."""
    one, two, three = (_op_in(space, function) for space in (LINE, PLANE, VOLUME))
    return one, two, three


def _op_in(space: Space, function: Callable[..., Any]) -> tw.Op:
    @functools.wraps(function)
    def placed(**arguments: Any) -> Any:
        return function(space, **arguments)

    def annotation(text: Any) -> Any:
        names = {"{over}": space.over, "{out}": space.out, "{taps}": space.taps}
        for template, axes in names.items():
            text = text.replace(template, axes) if isinstance(text, str) else text
        return eval(text, function.__globals__) if isinstance(text, str) else text

    signature = inspect.signature(function)
    _, *parameters = signature.parameters.values()
    placed.__name__ = placed.__qualname__ = f"{function.__name__}{space.rank}d"
    placed.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=annotation(p.annotation)) for p in parameters],
        return_annotation=annotation(signature.return_annotation),
    )
    return tw.op(placed)
