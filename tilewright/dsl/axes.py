"""Named axes and the annotations that declare them.

`Tile["... m k"]` names the axes of an operand. `...` stands for any number of leading batch axes; when an op
meets operands of a known rank it is expanded to the names `_0`, `_1`, … counted from the right, so that two
operands' batch axes align as NumPy aligns them. `(g c)` is one dimension that runs along two axes, the last
one fastest. An axis `d'` (a prime) is a private copy of `d`: it has the same extent and is used where a rule
needs a second position along the same axis.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tilewright.dsl.dtypes import DType, as_dtype, float32, float64, int32, int64
from tilewright.errors import AxisError, DTypeError

ELLIPSIS = "..."
PAIR = "re_im"  # of complex numbers: real tiles with one axis more
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_DIMENSION = re.compile(r"\(([^()]*)\)|([^\s,()]+)")  # a group of axes, or one


@dataclass(frozen=True)
class TileSpec:
    """The axes that an annotation declares; `batched` when it starts with `...`.

    `dimensions` has the axes that each dimension runs along: one, unless the annotation groups them.
    """

    axes: tuple[str, ...]
    batched: bool
    dimensions: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.dimensions:
            object.__setattr__(self, "dimensions", tuple((axis,) for axis in self.axes))

    def __str__(self) -> str:
        return " ".join((ELLIPSIS,) * self.batched + tuple(map(grouped, self.dimensions)))

    @property
    def rank(self) -> int:
        """How many dimensions the named axes are."""
        return len(self.dimensions)

    @property
    def factors(self) -> frozenset[str]:
        """The axes that share a dimension with others."""
        return frozenset(axis for axes in self.dimensions if len(axes) != 1 for axis in axes)

    def with_last(self, axis: str) -> TileSpec:
        """The same with one more axis."""
        return TileSpec((*self.axes, axis), self.batched, (*self.dimensions, (axis,)))

    def without(self, dropped: Container[str]) -> TileSpec:
        """The same dimensions without some of their axes."""
        kept = tuple(tuple(a for a in axes if a not in dropped) for axes in self.dimensions)
        return TileSpec(tuple(a for axes in kept for a in axes), self.batched, kept)

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
    dimensions = split_dimensions(text)
    names = tuple(name for axes in dimensions for name in axes)
    if ELLIPSIS in names[1:] or (ELLIPSIS in names and len(dimensions[0]) > 1):
        raise AxisError(f"'...' comes first in a tile's axes; got Tile[{text!r}]")
    batched = names[:1] == (ELLIPSIS,)
    named = names[1:] if batched else names
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise AxisError(
            f"axis {repeated[0]!r} stands twice in Tile[{text!r}]; give the second one its own name and "
            f"compare positions, as in tw.where(tw.index('i') == tw.index('j'), x, 0)"
        )
    return TileSpec(named, batched, dimensions[batched:])


def split_dimensions(text: str) -> tuple[tuple[str, ...], ...]:
    """The axes of each dimension in `"n (g c)"`: (n), (g c)."""
    if re.search(r"[()]", _DIMENSION.sub(" ", text)) or re.search(r"\(\s*\)", text):
        raise AxisError(f'the parentheses in {text!r} do not group axes; write them as in "... (g c) w"')
    found = []
    for group, name in _DIMENSION.findall(text):
        found.append(split_names(group or name))
    return tuple(found)


def grouped(axes: tuple[str, ...]) -> str:
    """The axes of one dimension as an annotation has them."""
    return axes[0] if len(axes) == 1 else f"({' '.join(axes)})"


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
