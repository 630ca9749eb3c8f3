"""How many threads a CPU kernel may use: one number for the process."""

from __future__ import annotations

import operator
import os

from tilewright.errors import ArgumentError

VARIABLE = "TILEWRIGHT_NUM_THREADS"
MOST_THREADS = 4096

_chosen: int | None = None


def get_num_threads() -> int:
    """Threads that a CPU kernel may use: what was set, else the environment's wish, else the usable CPUs."""
    global _chosen
    if _chosen is None:
        _chosen = _initial_number()
    return _chosen


def set_num_threads(number: int | None) -> None:
    """Choose the number of threads for later launches; None goes back to the default.

    Results do not depend on it: reductions have a fixed order.
    """
    global _chosen
    _chosen = None if number is None else _checked(number)


def usable_cpus() -> int:
    """CPUs that this process may run on (its affinity mask), which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _initial_number() -> int:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return min(usable_cpus(), MOST_THREADS)
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ArgumentError(
            f"{VARIABLE}={text!r} is not a number of threads; write a whole number from 1 to {MOST_THREADS}, "
            f"or unset it to use the {usable_cpus()} usable CPUs"
        )
    return int(text)


def _checked(number: int) -> int:
    remedy = f"pass a whole number from 1 to {MOST_THREADS}, or None for {VARIABLE} or else all usable CPUs"
    if isinstance(number, bool):
        raise ArgumentError(
            f"set_num_threads({number!r}): a truth value is not a number of threads; {remedy}"
        )
    try:
        whole = operator.index(number)
    except TypeError:
        raise ArgumentError(f"set_num_threads({number!r}): this is not a whole number; {remedy}") from None
    if not 1 <= whole <= MOST_THREADS:
        raise ArgumentError(f"set_num_threads({whole}): out of range; {remedy}")
    return whole
