"""Order along the last axis: values together with the positions that they stand at.

A value is read at its position, so its gradient goes back to that one alone. Equal values keep their order,
and NaN counts as larger than everything: it is last, or first when descending.
"""

import tilewright as tw


@tw.op
def max_with_index(x: tw.Tile["... d"]):
    """(max x, where it stands), along d: the first of equals, the first NaN if there is one."""
    position = tw.argmax(x, "d")
    return x.at(d=position), position


@tw.op
def min_with_index(x: tw.Tile["... d"]):
    """(min x, where it stands), along d: the first of equals, the first NaN if there is one."""
    position = tw.argmin(x, "d")
    return x.at(d=position), position


@tw.op
def sort(x: tw.Tile["... d"], *, descending: bool = False):
    """(x in order, where each value stood), along d."""
    order = tw.argsort(x, "d", descending=descending)
    return x.at(d=order), order


@tw.op
def topk(x: tw.Tile["... d"], *, k: int, largest: bool = True):
    """(the k largest values, best first, where they stood), along d; the smallest if not `largest`."""
    return tw.topk(x, k, "d", largest=largest)


@tw.op
def median(x: tw.Tile["... d"]):
    """(the middle value, where it stands), along d: the lower of two; NaN if there is one."""
    order, last = tw.argsort(x, "d"), tw.size("d") - 1
    missing = tw.any(x != x, "d")
    position = order.at(d=tw.where(missing, last, last // 2))
    return x.at(d=position), position
