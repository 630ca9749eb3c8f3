"""The op object: what `@tw.op` makes of a function, and the questions it answers."""

from tilewright.op.op import Op
from tilewright.op.traced import op

__all__ = ["Op", "op"]
