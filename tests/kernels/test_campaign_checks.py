"""The checks of layouts, special values and given memory find what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import layouts, places, special
from tests.support.cases import Case
from tilewright import kernels
from tilewright.errors import OverlapError

CASE = Case(kernels.softmax, {"...": (3,), "d": 5})


def test_a_gradient_whose_strides_are_ignored_is_found(monkeypatch: pytest.MonkeyPatch):
    right = layouts.run

    def contiguous(program, arrays, target):
        """As if the first elements in memory were the operand."""
        wrong = {
            n: np.lib.stride_tricks.as_strided(a, a.shape, a[:1].copy().strides) if n == "d_y" else a
            for n, a in arrays.items()
        }
        return right(program, wrong, target)

    monkeypatch.setattr(layouts, "run", contiguous)
    layouts.check_gradient_layouts(CASE, "cpu", ())
    with pytest.raises(AssertionError, match="d_x of softmax in float32, d_y strided, in one Program on cpu"):
        layouts.check_gradient_layouts(CASE, "cpu", ("strided",))


def test_a_gradient_in_the_memory_of_what_came_in_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(np, "may_share_memory", lambda one, other: True)
    with pytest.raises(AssertionError, match=r"x.grad is the memory of d_y"):
        layouts.check_gradient_layouts(CASE, "cpu", ("cropped",))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (np.nan_to_num, r"softmax in float32 on cpu:\n\(nan,\) in x: y is wrong"),
        (lambda y: np.where(np.isnan(y), y, y + 1e-4), "in x: y is wrong"),
    ],
)
def test_a_wrong_number_beside_special_ones_is_found(monkeypatch: pytest.MonkeyPatch, spoil, message: str):
    right = special.run

    def spoilt(program, arrays, target):
        return tuple(spoil(y).astype(y.dtype) for y in right(program, arrays, target))

    monkeypatch.setattr(special, "run", spoilt)
    with pytest.raises(AssertionError, match=message):
        special.check_special_everywhere(CASE, "cpu")


def test_an_op_that_reads_what_it_has_written_is_found():
    def doubled(x, out=None):
        """x and the element before it, added up from the left."""
        out = np.empty_like(x) if out is None else out
        for n in range(len(x)):
            out[n] = x[n] + (x[n - 1] if n else 0)
        return out

    with pytest.raises(AssertionError, match=r"doubled: result 0 over x, 0 elements further"):
        places.check_places_of(doubled, {"x": np.arange(1.0, 9.0)}, {}, "doubled")


def test_memory_that_repeats_itself_must_be_refused():
    def careless(x, out=None):
        out = np.empty_like(x) if out is None else out
        np.copyto(out, x)
        return out

    def careful(x, out=None):
        if out is not None and 0 in out.strides:
            raise OverlapError("repeats itself")
        return careless(x, out)

    x = np.arange(6.0).reshape(2, 3)
    with pytest.raises(AssertionError, match="careless repeated rows: not refused"):
        places.check_places_of(careless, {"x": x}, {}, "careless")
    with pytest.raises(AssertionError, match="careful overlapping: not refused"):
        places.check_places_of(careful, {"x": x}, {}, "careful")
