"""What was launched, for the message of a failure that shows only later.

A kernel fails long after its launch has returned, in whatever call asks the device next. So each op gets a
number, and behind its kernels the stream itself writes that number to a word of the host's memory, which
outlives the device's context. The first op of a stream whose number is not there is the one that failed.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

BLOCKING_VARIABLE = "TILEWRIGHT_LAUNCH_BLOCKING"
REMEMBERED = 1024  # ops; a queue that is longer than this waits for the device anyway
SHOWN = 4

_numbers = itertools.count(1)
_WORD = 2**32


class Launch(NamedTuple):
    """The kernels of one op on one stream."""

    number: int
    op: str
    ordinal: int
    stream: int
    kernels: tuple[str, ...]


_ops: deque[tuple[int, str, int, int, tuple[str, ...]]] = deque(maxlen=REMEMBERED)
"""As plain tuples, for every op adds one; the fields are those of `Launch`."""
_reached: dict[tuple[int, int], Callable[[], int]] = {}
"""How to read the number that a device's stream wrote last."""


def is_blocking() -> bool:
    """Whether each op is waited for before the next: ``TILEWRIGHT_LAUNCH_BLOCKING=1``."""
    return os.environ.get(BLOCKING_VARIABLE, "0") not in ("", "0")


def begin(op: str, ordinal: int, stream: int, kernels: tuple[str, ...]) -> int:
    """Note an op whose kernels are about to be launched; its number."""
    number = next(_numbers)
    _ops.append((number, op, ordinal, stream, kernels))
    return number


def watch(ordinal: int, stream: int, read: Callable[[], int]) -> None:
    """Have the number that a stream has reached read so."""
    _reached[ordinal, stream] = read


def unwatch(ordinal: int) -> None:
    """A device's streams tell nothing of themselves any more."""
    for key in [key for key in tuple(_reached) if key[0] == ordinal]:
        _reached.pop(key, None)


def finished(ordinal: int) -> None:
    """All that a device was given is done and well."""
    others = [each for each in tuple(_ops) if Launch(*each).ordinal != ordinal]
    _ops.clear()
    _ops.extend(others)


def forget() -> None:
    """Begin anew, as in a fresh process."""
    _ops.clear()
    _reached.clear()


def suspects() -> str:
    """Who may have failed, in words."""
    first: dict[tuple[int, int], Launch] = {}
    unsure: list[str] = []
    noted = list(itertools.starmap(Launch, tuple(_ops)))
    for launch in noted:
        key = (launch.ordinal, launch.stream)
        read = _reached.get(key)
        if read is None:
            unsure.append(launch.op)
        elif 0 < (launch.number - read()) % _WORD < _WORD // 2:
            first.setdefault(key, launch)
    names = list(dict.fromkeys([launch.op for launch in first.values()] or unsure[-SHOWN:]))
    last = [kernel for launch in noted[-SHOWN:] for kernel in launch.kernels][-SHOWN:]
    kernels = f"kernels launched last: {', '.join(last) or 'none'}"
    if not names:
        return kernels
    ops = " or ".join(f"op {name!r}" for name in names)
    return f"{ops} was the first that did not finish; {kernels}" if first else f"{ops}; {kernels}"
