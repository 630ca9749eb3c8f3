"""Reads and sums at positions that are data.

What is read outside of an operand is NaN, so that a wrong index shows (0 where the operand holds no floats);
what is added there is lost. Negative positions do not count from the end: they are outside.
"""

from typing import Any

import tilewright as tw
from tilewright.errors import ArgumentError


def _outside(x):
    return tw.nan if x.dtype.is_float else 0


@tw.op
def embedding(
    table: tw.Tile["row d"], ids: tw.Tile["..."], padding: tw.Tile["d"] = None,
    *, padding_idx: int | None = None,
) -> tw.Tile["... d"]:  # fmt: skip
    """table[ids], and `padding` (0 unless given) where ids == padding_idx, so that row gets no gradient."""
    rows = table.at(row=ids, fill=_outside(table))
    if padding_idx is None:
        return rows
    return tw.where(ids == padding_idx, 0 if padding is None else padding, rows)


@tw.op
def shortened(x: tw.Tile["... d"], *, max_norm: float, norm: float = 2.0):
    """x · max_norm / ‖x‖ₚ where ‖x‖ₚ > max_norm, along d, p = `norm`; else x. 1e-7 is added to that norm."""
    length = tw.sum(tw.abs(x) ** norm, "d") ** (1 / norm)
    return tw.where(length > max_norm, x * (max_norm / (length + 1e-7)), x)


@tw.op
def embedding_bag(
    table: tw.Tile["row d"], ids: tw.Tile["... n"], weight: tw.Tile["... n"] = None,
    *, mode: str = "mean", padding_idx: int | None = None,
) -> tw.Tile["... d"]:  # fmt: skip
    """The sum, mean or max along n of weight · table[ids]; ids equal to padding_idx count for nothing.

    A bag without elements gives 0. Weights are for mode "sum"; ties of a maximum share its gradient.
    """
    rows = _elements(table, ids, weight, mode)
    counts = ids == ids if padding_idx is None else ids != padding_idx
    if mode == "max":
        largest = tw.max(tw.where(counts, rows, -tw.inf), "n")
        return tw.where(tw.any(counts, "n"), largest, 0)
    total = tw.sum(tw.where(counts, rows, 0), "n")
    return total if mode == "sum" else total / _at_least_one(tw.sum(counts, "n"), total.dtype)


@tw.op
def embedding_bag_ragged(
    table: tw.Tile["row d"], ids: tw.Tile["n"], offsets: tw.Tile["b"], weight: tw.Tile["n"] = None,
    *, mode: str = "mean", padding_idx: int | None = None,
) -> tw.Tile["b d"]:  # fmt: skip
    """`embedding_bag` of bags that lie one after the other, bag b from offsets[b] on.

    Offsets begin with 0 and do not fall. A maximum looks at every id for every bag.
    """
    rows = _elements(table, ids, weight, mode)
    bag = tw.sum(offsets <= tw.index("n"), "b") - 1
    counts = ids == ids if padding_idx is None else ids != padding_idx
    if mode == "max":
        inside = counts & (bag == tw.index("b"))
        largest = tw.max(tw.where(inside, rows, -tw.inf), "n")
        return tw.where(tw.any(inside, "n"), largest, 0)
    total: Any = tw.scatter_add(tw.where(counts, rows, 0), {"b": bag}, tw.size("b"))
    if mode == "sum":
        return total
    return total / _at_least_one(
        tw.scatter_add(tw.cast(counts, tw.int64), {"b": bag}, tw.size("b")), total.dtype
    )


def _elements(table, ids, weight, mode):
    """weight · table[ids]; NaN takes the place of the product, so that it is no factor in a gradient."""
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError(f'mode is "sum", "mean" or "max", not {mode!r}')
    if weight is not None and mode != "sum":
        raise ArgumentError(f'the elements of a bag have weights with mode "sum" alone, not with {mode!r}')
    rows = table.at(row=ids) if weight is None else table.at(row=ids) * weight
    return tw.where((ids >= 0) & (ids < tw.size("row")), rows, tw.nan)


def _at_least_one(count, dtype):
    return tw.cast(tw.maximum(count, 1), dtype)


@tw.op
def one_hot(ids: tw.Tile["..."], *, classes: int):
    """1 where c = ids, else 0, for c = 0 … classes - 1 along a new last axis; int64."""
    return tw.cast(ids == tw.axis("c", classes), tw.int64)


@tw.op
def index_select(x: tw.Tile["row d"], ids: tw.Tile["n"]) -> tw.Tile["n d"]:
    """x[ids[n], d]."""
    return x.at(row=ids, fill=_outside(x))


@tw.op
def index_add(x: tw.Tile["row d"], ids: tw.Tile["n"], source: tw.Tile["n d"], *, alpha: tw.Scalar = 1.0):
    """x[row, d] + alpha · Σ source[n, d] over all n with ids[n] = row."""
    return x + alpha * tw.scatter_add(source, {"row": ids}, tw.size("row"))


@tw.op
def take_along(x: tw.Tile["... d"], ids: tw.Tile["... k"]) -> tw.Tile["... k"]:
    """x[…, ids[…, k]]; batch axes broadcast."""
    return x.at(d=ids, fill=_outside(x))


@tw.op
def add_along(x: tw.Tile["... d"], ids: tw.Tile["... k"], source: tw.Tile["... k"]) -> tw.Tile["... d"]:
    """x[…, d] + Σ source[…, k] over all k with ids[…, k] = d."""
    return x + tw.scatter_add(source, {"d": ids}, tw.size("d"), over="k")


@tw.op
def masked_fill(x: tw.Tile["..."], mask: tw.Tile["..."], *, value: tw.Scalar):
    """`value` where the mask is true, else x."""
    return tw.where(mask, value, x)
