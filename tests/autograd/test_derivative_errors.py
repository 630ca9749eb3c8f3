"""What cannot be differentiated says so: the op, what, and what to do."""

from __future__ import annotations

import pytest
from derivative_cases import Case

from tilewright.autograd.derive import jvp, vjp
from tilewright.dsl import language as tw
from tilewright.dsl.axes import Tile
from tilewright.dsl.dtypes import int64
from tilewright.errors import DerivativeError


def lookup(x: Tile["m d"], t: Tile["m"]):
    return tw.sum(tw.where(tw.index("d") == t, x, 0), "d")


def position(x: Tile["m d"]):
    return tw.argmax(x, "d")


def count(t: Tile["m"]):
    return t + 1


LABELS = {"t": int64}

CASES = [
    (
        Case(lookup, dtypes=LABELS),
        ("t",),
        r"op 'lookup' cannot be differentiated by 't', which is int64.*leave it out",
    ),
    (Case(lookup, dtypes=LABELS), ("u",), r"op 'lookup' has no operand 'u'.*x: float64, t: int64"),
    (Case(position), None, r"op 'position' has no floating-point result.*y: int64"),
    (Case(count, dtypes=LABELS), None, r"op 'count' has no floating-point operand.*t: int64"),
]


@pytest.mark.parametrize("derive", [vjp, jvp])
@pytest.mark.parametrize(("case", "wrt", "message"), CASES)
def test_message(derive, case: Case, wrt: tuple[str, ...] | None, message: str):
    with pytest.raises(DerivativeError, match=message):
        derive(case.program(), wrt)
