"""Named axes and the annotations that declare them.

`Tile["... m k"]` names the axes of an operand. `...` stands for any number of leading batch axes; when an op
meets operands of a known rank it is expanded to the names `_0`, `_1`, … counted from the right, so that two
operands' batch axes align as NumPy aligns them. An axis `d'` (a prime) is a private copy of `d`: it has the
same extent and is used where a rule needs a second position along the same axis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tilewright.dsl.dtypes import DType, as_dtype, float32, float64, int32, int64
from tilewright.errors import AxisError, DTypeError

ELLIPSIS = "..."
PAIR = "re_im"  # of complex numbers: real tiles with one axis more
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class TileSpec:
    """The axes that an annotation declares; `batched` when it starts with `...`."""

    axes: tuple[str, ...]
    batched: bool

    def __str__(self) -> str:
        return " ".join((ELLIPSIS,) * self.batched + self.axes)

    def expand(self, batch_rank: int) -> tuple[str, ...]:
        """All axis names of an operand with `batch_rank` leading batch axes."""
        return batch_axes(batch_rank) + self.axes


@dataclass(frozen=True)
class ScalarSpec:
    """The dtype of a number that is passed at run time; None: that of the op's floating-point operands."""

    dtype: DType | None = None


if TYPE_CHECKING:

    class Tile(Any):
        """To a type checker a tile is anything: an array outside of the op, an expression inside."""

        def __class_getitem__(cls, text: str) -> Any: ...

    Scalar: TypeAlias = Any
else:

    class Tile:
        """Annotation of an operand: `x: tw.Tile["... d"]`. `Tile[""]` is a scalar (a 0-d operand)."""

        def __class_getitem__(cls, text: Any) -> TileSpec:
            return parse_spec(text)

    class Scalar:
        """Annotation of a keyword-only number that is passed at run time instead of being compiled in.

        `tw.Scalar` has the dtype in which the op's floating-point operands are computed,
        `tw.Scalar[tw.int64]` that dtype.
        """

        def __class_getitem__(cls, dtype: Any) -> ScalarSpec:
            wanted = as_dtype(dtype)
            if wanted not in (float64, float32, int64, int32):
                raise DTypeError(
                    f"a number passed at run time is float64, float32, int64 or int32, not {wanted.name}"
                )
            return ScalarSpec(wanted)


def batch_axes(rank: int) -> tuple[str, ...]:
    return tuple(f"_{position}" for position in reversed(range(rank)))


def is_batch_axis(axis: str) -> bool:
    return axis.startswith("_")


def split_names(text: str) -> tuple[str, ...]:
    """The axis names in `"m k"`, each checked to be a name or `...`."""
    names = tuple(text.replace(",", " ").split())
    if PAIR in names:
        raise AxisError(f"{PAIR!r} is the axis of the two halves of complex numbers; give yours another name")
    for name in names:
        if name != ELLIPSIS and not _NAME.match(name):
            raise AxisError(
                f'{name!r} in {text!r} is not an axis name; names are letters and digits, as in "m k"'
            )
    return names


def parse_spec(text: Any) -> TileSpec:
    if not isinstance(text, str):
        raise AxisError(f'Tile[...] takes the axes as one string, as in Tile["... m k"]; got {text!r}')
    names = split_names(text)
    if ELLIPSIS in names[1:]:
        raise AxisError(f"'...' comes first in a tile's axes; got Tile[{text!r}]")
    batched = names[:1] == (ELLIPSIS,)
    named = names[1:] if batched else names
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise AxisError(
            f"axis {repeated[0]!r} stands twice in Tile[{text!r}]; give the second one its own name and "
            f"compare positions, as in tw.where(tw.index('i') == tw.index('j'), x, 0)"
        )
    return TileSpec(named, batched)


def base(axis: str) -> str:
    """The axis whose extent this one shares: `d` for `d''`."""
    return axis.rstrip("'")


def fresh(axis: str, taken: Any) -> str:
    """A copy of `axis` whose name is not in `taken`."""
    name = axis
    while name in taken:
        name += "'"
    return name


def union(*groups: tuple[str, ...]) -> tuple[str, ...]:
    """All axes of several groups, each once, in order of first appearance."""
    return tuple(dict.fromkeys(axis for group in groups for axis in group))
