"""The whole table, row after row, until it is done or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.gpu import report
from benchmarks.gpu.measure import HostClock, Probes, measure, probes
from benchmarks.gpu.rows import TABLE
from benchmarks.gpu.work import DEVICE, HOST, Row
from benchmarks.measure import Measured

PER_ROW = 0.5  # seconds of timing
COMPILING = 120.0  # seconds that may go into torch.compile


def run(only: str, seconds: float) -> bool:
    """Measure, print and save; whether every row that was run is right."""
    from rich.console import Console

    from benchmarks.report import regenerate
    from tilewright.op.machines import DeviceClock
    from tilewright.runtime import cuda

    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    clocks = {DEVICE: DeviceClock(), HOST: HostClock()}
    chosen = [row for row in TABLE if only in row.name]
    with console.status("") as status:
        rows = measured(chosen, clocks, probes(), seconds, status.update)
    console.print(report.table(rows, "tilewright on a GPU: ratios above 1 are in its favour"))
    if not only:
        path = report.save(rows, cuda.get_device_properties())
        console.print(f"written to results/{path.name} and README.md")
        regenerate()
    return all(row.right for row in rows if row.failure != LATE)


LATE = "the time was up"


def measured(
    table: Sequence[Row], clocks: Mapping[str, Any], limits: Probes, seconds: float,
    tell: Callable[[str], Any] = lambda text: None, now: Callable[[], float] = time.perf_counter,
) -> list[Measured]:  # fmt: skip
    """Every row; those that the time does not suffice for say so."""
    began, compiling, rows = now(), 0.0, []
    for number, row in enumerate(table):
        if now() - began > seconds:
            late = Measured(row.name, row.family, 0, float("nan"), False, failure=LATE, aim=row.aim)
            rows.append(late)
            continue
        tell(f"{number + 1} of {len(table)}: {row.name}")
        start = now()
        why_not = "no time to compile" if compiling > COMPILING else ""
        rows.append(measure(row, clocks[row.clock], limits, PER_ROW, why_not))
        if row.compiles and not why_not:
            compiling += now() - start
    return rows
