"""Scans along the last axis: what a reduction would give for everything up to each position.

`reverse` runs from the last position to the first. `exclusive` leaves a position itself out, so that the
first one has the number that changes nothing. Targets may combine neighbours first (Blelloch, 1990), so
rounding may differ from that of adding one by one.
"""

import tilewright as tw


@tw.op
def cumsum(x: tw.Tile["... d"], *, reverse: bool = False, exclusive: bool = False):
    """y[i] = Σ x[j] over j ≤ i, along d. Integers and bool sum in int64."""
    return tw.cumsum(x, "d", reverse=reverse, exclusive=exclusive)


@tw.op
def cumprod(x: tw.Tile["... d"], *, reverse: bool = False, exclusive: bool = False):
    """y[i] = Π x[j] over j ≤ i, along d. Integers and bool multiply in int64."""
    return tw.cumprod(x, "d", reverse=reverse, exclusive=exclusive)


@tw.op
def cummax(x: tw.Tile["... d"], *, reverse: bool = False, exclusive: bool = False):
    """y[i] = max x[j] over j ≤ i, along d; NaN from the first one on. The slope is the newest of equals'."""
    return tw.cummax(x, "d", reverse=reverse, exclusive=exclusive)


@tw.op
def cummin(x: tw.Tile["... d"], *, reverse: bool = False, exclusive: bool = False):
    """y[i] = min x[j] over j ≤ i, along d; NaN from the first one on. The slope is the newest of equals'."""
    return tw.cummin(x, "d", reverse=reverse, exclusive=exclusive)


@tw.op
def cummax_with_index(x: tw.Tile["... d"], *, reverse: bool = False):
    """(`cummax`, where it stands): the newest of equals, int64."""
    return tw.cummax(x, "d", reverse=reverse), tw.argcummax(x, "d", reverse=reverse)


@tw.op
def cummin_with_index(x: tw.Tile["... d"], *, reverse: bool = False):
    """(`cummin`, where it stands): the newest of equals, int64."""
    return tw.cummin(x, "d", reverse=reverse), tw.argcummin(x, "d", reverse=reverse)


@tw.op
def logcumsumexp(x: tw.Tile["... d"], *, reverse: bool = False, exclusive: bool = False):
    """y[i] = log Σ exp(x[j]) over j ≤ i, along d; no exponential overflows."""
    return tw.logcumsumexp(x, "d", reverse=reverse, exclusive=exclusive)


@tw.op
def linear_recurrence(
    a: tw.Tile["... t"], b: tw.Tile["... t"], initial: tw.Tile["..."] = None, *, reverse: bool = False
):
    """h[t] = a[t] · h[t-1] + b[t], along t, from h[-1] = initial (0 if there is none).

    Two steps are one: (a₁, b₁) then (a₂, b₂) is (a₁·a₂, b₁·a₂ + b₂), which is associative (Blelloch, 1990).
    """

    def step(before, now):
        return before[0] * now[0], before[1] * now[0] + now[1]

    start = None if initial is None else (1.0, initial)
    return tw.scan(step, (a, b), "t", reverse=reverse, initial=start)[1]


@tw.op
def differences(x: tw.Tile["... d"]) -> tw.Tile["... i"]:
    """y[i] = x[i+1] - x[i], along d: one position fewer."""
    i = tw.axis("i", tw.maximum(tw.size("d") - 1, 0))
    return x.at(d=i + 1) - x.at(d=i)
