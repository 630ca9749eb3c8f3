"""The CTC loss against torch's, against sums over all paths, and against finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import tilewright as tw
from tilewright import nn
from tilewright.errors import UserError
from tilewright.nn import functional as F

FRAMES, SAMPLES, CLASSES, LABELS = 12, 5, 6, 4
INPUT_LENGTHS = np.array([12, 9, 3, 12, 7])
TARGET_LENGTHS = np.array([4, 3, 4, 0, 2])


def logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((FRAMES, SAMPLES, CLASSES))


def labels(blank: int) -> np.ndarray:
    """Targets without the blank; one has a label twice in a row, one the same label throughout."""
    found = np.random.default_rng(1).integers(0, CLASSES - 1, (SAMPLES, LABELS))
    found[found >= blank] += 1
    found[0, 1] = found[0, 0]
    found[2, :] = found[2, 0]
    return found


def ours(x: np.ndarray, *arguments, weight=None, **options) -> tuple[np.ndarray, np.ndarray]:
    """The loss of log softmax(x), and its gradient by x."""
    given = tw.tensor(x, requires_grad=True)
    loss = F.ctc_loss(F.log_softmax(given, -1), *arguments, **options)
    loss.backward(tw.tensor(np.ones(loss.shape) if weight is None else weight))
    assert given.grad is not None
    return loss.detach().numpy(), given.grad.numpy()


def torchs(
    x: np.ndarray, targets, frames, length, *, weight=None, **options
) -> tuple[np.ndarray, np.ndarray]:
    given = torch.tensor(x, requires_grad=True)
    parts = (torch.as_tensor(part) for part in (targets, frames, length))
    loss = torch.nn.functional.ctc_loss(given.log_softmax(-1), *parts, **options)
    loss.backward(torch.ones_like(loss) if weight is None else torch.tensor(weight))
    assert given.grad is not None
    return loss.detach().numpy(), given.grad.numpy()


def agree(first, second) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_loss_is_torchs():
    weight = np.random.default_rng(2).standard_normal(SAMPLES)
    options = {"reduction": "none", "zero_infinity": True, "weight": weight}
    arguments = (logits(), labels(0), INPUT_LENGTHS, TARGET_LENGTHS)
    found = ours(*arguments, **options)
    agree(found, torchs(*arguments, **options))
    assert found[0][2] == 0, "the third target needs more frames than there are"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("blank", "reduction", "zero_infinity"),
    list(itertools.product((0, 3), ("none", "mean", "sum"), (False, True))),
)
def test_every_option_is_torchs(blank, reduction, zero_infinity):
    options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
    frames = INPUT_LENGTHS if zero_infinity else np.maximum(INPUT_LENGTHS, 7)
    targets = labels(blank)
    expected = torchs(logits(), targets, frames, TARGET_LENGTHS, **options)
    agree(ours(logits(), targets, frames, TARGET_LENGTHS, **options), expected)
    one_after_the_other = np.concatenate([t[:n] for t, n in zip(targets, TARGET_LENGTHS, strict=True)])
    lengths = (tuple(map(int, frames)), tw.tensor(TARGET_LENGTHS))
    agree(ours(logits(), tw.tensor(one_after_the_other), *lengths, **options), expected)
    alone = (logits()[:, 0], targets[0], np.array(12), np.array(4))
    agree(ours(*alone, **options), torchs(*alone, **options))
    module = nn.CTCLoss(blank, reduction, zero_infinity)
    loss = module(F.log_softmax(tw.tensor(logits()), -1), targets, *lengths)
    np.testing.assert_allclose(loss.numpy(), expected[0], rtol=1e-12)


def spelled(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


@pytest.mark.exhaustive
def test_the_loss_is_a_sum_over_all_paths():
    x = np.log(np.random.default_rng(3).dirichlet(np.ones(3), (5, 1)))
    for target in ((), (1,), (1, 1), (1, 2), (2, 1, 2), (1, 1, 1), (1, 1, 1, 1)):
        paths = [p for p in itertools.product(range(3), repeat=5) if spelled(p, 0) == target]
        total = sum(math.exp(sum(x[t, 0, c] for t, c in enumerate(p))) for p in paths)
        expected = -math.log(total) if total else math.inf
        padded = np.array([[*target, *(0,) * (4 - len(target))]])
        found = F.ctc_loss(tw.tensor(x), padded, (5,), (len(target),), reduction="sum").item()
        assert found == pytest.approx(expected, rel=1e-12), target


def with_gaps() -> np.ndarray:
    """Log probabilities of which a frame has one class only; beyond the second sample's frames stands NaN."""
    values = np.log(np.random.default_rng(4).dirichlet(np.ones(CLASSES), (9, 3)))
    values[2, 0], values[2, 0, 1] = -np.inf, 0
    values[7:, 1] = np.nan
    return values


GAPS = (np.array([[1, 1, 2], [3, -1, 99], [4, 3, 4]]), (9, 7, 9), (3, 1, 3))


