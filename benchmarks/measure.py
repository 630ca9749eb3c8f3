"""Measuring: contenders in turn, round after round, beside probes of the machine's limits.

A B C, B C A, C A B, …: a shared machine slows all contenders of a round alike, so the ratio of two times in
one round means more than either time. Every sample follows a call that is not timed: what ran before it, a
probe that leaves nothing of any operand in the caches or another contender on the same operands, is not its
own doing. One call does not always bring all of an operand back into the last cache, so each contender comes
first in its turn.
Reported are the medians, and the quartiles of the ratios.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import tilewright as tw
from benchmarks.work import Bench, Work
from tilewright.op import limits

SHORTEST_SAMPLE = 2e-3  # seconds
FEWEST_ROUNDS, MOST_ROUNDS = 5, 60
OURS, EAGER, COMPILED = "tilewright", "torch", "torch.compile"


@dataclass(frozen=True)
class Peer:
    """How much longer a peer takes: median and quartiles of the rounds' ratios; or why there is no peer."""

    seconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class Measured:
    """One row: seconds of ours, rates, and the fraction of the least time that the machine's limits allow."""

    name: str
    family: str
    threads: int
    error: float
    right: bool
    seconds: float | None = None
    gigabytes: float | None = None  # a second, of the fewest bytes
    gigaflops: float | None = None  # a second
    fraction: float | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    peak: float | None = None
    copy: float | None = None
    failure: str = ""
    aim: str = ""


@contextlib.contextmanager
def using(threads: int) -> Iterator[None]:
    """That many threads for both libraries."""
    before = tw.get_num_threads(), torch.get_num_threads()
    tw.set_num_threads(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        tw.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def measure(bench: Bench, threads: int, budget: float, with_compile: bool, why_not: str = "") -> Measured:
    """Check ours against float64, then time it beside its peers for about `budget` seconds."""
    try:
        return _measured(bench, threads, budget, with_compile, why_not)
    except Exception as reason:  # one row that fails is a row of the table, not its end
        failure = f"{type(reason).__name__}: {str(reason).strip().splitlines()[0][:80]}"
        return Measured(bench.name, bench.family, threads, float("nan"), False, failure=failure)


def _measured(bench: Bench, threads: int, budget: float, with_compile: bool, why_not: str) -> Measured:
    with using(threads):
        work = bench.make()
        error = work.error()
        if not error <= work.tolerance:  # a wrong kernel has no time
            return Measured(bench.name, bench.family, threads, error, right=False)
        contenders = {OURS: work.ours, EAGER: work.peer}
        missing = why_not
        if with_compile:
            compiled, missing = _compiled(work)
            if compiled is not None:
                contenders[COMPILED] = compiled
        samples, peak, copy = interleaved(contenders, threads, budget)
    return _summary(bench, threads, work, error, samples, missing, peak, copy)


def _compiled(work: Work) -> tuple[Callable[[], Any] | None, str]:
    """The peer under torch.compile, or why it is not there."""
    if work.peer_compiled is None:
        return None, "no formula to compile"
    torch._dynamo.reset()  # code for another number of threads is no good
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return work.peer_compiled(), ""
    except Exception as reason:
        return None, f"{type(reason).__name__}: {str(reason).strip().splitlines()[0][:80]}"


def interleaved(
    contenders: Mapping[str, Callable[[], Any]], threads: int, budget: float
) -> tuple[dict[str, list[float]], float | None, float]:
    """Seconds a call of each contender in each round, and the median limits of the same rounds."""
    repeats = {}
    for name, run in contenders.items():
        run()
        run()
        repeats[name] = max(1, round(SHORTEST_SAMPLE / _sample(run, 1)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: list[float] = []
    copies: list[float] = []
    began = time.perf_counter()
    order = list(contenders)
    for number in range(MOST_ROUNDS):
        for name in order:
            contenders[name]()
            samples[name].append(_sample(contenders[name], repeats[name]))
        order = [*order[1:], order[0]]
        found = limits.peak(threads)
        peaks += [found] if found else []
        copies.append(limits.copy(threads))
        if number + 1 >= FEWEST_ROUNDS and time.perf_counter() - began > budget:
            break
    return samples, statistics.median(peaks) if peaks else None, statistics.median(copies)


def _sample(run: Callable[[], Any], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def _summary(
    bench: Bench, threads: int, work: Work, error: float, samples: Mapping[str, list[float]], missing: str,
    peak: float | None, copy: float,
) -> Measured:  # fmt: skip
    seconds = statistics.median(samples[OURS])
    peers = {name: compared(samples[OURS], theirs) for name, theirs in samples.items() if name != OURS}
    if COMPILED not in peers:
        peers[COMPILED] = Peer(missing=missing)
    least = limits.Limits(peak, copy).seconds(work.operations, work.moved)
    return Measured(
        bench.name, bench.family, threads, error, True, seconds, work.moved / seconds / 1e9,
        work.operations / seconds / 1e9, least / seconds, peers, peak, copy,
    )  # fmt: skip


def compared(ours: list[float], theirs: list[float]) -> Peer:
    """A peer's times beside ours of the same rounds."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4)
    return Peer(statistics.median(theirs), statistics.median(ratios), low, high)
