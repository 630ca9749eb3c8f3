"""The functions of a module around its `…_range`: how items are shared out among threads."""

from __future__ import annotations

from tilewright.compiler.targets.cpu.builder import I32, I64, PTR, Builder, Value
from tilewright.compiler.targets.cpu.frame import ITEMS, TAKEN, THREADS, WORKSPACE, WORKSPACE_BYTES

PIECES = 64  # of the items, at most: a bit each
MOST_SHARING = 32  # threads; where there are more, each has its own piece and no other


def workspace_of(b: Builder, frame: Value, thread: Value) -> Value:
    """Where a thread's workspace begins."""
    start = b.load(b.offset(frame, 8 * WORKSPACE), PTR)
    size = b.load(b.offset(frame, 8 * WORKSPACE_BYTES), I64)
    return b.offset(start, b.mul(thread, size))


def worker_function(b: Builder, name: str, shared: bool) -> None:
    """A thread's share: a contiguous range of items.

    A thread that is late, as it slept or its core has other work, is helped: items are cut into pieces, the
    first taker of a piece has it, and who is through with its own share goes on with the next one's. Not so
    the items of contractions, which are large and few.
    """
    with b.function(f"{name}_worker", args=[("frame", PTR)]) as (frame,):
        thread = b.call("omp_get_thread_num", [], I32)
        count = b.call("omp_get_num_threads", [], I32)
        assert thread is not None and count is not None
        thread, count = b.convert(thread, "i64"), b.convert(count, "i64")
        items = b.load(b.offset(frame, 8 * ITEMS), I64)
        if not shared:
            _piece(b, name, frame, thread, thread, count)
            return
        few = b.cmp("le", count, MOST_SHARING)
        pieces = b.select(few, b.minimum(items, PIECES), count)
        first = b.div(b.mul(pieces, thread), count, signed=False)
        with b.loop(0, b.select(few, pieces, 1)) as loop:
            piece = b.rem(b.add(first, loop.index), pieces, signed=False)
            bit = b.select(few, b.shl(b.constant(1, I64), b.and_(piece, PIECES - 1)), 0)
            before = b.fetch_or(b.offset(frame, 8 * TAKEN), bit)
            with b.if_(b.cmp("eq", b.and_(before, bit), 0)):
                _piece(b, name, frame, thread, piece, pieces)


def _piece(b: Builder, name: str, frame: Value, thread: Value, piece: Value, pieces: Value) -> None:
    items = b.load(b.offset(frame, 8 * ITEMS), I64)
    begin = b.div(b.mul(items, piece), pieces, signed=False)
    end = b.div(b.mul(items, b.add(piece, 1)), pieces, signed=False)
    b.call(f"{name}_range", [frame, begin, end, thread])


def entry_function(b: Builder, name: str, openmp: bool) -> None:
    """All items, on as many threads as the frame says where there is an OpenMP runtime."""
    with b.function(name, args=[("frame", PTR)]) as (frame,):
        items = b.load(b.offset(frame, 8 * ITEMS), I64)
        zero = b.constant(0, I64)
        if not openmp:
            b.call(f"{name}_range", [frame, zero, items, zero])
            return
        threads = b.load(b.offset(frame, 8 * THREADS), I64)
        with b.if_(b.cmp("le", threads, 1)) as choice:
            b.call(f"{name}_range", [frame, zero, items, zero])
            choice.otherwise()
            worker = b.address_of(f"{name}_worker")
            b.call("GOMP_parallel", [worker, frame, b.convert(threads, "i32"), b.constant(0, I32)])