@pytest.mark.exhaustive
def test_the_gradient_is_that_of_finite_differences():
    values = with_gaps()
    given = tw.tensor(values, requires_grad=True)
    F.ctc_loss(given, *GAPS, reduction="sum").backward()
    assert given.grad is not None
    found = given.grad.numpy()
    assert np.all(np.isfinite(found))
    step = 1e-6
    for place in zip(*np.nonzero(np.isfinite(values)), strict=True):
        above, below = values.copy(), values.copy()
        above[place] += step
        below[place] -= step
        losses = [F.ctc_loss(tw.tensor(v), *GAPS, reduction="sum").item() for v in (above, below)]
        assert found[place] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-7), place


@pytest.mark.exhaustive
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_a_target_that_no_path_spells_has_no_gradient(zero_infinity):
    given = tw.tensor(with_gaps(), requires_grad=True)
    targets, _, lengths = GAPS
    loss = F.ctc_loss(given, targets, (3, 7, 9), lengths, reduction="none", zero_infinity=zero_infinity)
    assert loss[0].item() == (0 if zero_infinity else np.inf)
    loss.sum().backward()
    assert given.grad is not None
    assert not given.grad.numpy()[:, 0].any() and np.all(np.isfinite(given.grad.numpy()))


@pytest.mark.exhaustive
def test_the_gradient_of_the_gradient():
    direction = np.random.default_rng(5).standard_normal((FRAMES, SAMPLES, CLASSES))

    def gradient(x, **options):
        loss = F.ctc_loss(F.log_softmax(x, -1), labels(0), INPUT_LENGTHS, TARGET_LENGTHS, zero_infinity=True)
        return tw.grad(loss, x, **options)[0]

    x = tw.tensor(logits(), requires_grad=True)
    along = (gradient(x, create_graph=True) * tw.tensor(direction)).sum()
    found = tw.grad(along, x)[0].numpy()
    moved = [tw.tensor(logits() + s * direction, requires_grad=True) for s in (1e-6, -1e-6)]
    above, below = (gradient(m).numpy() for m in moved)
    np.testing.assert_allclose(found, (above - below) / 2e-6, atol=1e-7)


@pytest.mark.exhaustive
def test_nothing_to_read_and_nothing_to_spell():
    none = {"reduction": "none"}
    empty = np.zeros((2, 0), np.int64)
    assert F.ctc_loss(tw.zeros(0, 2, 3), empty, (0, 0), (0, 0), **none).tolist() == [0, 0]
    found = F.ctc_loss(tw.zeros(4, 2, 3), np.ones((2, 2), np.int64), (0, 1), (1, 0), **none)
    assert found.tolist() == [np.inf, 0]
    alone = (np.zeros((0, 2), np.int64), (), ())
    assert F.ctc_loss(tw.zeros(4, 0, 3), *alone, reduction="sum").item() == 0
    assert np.isnan(F.ctc_loss(tw.zeros(4, 0, 3), *alone).item())


@pytest.mark.exhaustive
def test_a_label_that_is_no_class_is_nan_and_half_precision_is_computed_in_float32():
    assert np.isnan(F.ctc_loss(tw.zeros(4, 1, 3), np.array([[7]]), (4,), (1,)).item())
    given = tw.tensor(logits().astype(np.float16), requires_grad=True)
    loss = F.ctc_loss(F.log_softmax(given, -1), labels(0), INPUT_LENGTHS, TARGET_LENGTHS, zero_infinity=True)
    loss.backward()
    expected, _ = ours(logits(), labels(0), INPUT_LENGTHS, TARGET_LENGTHS, zero_infinity=True)
    assert loss.dtype == tw.float16 and given.grad is not None and given.grad.dtype == tw.float16
    assert loss.item() == pytest.approx(float(expected), rel=5e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_lengths": (13,) * 5},
            "input_lengths [13, 13, 13, 13, 13] count frames, of which there are 12",
        ),
        ({"input_lengths": (3, 4)}, "2 input_lengths for 5 samples"),
        ({"target_lengths": (5,) * 5}, "targets of shape (5, 4) for 5 samples with up to 5 labels"),
        ({"target_lengths": (1.0,) * 5}, "target_lengths are whole numbers, not float64"),
        ({"targets": np.zeros(7, np.int64)}, "a vector of all 13 labels one after the other; got shape (7,)"),
        ({"targets": np.zeros((5, 4))}, "targets are class numbers, so integers, not float64"),
        ({"blank": 6}, "the blank 6 is none of the 6 classes"),
        (
            {"log_probs": tw.zeros(3)},
            "log_probs are [frame sample class] or [frame class], not of shape (3,)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_refused(change, message):
    given = {
        "log_probs": tw.tensor(logits()), "targets": labels(0), "input_lengths": INPUT_LENGTHS,
        "target_lengths": TARGET_LENGTHS,
    }  # fmt: skip
    with pytest.raises(UserError) as caught:
        F.ctc_loss(**{**given, **change})
    assert message in str(caught.value)
