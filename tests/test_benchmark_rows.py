"""The rows of the benchmarks can be set up: their ops, options and axes are those that there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import measure
from benchmarks.chart import AHEAD, BEHIND, MARK, chart
from benchmarks.families import BENCHES
from benchmarks.measure import COMPILED, EAGER, Measured, Peer
from benchmarks.work import Bench

QUICK = [bench for bench in BENCHES if bench.quick]


@pytest.mark.parametrize("bench", QUICK, ids=str)
def test_a_quick_row_can_be_set_up(bench: Bench):
    work = bench.make()
    assert work.moved > 0 and work.tolerance > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("bench", BENCHES, ids=str)
def test_a_row_is_right(bench: Bench):
    work = bench.make()
    assert work.error() <= work.tolerance


def test_the_chart_has_a_bar_for_every_row_that_was_timed():
    def row(name: str, **peers: Peer) -> Measured:
        return Measured(name, "rows", 1, 0.0, True, seconds=1.0, peers=peers)

    faster = row("a < b", **{EAGER: Peer(2.0, 2.0), COMPILED: Peer(1.0, 1.0)})
    slower, untimed = row("far slower", **{EAGER: Peer(0.1, 0.1)}), row("untimed")
    picture = ElementTree.fromstring(chart([faster, slower, untimed], "title"))
    bars = {b.get("fill"): float(b.get("width", "0")) for b in picture.findall("{*}rect") if b.get("x")}
    assert bars == {AHEAD: 60.0, BEHIND: 120.0}, "one of seven doublings is 60 pixels; 0.1 lies at the end"
    assert sum(line.get("stroke") == MARK for line in picture.findall("{*}line")) == 1


def test_a_call_that_is_not_timed_comes_before_each_sample_and_each_is_first_in_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    """Else whoever follows the probes, which empty the caches, would pay for it."""
    events: list[str] = []

    def sample(run: Callable[[], Any], repeats: int) -> float:
        events.append("sample of")
        run()
        return 1.0

    monkeypatch.setattr(measure, "_sample", sample)
    monkeypatch.setattr(measure, "MOST_ROUNDS", 2)
    monkeypatch.setattr(measure.limits, "peak", lambda threads: None)
    monkeypatch.setattr(measure.limits, "copy", lambda threads: events.append("probe") or 1.0)
    contenders = {name: lambda name=name: events.append(name) for name in "ab"}
    samples, _, _ = measure.interleaved(contenders, 1, 0.0)
    assert {name: len(found) for name, found in samples.items()} == {"a": 2, "b": 2}
    a, b = (f"{name} / sample of / {name}" for name in "ab")
    assert " / ".join(events).endswith(f"{a} / {b} / probe / {b} / {a} / probe")
