"""The GPU table without a GPU: its rows are right, its clock and its sums do what they say."""

from __future__ import annotations

import json
import re

import pytest
import torch
from typer.testing import CliRunner

import tilewright as tw
from benchmarks import report as cpu_report
from benchmarks.gpu import measure as gpu_measure
from benchmarks.gpu import report, run
from benchmarks.gpu.measure import COPY, PEAK, HostClock, Probes, measure, summary
from benchmarks.gpu.rows import TABLE
from benchmarks.gpu.work import HOST, Operation, Row, Work, error, forward
from benchmarks.measure import COMPILED, EAGER, OURS, Measured
from tests.support.fake_cuda import FakeCuda, installed
from tilewright import kernels as K
from tilewright.op.machines import DeviceClock

KINDS = {
    re.split(r"\d", row.name)[0] + row.name.rpartition(", ")[2] * ("back" in row.name): row for row in TABLE
}


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, marks=pytest.mark.exhaustive) if "attention" in r.name else r for r in KINDS.values()],
    ids=str,
)
def test_a_row_is_right_and_counts_its_bytes(row: Row):
    work = row.make("cpu", True)
    assert work.error() <= work.tolerance
    assert work.moved > 0 or row.clock == HOST
    assert (work.operations > 0) == (row.family in ("products", "attention"))


def test_the_table_has_what_it_is_held_to():
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    assert all(row.aim for row in TABLE)
    assert sum(row.compiles for row in TABLE) <= 10, "torch.compile takes half a minute a row"


def test_a_wrong_result_is_seen():
    right = torch.tensor([1.0, -2.0, float("inf")], dtype=torch.float64)
    assert error(right.float(), right) == 0
    assert error(torch.tensor([1.0, -2.5, float("inf")]), right) == 0.25
    assert error(torch.tensor([1.0, -2.0, 5.0]), right) == float("inf")
    assert error(torch.tensor([1.0, float("nan"), float("inf")]), right) == float("inf")
    assert error(torch.tensor([[1.0, -2.0, float("inf")]]), right) == float("inf")


# --- clocks -----------------------------------------------------------------------------------------------


class Ticking(FakeCuda):
    """Events that lie apart as told, in milliseconds."""

    def cuEventElapsedTime(self, earlier, later):
        return 0, (3.0, 1.0, 2.0)[self.calls.count("cuEventElapsedTime") - 1]


def test_the_device_clock_flushes_before_each_call_and_takes_the_median():
    with installed(Ticking()) as fake:
        x = tw.ones(8, device="cuda")
        x + 1.0
        clock = DeviceClock()
        assert clock._cache.nbytes >= 2 * fake.attributes["L2_CACHE_SIZE"]
        before = len(fake.calls)
        assert clock.sample(lambda: x + 1.0, 3) == 2e-3
        asked = [c for c in fake.calls[before:] if c != "cuCtxSetCurrent"]
        each = ["cuMemsetD8Async", "cuEventRecord", "cuLaunchKernel", "cuStreamWriteValue32", "cuEventRecord"]
        assert asked[: 3 * len(each)] == each * 3
        assert set(asked[3 * len(each) :]) == {"cuEventSynchronize", "cuEventElapsedTime"}


def test_the_host_clock_counts_calls():
    calls = []
    with installed(FakeCuda()):
        assert HostClock().sample(lambda: calls.append(1), 3) > 0
    assert len(calls) == gpu_measure.HOST_CALLS


# --- measuring --------------------------------------------------------------------------------------------


