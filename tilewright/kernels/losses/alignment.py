"""Losses of sequences whose alignment with their targets is unknown, as steps along the labels.

A path through the frames spells a target if what is left of it, repetitions merged and blanks dropped, is the
target. The probabilities of having read frames 0 … t - 1 are, for each label s of the target in turn,

    a_s[t+1] = p_s[t] · (a_s[t] + entering_s[t])        and ending in that label
    b_s[t+1] = p_blank[t] · (b_s[t] + a_s[t])           and ending in a blank after it
    entering_s[t] = b_{s-1}[t] + [label s ≠ label s-1] · a_{s-1}[t]

from a_0 = 0, b_0[0] = 1 (Graves et al., 2006). Neighbouring labels are coupled, but one label, given the one
before it, is a linear recurrence in time: a scan in the semiring of logarithms, whose + is logaddexp and
whose · is +.
"""

import tilewright as tw
from tilewright.errors import DTypeError
from tilewright.kernels.losses.reduction import reduced


def _before(factor, added):
    """h[t] along t, h[t+1] = factor[t] · (h[t] + added[t]) from h[0] = 0, all of them logarithms."""

    def step(before, now):
        return before[0] + now[0], tw.logaddexp(before[1] + now[0], now[1])

    return tw.scan(step, (factor, factor + added), "t", exclusive=True, initial=(0.0, -tw.inf))[1]


@tw.op
def ctc_emissions(
    log_probs: tw.Tile["f n c"], targets: tw.Tile["n s"], frames: tw.Tile["n"], length: tw.Tile["n"],
    *, blank: int = 0,
) -> tw.Tile["k t n"]:  # fmt: skip
    """log_probs[t, n, label k], one t more than there are frames; label 0 is the blank, others are targets.

    0 from t = frames[n] on and beyond label length[n], NaN for a label that is no class.
    """
    if not targets.dtype.is_integer:
        raise DTypeError(f"targets are class numbers, so integers, not {targets.dtype.name}")
    k, t = tw.axis("k", tw.size("s") + 1), tw.axis("t", tw.size("f") + 1)
    label = tw.where(k == 0, blank, tw.cast(targets, tw.int64).at(s=k - 1))
    read = tw.where((label >= 0) & (label < tw.size("c")), log_probs.at(f=t, c=label), tw.nan)
    return tw.where((t < frames) & (k <= length), read, 0)


@tw.op
def ctc_start(silent: tw.Tile["t n"], frames: tw.Tile["n"], length: tw.Tile["n"]):
    """(a_0, b_0, and of each empty target its probability, else 0), as logarithms."""
    blank = tw.cumsum(silent, "t", exclusive=True)
    return tw.where(tw.index("t") < 0, blank, -tw.inf), blank, _ending(blank, frames, length == 0, 0)


@tw.op
def ctc_label(
    label: tw.Tile["t n"],
    blank: tw.Tile["t n"],
    found: tw.Tile["n"],
    spoken: tw.Tile["t n"],
    silent: tw.Tile["t n"],
    name: tw.Tile["n"],
    name_before: tw.Tile["n"],
    frames: tw.Tile["n"],
    length: tw.Tile["n"],
    number: tw.Tile[""],
):
    """(a_s, b_s, `found` with the probability of each target of s labels) for s = `number` from s - 1.

    Between labels of the same `name` a blank stands.
    """
    entering = tw.logaddexp(blank, tw.where(name != name_before, label, -tw.inf))
    now = _before(spoken, entering)
    after = _before(silent, now)
    return now, after, _ending(tw.logaddexp(now, after), frames, length == number, found)


def _ending(read, frames, complete, found):
    """What stands at the end of all frames where the target is complete, else `found`."""
    return tw.where(complete, tw.sum(tw.where(tw.index("t") == frames, read, 0), "t"), found)


@tw.op
def ctc_total(
    found: tw.Tile["n"], length: tw.Tile["n"], *, reduction: str = "mean", zero_infinity: bool = False
):
    """-`found`; with `zero_infinity` 0 where it is infinite. The mean divides each by its length, if any."""
    loss = -found
    if zero_infinity:
        loss = tw.where(found == -tw.inf, 0, loss)
    if reduction == "mean":
        loss = loss / tw.cast(tw.maximum(length, 1), loss.dtype)
    return reduced(loss, reduction)
