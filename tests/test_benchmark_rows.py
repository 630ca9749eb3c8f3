"""The rows of the benchmarks can be set up: their ops, options and axes are those that there are."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

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
