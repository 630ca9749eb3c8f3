"""Operands between guard pages, and a forked child to touch them in: for tests and for ``op.check``.

    page without access | ........ data, up to the very end | page without access      side="end"
    page without access | data from the very start ........ | page without access      side="start"

A kernel that reads or writes one byte beyond its operand dies of SIGSEGV, in a child, where it can be told.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError, MemoryLimitError, TargetError

PAGE = mmap.PAGESIZE
NO_ACCESS = 0  # PROT_NONE
PATTERN = 0xA5
LONGEST_REPORT = 1 << 14  # fits into a pipe, so that the child never waits for a reader

Side = Literal["end", "start"]


def guarded(array: np.ndarray, side: Side = "end", *, keep_strides: bool = True) -> np.ndarray:
    """A copy whose last byte (or first, with ``side="start"``) lies next to a page without access.

    The strides are those of `array` (0 and negative ones included; between the elements there is 0xA5), or
    C-contiguous without `keep_strides`.
    """
    strides = array.strides if keep_strides else None
    copy = _between_guards(array.shape, array.dtype, side, strides)
    np.copyto(copy, array)
    return copy


def poisoned(
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    side: Side = "end",
    *,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """An output between guard pages in which an element never written shows: NaN, or bytes of 0xA5."""
    array = _between_guards(tuple(shape), np.dtype(dtype), side, strides)
    if _has_nan(array.dtype):
        array[...] = float("nan")
    return array


def _has_nan(dtype: np.dtype) -> bool:
    if dtype.kind in "biuSUmM" or dtype.names is not None:
        return False
    try:
        with np.errstate(invalid="ignore"):
            value = np.asarray(float("nan")).astype(dtype)
    except (TypeError, ValueError):
        return False
    return bool(value != value)


def _between_guards(
    shape: tuple[int, ...], dtype: np.dtype, side: Side, strides: Sequence[int] | None
) -> np.ndarray:
    if side not in ("end", "start"):
        raise ArgumentError(f"side={side!r} does not exist; write 'end' or 'start'")
    if dtype.hasobject:
        raise ArgumentError(f"dtype {dtype} holds Python objects, which cannot be copied byte by byte")
    steps = _contiguous(shape, dtype.itemsize) if strides is None else tuple(strides)
    below, above = _reach(shape, steps, dtype.itemsize)
    body = _guarded_bytes(below + above)
    start = body.size - (below + above) if side == "end" else 0
    body[...] = PATTERN
    return np.ndarray(shape, dtype, body, offset=start + below, strides=steps)


def _contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    steps = []
    for extent in reversed(shape):
        steps.append(itemsize)
        itemsize *= max(extent, 1)
    return tuple(reversed(steps))


def _reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Bytes below the first element, and from its first byte to the end of the last one in memory."""
    if 0 in shape:
        return 0, 0
    spans = [(extent - 1) * step for extent, step in zip(shape, strides, strict=True)]
    return -sum(span for span in spans if span < 0), sum(span for span in spans if span > 0) + itemsize


def _guarded_bytes(size: int) -> np.ndarray:
    """Whole pages for at least `size` bytes, with a page without access on either side."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        raise TargetError("guard pages need a POSIX system (mmap and mprotect)")
    length = max(-(-size // PAGE), 1) * PAGE
    try:
        memory = mmap.mmap(-1, length + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryLimitError(f"cannot map {length} bytes between guard pages: {error}") from None
    everything = np.frombuffer(memory, np.uint8)
    for offset in (0, PAGE + length):
        _forbid(everything.ctypes.data + offset)
    return np.frombuffer(memory, np.uint8, count=length, offset=PAGE)


def _forbid(address: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    if system.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), NO_ACCESS) != 0:
        raise MemoryLimitError(f"cannot protect a guard page: {os.strerror(ctypes.get_errno())}")


@dataclass(frozen=True)
class ForkOutcome:
    """What became of a callable in a forked child."""

    kind: Literal["returned", "raised", "crashed", "hung"]
    signal_number: int | None = None
    report: str = ""  # the traceback, if it raised

    @property
    def segfault(self) -> bool:
        """Whether it touched memory that it may not touch."""
        return self.kind == "crashed" and self.signal_number in (signal.SIGSEGV, signal.SIGBUS)


def run_forked(function: Callable[[], object], timeout: float = 60.0) -> ForkOutcome:
    """Call `function` in a forked child, where it may crash or hang; its changes to memory are not seen here.

    After `timeout` seconds the child is killed. A kernel should run with one thread in it: the worker threads
    of an OpenMP runtime do not exist in a child.
    """
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        os.close(reading)
        _child_main(function, writing)
    os.close(writing)
    try:
        status = _wait(child, timeout)
        return ForkOutcome("hung") if status is None else _outcome(status, reading)
    finally:
        os.close(reading)


def _wait(child: int, timeout: float) -> int | None:
    """The child's status; None if it had to be killed."""
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def fork() -> int:
    """``os.fork`` without the warning of later Pythons about threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child_main(function: Callable[[], object], writing: int) -> None:
    """Run and leave without any of the parent's cleaning up."""
    code = 1
    try:
        faulthandler.disable()  # a crash is an answer here, not an accident
        _no_core_file()
        function()
        code = 0
    except BaseException:
        with contextlib.suppress(OSError):
            os.write(writing, traceback.format_exc().encode(errors="replace")[-LONGEST_REPORT:])
    finally:
        os._exit(code)


def _no_core_file() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _outcome(status: int, reading: int) -> ForkOutcome:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return ForkOutcome("crashed", signal_number=-code)
    if code == 0:
        return ForkOutcome("returned")
    return ForkOutcome("raised", report=os.read(reading, LONGEST_REPORT).decode(errors="replace"))