class Scripted:
    """A clock that knows how long each call takes."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.order = []

    def sample(self, run, calls):
        self.order.append(run)
        return self.seconds(run)


LIMITS = Probes(copy=lambda: None, copied=3000, product=lambda: None, operations=1e6)
SMALL = forward(
    "softmax", "rows", Operation(K.softmax, lambda x: x.softmax(-1), {}, {"x": (2, 5)}), aim="all of it"
)


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(gpu_measure, "_give_back", lambda: None)


def test_contenders_take_turns_beside_the_probes(no_card):
    clock = Scripted(lambda run: 1e-3 if run is LIMITS.copy else 2e-3 if run is LIMITS.product else 4e-3)
    row = measure(SMALL, clock, LIMITS, 0.0, device="cpu", small=True)
    assert row.right and row.seconds == 4e-3 and row.aim == "all of it"
    assert (row.copy, row.peak) == (3000 / 1e-3, 1e6 / 2e-3)
    moved = 2 * 2 * 5 * 2  # read and written, two bytes each
    assert row.gigabytes == pytest.approx(moved / 4e-3 / 1e9)
    assert row.fraction == pytest.approx(moved / 3e6 / 4e-3)
    assert row.peers[EAGER].ratio == 1.0
    assert row.peers[COMPILED].missing == "–"
    rounds = clock.order[4:]
    assert rounds[:4] == rounds[4:8] and len(rounds) == 4 * gpu_measure.FEWEST_ROUNDS
    assert LIMITS.copy in rounds[:4] and LIMITS.product in rounds[:4]


def test_a_wrong_kernel_has_no_time(no_card):
    wrong = forward("wrong", "rows", Operation(lambda x: x, lambda x: x.softmax(-1), {}, {"x": (2, 5)}))
    clock = Scripted(lambda run: 1.0)
    row = measure(wrong, clock, LIMITS, 0.0, device="cpu", small=True)
    assert not row.right and row.seconds is None and not clock.order
    assert "WRONG" in report.cells(row)[1]


def test_a_row_that_fails_is_a_row(no_card):
    def broken(device, small):
        raise RuntimeError("no memory\nand more")

    row = measure(Row("broken", "rows", broken, "x"), Scripted(lambda run: 1.0), LIMITS, 0.0)
    assert report.cells(row)[:2] == ("broken", "FAILED: RuntimeError: no memory")


def test_ratios_and_limits_of_a_product():
    row = Row("product", "products", lambda device, small: None, "cuBLAS")  # type: ignore[arg-type]
    work = Work(None, None, None, None, None, 300, 4e5, 1.0)  # type: ignore[arg-type]
    samples = {OURS: [2.0, 2.0, 4.0], EAGER: [1.0, 3.0, 6.0], COPY: [1.0] * 3, PEAK: [1.0] * 3}
    found = summary(row, work, 0.0, samples, "too late", LIMITS)
    assert found.seconds == 2.0
    assert found.peers[EAGER].ratio == 1.5
    assert found.fraction == pytest.approx(0.4 / 2), "the product's time, not the copy's"
    assert report.cells(found)[-3:] == ("1.50 (0.50–1.50)", "n/a: too late", "cuBLAS")


def test_rows_that_the_time_does_not_suffice_for_say_so(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(run, "measure", lambda row, *rest: Measured(row.name, row.family, 0, 0.0, True))
    rows = run.measured([SMALL] * 4, {SMALL.clock: None}, LIMITS, 45.0, now=lambda: next(clock))
    assert [row.failure for row in rows] == ["", "", run.LATE, run.LATE]


# --- reporting --------------------------------------------------------------------------------------------


def test_results_make_a_file_and_a_section(tmp_path, monkeypatch, no_card):
    row = measure(SMALL, Scripted(lambda run: 1e-3), LIMITS, 0.0, device="cpu", small=True)
    with installed(FakeCuda()):
        path = report.save([row], tw.cuda.get_device_properties(), tmp_path)
    assert path.name == "fake-gpu.json"
    document = json.loads(path.read_text())
    assert document["machine"] == {
        "gpu": "Fake GPU", "target": "cuda:90", "multiprocessors": 132, "memory_gigabytes": 86,
        "driver": "CUDA 12.8",
    }  # fmt: skip
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{cpu_report.BEGIN}\nold\n{cpu_report.END}\nafter\n")
    monkeypatch.setattr(cpu_report, "RESULTS", tmp_path)
    monkeypatch.setattr(cpu_report, "README", readme)
    cpu_report.regenerate()
    text = readme.read_text()
    assert "### Fake GPU, 86 GB, 132 multiprocessors (CUDA 12.8)" in text
    assert "| softmax | 1 ms | 0.00 |  |" in text
    assert "old" not in text and text.startswith("before") and text.endswith("after\n")


def test_without_a_gpu_the_command_says_so(monkeypatch):
    from benchmarks.__main__ import app
    from tilewright.op import targets

    monkeypatch.setattr(targets, "targets_at_hand", lambda: [("cuda:0", "a driver of the year 1999")])
    done = CliRunner().invoke(app, ["gpu"])
    assert done.exit_code == 0
    assert "There is no GPU to measure on: a driver of the year 1999. Nothing was run." in done.output
