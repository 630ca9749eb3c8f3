"""`op.bench` and the probes of the machine's limits: numbers that make sense, in a table."""

from __future__ import annotations

import pytest

import tilewright as tw
from tilewright.op import bench as benching
from tilewright.op import limits
from tilewright.op.bench import duration


@tw.op
def doubled(x: tw.Tile["... d"]):
    return x + x


@tw.op
def position(x: tw.Tile["... d"]):
    return tw.argmax(x, "d")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPY_BYTES", 2**20)
    monkeypatch.setattr(limits, "PEAK_ITERATIONS", 1000)
    limits._copy_arrays.cache_clear()


def test_the_report_has_forward_backward_and_reference():
    report = benching.bench(doubled, ((64, 256),), {}, budget=0.01)
    assert [t.what for t in report.timings] == ["forward", "forward + backward", "NumPy, float64 reference"]
    forward = report.timings[0]
    assert forward.moved == 2 * 4 * 64 * 256
    assert forward.operations == 64 * 256
    assert forward.seconds > 0
    assert forward.fraction is not None
    assert "forward + backward" in str(report)
    assert "copy" in str(report)


def test_an_op_without_a_gradient_is_timed_forward():
    report = benching.bench(position, ((8, 64),), {}, budget=0.01)
    assert [t.what for t in report.timings] == ["forward", "NumPy, float64 reference"]


def test_limits_are_positive_and_bound_from_both_sides():
    found = limits.measure(1, rounds=1)
    assert found.bandwidth > 0
    assert found.operations is None or found.operations > 0
    known = limits.Limits(1e9, 1e8)
    assert known.seconds(operations=1e9, moved=1) == pytest.approx(1)
    assert known.seconds(operations=1, moved=1e8) == pytest.approx(1)
    assert limits.Limits(None, 1e8).seconds(1e12, 1e8) == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 µs"), (7e-9, "7 ns")]
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
