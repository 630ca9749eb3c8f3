"""The loss of connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright import kernels
from tilewright.dsl.dtypes import float64
from tilewright.errors import ArgumentError, DTypeError, ShapeError
from tilewright.tensor.creation import beside
from tilewright.tensor.tensor import Tensor


def ctc_loss(
    log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """-log of the probability of all paths of frames that spell a target (Graves et al., 2006).

    `log_probs` are [frame sample class], or [frame class] of one sample; `targets` are [sample label], padded
    by anything, or one after the other in a vector. Paths may repeat labels and put blanks between. A target
    that needs more frames has an infinite loss, 0 with `zero_infinity`, and no gradient either way.
    "mean" divides each loss by its target's length. A label that is no class gives NaN.

    The gradient is that of this function of `log_probs`. torch's is another where they do not come from
    `log_softmax`, for which it is meant.
    """
    values = _values(log_probs)
    frames, length = _lengths(input_lengths, values, "input"), _lengths(target_lengths, values, "target")
    if values.shape[0] < max(frames, default=0) or min((*frames, *length), default=0) < 0:
        raise ArgumentError(
            f"ctc_loss: input_lengths {list(frames)} count frames, of which there are {values.shape[0]}, and "
            f"target_lengths {list(length)} count labels"
        )
    if not 0 <= blank < values.shape[2]:
        raise ArgumentError(f"ctc_loss: the blank {blank} is none of the {values.shape[2]} classes")
    labels = _padded(beside(targets, values), length).to(values.device)
    counts, ends = beside(np.array(frames), values), beside(np.array(length), values)
    found = _paths(values, labels, counts, ends, blank)
    loss = kernels.ctc_total(found, ends, reduction=reduction, zero_infinity=zero_infinity)
    loss = loss.to(log_probs.dtype)
    return loss if log_probs.ndim == 3 or not loss.ndim else loss.squeeze(0)


def _paths(values: Tensor, labels: Tensor, frames: Tensor, length: Tensor, blank: int) -> Tensor:
    """The log probability of all paths, label by label."""
    silent, *spoken = kernels.ctc_emissions(values, labels, frames, length, blank=blank).unbind()
    names = labels.unbind(1)
    label, after, found = kernels.ctc_start(silent, frames, length)
    for place, emitted in enumerate(spoken):
        label, after, found = kernels.ctc_label(
            label, after, found, emitted, silent, names[place], names[max(place - 1, 0)], frames, length,
            np.array(place + 1),
        )  # fmt: skip
    return found


def _values(log_probs: Tensor) -> Tensor:
    """[frame sample class], in float32 at least."""
    if log_probs.ndim not in (2, 3):
        raise ShapeError(
            f"ctc_loss: log_probs are [frame sample class] or [frame class], not of shape {log_probs.shape}"
        )
    if not log_probs.dtype.is_float:
        raise DTypeError(f"ctc_loss: log_probs are floating, not {log_probs.dtype.name}")
    values = log_probs if log_probs.ndim == 3 else log_probs.unsqueeze(1)
    return values if values.dtype == float64 else values.float()


def _lengths(given: Any, values: Tensor, what: str) -> tuple[int, ...]:
    array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    if array.size and array.dtype.kind not in "iu":
        raise DTypeError(f"ctc_loss: {what}_lengths are whole numbers, not {array.dtype.name}")
    found = tuple(int(length) for length in array.reshape(-1))
    if len(found) != values.shape[1]:
        raise ShapeError(
            f"ctc_loss: {len(found)} {what}_lengths for {values.shape[1]} samples; there is one for each"
        )
    return found


def _padded(targets: Tensor, length: tuple[int, ...]) -> Tensor:
    """Targets as [sample label], as many labels wide as the longest has."""
    if targets.dtype.is_float or targets.dtype.is_bool:
        raise DTypeError(f"ctc_loss: targets are class numbers, so integers, not {targets.dtype.name}")
    width = max(length, default=0)
    if targets.ndim == 2:
        if targets.shape[0] != len(length) or targets.shape[1] < width:
            raise ShapeError(
                f"ctc_loss: targets of shape {targets.shape} for {len(length)} samples with up to {width} "
                f"labels"
            )
        return targets[:, :width]
    if targets.ndim != 1 or targets.shape[0] != sum(length):
        raise ShapeError(
            f"ctc_loss: targets are [sample label], or a vector of all {sum(length)} labels one after the "
            f"other; got shape {targets.shape}"
        )
    begins = np.cumsum((0, *length[:-1]))[: len(length), None]
    places = np.minimum(begins + np.arange(width), max(targets.shape[0] - 1, 0))
    return targets[places]
