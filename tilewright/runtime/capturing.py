"""Whether this thread runs a function that becomes a graph, and what it may not do meanwhile.

Such a function runs as it is until two runs in a row are alike, and then once to be recorded. What must be
the same in these runs is noted here: a number that an op is given is part of the graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from tilewright.errors import CaptureError


class Numbers:
    """The numbers that ops were given in a run of a function, in order, and by what names.

    `recorded`: the run before, which a run that is recorded must repeat.
    """

    def __init__(self, function: str, recorded: Numbers | None = None):
        self.function = function
        self._before = recorded
        self._found: list[tuple[str, str]] = []
        self._watched: list[tuple[str, str, Callable[[], str]]] = []

    @property
    def is_recorded(self) -> bool:
        """Whether this is the run in which a stream is recorded."""
        return self._before is not None

    def note(self, what: str, value: object) -> None:
        """One more. Raises `CaptureError` where the run that this one must repeat had another one."""
        entry = (what, repr(value))
        if self._before is not None:
            told = self._before._told(len(self._found), entry)
            if told:
                raise self.error(told)
        self._found.append(entry)

    def watch(self, what: str, read: Callable[[], str]) -> None:
        """Something that the function does not work out anew when the graph runs; it must not change."""
        self._watched.append((what, read(), read))

    def check_watched(self) -> None:
        """Raises `CaptureError` where something is not what it was when it was recorded."""
        for what, before, read in self._watched:
            now = read()
            if now != before:
                raise CaptureError(
                    f"graph of {self.function}: {what} was {before} when it was recorded, and is {now} now, "
                    "which the graph does not see: make it a Tensor on the device and write to that, or make "
                    "another graph"
                )

    def difference(self, before: Numbers) -> str:
        """What differs from the run before, in words; nothing where nothing does."""
        told = (before._told(position, entry) for position, entry in enumerate(self._found))
        missing = before._found[len(self._found) :]
        return next(filter(None, told), f"{missing[0][0]} is not there any more" if missing else "")

    def _told(self, position: int, entry: tuple[str, str]) -> str:
        """How a number of a later run differs from the one at its place."""
        what, value = entry
        if position >= len(self._found) or self._found[position][0] != what:
            return f"{what} (now {value}) was not there, or not at this place, in the call before"
        earlier = self._found[position][1]
        return "" if earlier == value else f"{what} was {earlier} in one call and is {value} in the next"

    def error(self, told: str) -> CaptureError:
        return CaptureError(
            f"graph of {self.function}: {told}. Numbers are part of a graph, the same in every call: pass "
            "what changes as a Tensor, or leave the op that needs it outside of the graph"
        )


class _Thread(threading.local):
    numbers: Numbers | None = None


_thread = _Thread()


def running() -> Numbers | None:
    """What the function that this thread makes a graph of was given; None where there is no such function."""
    return _thread.numbers


@contextlib.contextmanager
def run(numbers: Numbers | None) -> Iterator[None]:
    """Within, this thread runs such a function; None: what is done is not part of it."""
    before, _thread.numbers = _thread.numbers, numbers
    try:
        yield
    finally:
        _thread.numbers = before


def refuse(doing: str, instead: str) -> None:
    """For what no graph can hold: raises `CaptureError` if this thread runs a function that becomes one."""
    if _thread.numbers is not None:
        raise CaptureError(f"graph of {_thread.numbers.function}: {doing}; {instead}")
