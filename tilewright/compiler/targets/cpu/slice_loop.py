"""The loop over slices as machine code, one for all kernels: its frame tells what it does.

    for slice in the thread's range:
        for step in steps:
            frame = template of the step
            frame[slot] = value + slice · apart, for each slot that is set
            entry of the step(frame)

The frame begins as a kernel's does, and its items are slices. Then come the number of steps, and of each

    address of its entry, address of its template, words of that, where its workspace begins in the thread's,
    whether what it packs once stays there, how many slots are set,
    of each such slot: its number, the value for the first slice, what every slice adds to that, and whether
    the value counts from the thread's workspace

A thread's workspace begins with room for a frame. What waits between the steps of a slice is there as well:
in the same place for every slice, so that it stays in the second cache.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.targets.cpu.builder import I64, PTR, Builder, Value
from tilewright.compiler.targets.cpu.frame import (
    HEADER,
    ITEMS,
    PACKED,
    THREADS,
    WORDS_COPIED,
    WORKSPACE,
    WORKSPACE_BYTES,
)
from tilewright.compiler.targets.cpu.functions import entry_function, worker_function, workspace_of
from tilewright.compiler.targets.cpu.launch import Entry, Range
from tilewright.compiler.targets.cpu.recipe import Step
from tilewright.compiler.targets.cpu.toolchain import CpuTarget
from tilewright.dsl.dtypes import DType

WORD = 8  # bytes
LINE = 64  # bytes: workspaces begin at a cache line
RECORD = 6  # words for a step, before its slots
SLOT = 4  # words for each of them


@dataclass(frozen=True)
class SliceLoop:
    """The compiled loop."""

    entry: Entry
    part: Range
    keepalive: object


@dataclass(frozen=True)
class LoopFrame:
    """A frame of the loop without addresses and scalars, and where they go: (word, number of the array) and
    (word, name, dtype).
    """

    words: array
    arrays: list[tuple[int, int]] = field(default_factory=list)
    scalars: list[tuple[int, str, DType]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        steps: Sequence[Step],
        apart: Sequence[Sequence[int]],
        kept: Sequence[bool],
        waiting: Mapping[int, int],
        count: int,
        workers: int,
    ) -> LoopFrame:
        """That of steps whose arrays lie so many bytes apart from one slice to the next. `kept`: whether they
        pack something for all slices. `waiting`: the bytes of a slice of the arrays between them, by number.
        """
        frame = cls(array("q", bytes(WORD * HEADER)))
        words, room = frame.words, _whole_lines(max(WORD * len(step.template) for step in steps))
        places: dict[int, int] = {}
        for number, size in waiting.items():
            places[number], room = room, room + _whole_lines(size)
        words.append(len(steps))
        for step, by, keeps in zip(steps, apart, kept, strict=True):
            entry = ctypes.cast(step.compiled.entry, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
            slots = len(step.slots) + len(step.scalars)
            words.extend((entry, *step.template.buffer_info(), room, keeps, slots))
            room += _whole_lines(step.workspace)
            for slot, number, each in zip(step.slots, step.arrays, by, strict=True):
                if number in places:
                    words.extend((slot, places[number], 0, True))
                    continue
                frame.arrays.append((len(words) + 1, number))
                words.extend((slot, 0, each, False))
            for slot, name, dtype in step.scalars:
                frame.scalars.append((len(words) + 1, name, dtype))
                words.extend((slot, 0, 0, False))
        words[THREADS], words[ITEMS], words[WORKSPACE_BYTES] = workers, count, room
        return frame


def _whole_lines(size: int) -> int:
    return -(-size // LINE) * LINE


def emit(target: CpuTarget, openmp: bool, name: str) -> str:
    """The MLIR text of the loop."""
    b = Builder(target)
    arguments = [("frame", PTR), ("begin", I64), ("end", I64), ("thread", I64)]
    with b.function(f"{name}_range", args=arguments) as (frame, begin, end, thread):
        own = workspace_of(b, frame, thread)
        steps = _word(b, frame, HEADER)
        with b.loop(begin, end) as slices:
            again = b.convert(b.cmp("gt", slices.index, begin), "i64", signed=False)
            first = b.constant(WORD * (HEADER + 1), I64)
            with b.loop(0, steps, 1, [first]) as loop:
                loop.yield_(_step(b, frame, loop.carried[0], slices.index, again, own))
    if openmp:
        worker_function(b, name, shared=False)
    entry_function(b, name, openmp)
    return b.module()


def _step(b: Builder, frame: Value, place: Value, number: Value, again: Value, own: Value) -> Value:
    """One step for the slice with a number, `again` or for the first time; where the next one is told of."""
    record = b.offset(frame, place)
    entry, template = (b.load(b.offset(record, WORD * n), PTR) for n in range(2))
    size, workspace, keeps, count = (_word(b, record, n) for n in range(2, RECORD))
    with b.loop(0, size, WORDS_COPIED) as copied:
        at = b.mul(copied.index, WORD)
        b.store(b.load(b.offset(template, at), I64.vector(WORDS_COPIED)), b.offset(own, at))
    b.store(b.offset(own, workspace), b.offset(own, WORD * WORKSPACE))
    b.store(b.mul(again, keeps), b.offset(own, WORD * PACKED))
    slots = b.offset(record, RECORD * WORD)
    with b.loop(0, count) as loop:
        told = b.offset(slots, b.mul(loop.index, SLOT * WORD))
        slot, value, apart, inside = (_word(b, told, n) for n in range(SLOT))
        value = b.add(b.add(value, b.mul(number, apart)), b.mul(b.integer(own), inside))
        b.store(value, b.offset(own, b.mul(slot, WORD)))
    b.call_at(entry, [own])
    return b.add(place, b.mul(b.add(b.mul(count, SLOT), RECORD), WORD))


def _word(b: Builder, start: Value, number: int) -> Value:
    return b.load(b.offset(start, WORD * number), I64)
