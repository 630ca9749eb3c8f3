"""Timing on a card: contenders in turn, beside a copy and a product that show what the card can do.

Times are between two events of the stream, with the second cache written full before each call; what Python
takes to launch is hidden behind that. Where launching itself is the question, Python's clock is read.
"""

from __future__ import annotations

import contextlib
import gc
import io
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import tilewright as tw
from benchmarks.gpu.work import DEVICE, Row, Work
from benchmarks.measure import COMPILED, EAGER, OURS, Measured, Peer, compared
from tilewright.op.machines import MOST_CALLS

COPY, PEAK = "copy", "peak"
COPY_BYTES = 512 * 2**20
PEAK_EDGE = 8192
PER_ROUND = 0.02  # seconds that a contender is run for in a round, about
FEWEST_ROUNDS, MOST_ROUNDS = 5, 40
HOST_CALLS = 200


class HostClock:
    """Seconds until a call returns to Python, the device given time to keep up."""

    def sample(self, run: Callable[[], Any], calls: int) -> float:
        tw.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(HOST_CALLS):
            run()
        seconds = time.perf_counter() - began
        tw.cuda.synchronize()
        return seconds / HOST_CALLS


@dataclass(frozen=True)
class Probes:
    """What the card can do, as calls to be timed beside the others, and how much each of them does."""

    copy: Callable[[], Any]
    copied: int
    product: Callable[[], Any]
    operations: float


def probes(device: str = "cuda:0", size: int = COPY_BYTES, edge: int = PEAK_EDGE) -> Probes:
    """A copy by the driver, and a product of bfloat16 matrices by cuBLAS."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(edge, edge, device=device).to(torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)
    return Probes(lambda: target.copy_(source), 2 * size, lambda: torch.matmul(a, b, out=c), 2.0 * edge**3)


def measure(
    row: Row, clock: Any, limits: Probes, budget: float, why_not_compiled: str = "",
    device: str = "cuda:0", small: bool = False,
) -> Measured:  # fmt: skip
    """Check ours against float64, then time it beside its peers for about `budget` seconds."""
    try:
        return _measured(row, clock, limits, budget, why_not_compiled, device, small)
    except Exception as reason:  # one row that fails is a row of the table, not its end
        failure = _short(reason)
        return Measured(row.name, row.family, 0, float("nan"), False, failure=failure, aim=row.aim)
    finally:
        _give_back()


def _measured(
    row: Row, clock: Any, limits: Probes, budget: float, why_not_compiled: str, device: str, small: bool
) -> Measured:
    work = row.make(device, small)
    error = work.error()
    if not error <= work.tolerance:  # a wrong kernel has no time
        return Measured(row.name, row.family, 0, error, right=False, aim=row.aim)
    contenders = {OURS: work.ours, EAGER: work.peer}
    missing = why_not_compiled or ("" if row.compiles else "–")
    if not missing and work.compiled is not None:
        compiled, missing = _compiled(work.compiled)
        if compiled is not None:
            contenders[COMPILED] = compiled
    if row.clock == DEVICE:
        contenders |= {COPY: limits.copy, PEAK: limits.product}
    samples = interleaved(contenders, clock, budget)
    return summary(row, work, error, samples, missing, limits)


def _give_back() -> None:
    """What a row leaves is given back, so that each library finds the memory of the whole card."""
    gc.collect()
    tw.cuda.empty_cache()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _compiled(compiled: Callable[[], Callable[[], Any]]) -> tuple[Callable[[], Any] | None, str]:
    torch._dynamo.reset()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return compiled(), ""
    except Exception as reason:
        return None, _short(reason)


def _short(reason: Exception) -> str:
    lines = str(reason).strip().splitlines() or [""]
    return f"{type(reason).__name__}: {lines[0][:80]}"


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], clock: Any, budget: float
) -> dict[str, list[float]]:
    """Seconds of each contender in each round."""
    calls = {}
    for name, run in contenders.items():
        run()
        once = clock.sample(run, 3)
        calls[name] = min(MOST_CALLS, max(3, round(PER_ROUND / max(once, 1e-9))))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    for number in range(MOST_ROUNDS):
        for name, run in contenders.items():
            samples[name].append(clock.sample(run, calls[name]))
        if number + 1 >= FEWEST_ROUNDS and time.perf_counter() - began > budget:
            break
    return samples


def summary(
    row: Row, work: Work, error: float, samples: Mapping[str, list[float]], missing: str, limits: Probes
) -> Measured:
    """Medians, the rates of the row and of the probes, and the ratios of each round."""
    seconds = statistics.median(samples[OURS])
    peers = {name: compared(samples[OURS], samples[name]) for name in (EAGER, COMPILED) if name in samples}
    if COMPILED not in peers:
        peers[COMPILED] = Peer(missing=missing)
    copy = limits.copied / statistics.median(samples[COPY]) if COPY in samples else None
    peak = limits.operations / statistics.median(samples[PEAK]) if PEAK in samples else None
    least = max(work.moved / copy, work.operations / peak) if copy and peak else None
    return Measured(
        row.name, row.family, 0, error, True, seconds, work.moved / seconds / 1e9,
        work.operations / seconds / 1e9, least / seconds if least else None, peers, peak, copy,
        aim=row.aim,
    )  # fmt: skip
