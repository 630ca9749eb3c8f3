"""The CUDA driver as far as the library uses it, made of host memory: Tensors on "cuda:0" without one.

What would go wrong on a card goes wrong here: device addresses are not the host's (reading one is a fault),
copies and kernels must stay inside of what is allocated, memory that is new or freed is poisoned, streams run
their work only when somebody waits for them, and what a kernel breaks shows in a later call. Kernels are not
compiled: `FakeCuda.compiled` stands in the compiler's place, and a launch runs the same text in Triton's
interpreter on the device's memory.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from tilewright.compiler.targets.triton import interpreter, interpreter_numerics, memory_guard
from tilewright.compiler.targets.triton.driver import PACKING
from tilewright.compiler.targets.triton.launch import Step
from tilewright.compiler.targets.triton.toolchain import Artefact, Target
from tilewright.errors import LaunchError

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, NO_BINARY, ILLEGAL_ADDRESS, OUT_OF_RESOURCES = (
    0, 1, 2, 100, 209, 700, 701,
)  # fmt: skip
INVALID_CONTEXT, INVALID_HANDLE = 201, 400
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_ISOLATION = 900, 901, 905
WITHOUT_CONTEXT = ("cuGetError", "cuInit", "cuDriver", "cuCtxSet", "cuuint", "cuDevice")
"""What may be called in a thread that has no context."""

ATTRIBUTES = {
    "COMPUTE_CAPABILITY_MAJOR": 9,
    "COMPUTE_CAPABILITY_MINOR": 0,
    "MULTIPROCESSOR_COUNT": 132,
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472,
    "MAX_REGISTERS_PER_BLOCK": 65536,
    "MAX_THREADS_PER_BLOCK": 1024,
    "L2_CACHE_SIZE": 50 * 2**20,
    "WARP_SIZE": 32,
    "CLOCK_RATE": 1980000,
    "MEMORY_CLOCK_RATE": 2619000,
    "GLOBAL_MEMORY_BUS_WIDTH": 5120,
    "MEMORY_POOLS_SUPPORTED": 1,
}

FIRST_ADDRESS = 1 << 48  # beyond what an address of a process can be
DEVICE_APART = 1 << 42
BLOCK_APART = 512
POISON = 0xFF  # NaN, -1
HIDDEN_PARAMETERS = 2


class Module(NamedTuple):
    """A kernel's image in one device's context."""

    image: bytes
    context: int | None


class Graph:
    """Work that was recorded on a stream, to be queued as often as one likes; or what broke it."""

    def __init__(self) -> None:
        self.work: list[Any] = []
        self.broken = SUCCESS
        self.destroyed = False


class Block:
    """Memory on a device."""

    def __init__(self, address: int, size: int):
        self.address, self.size = address, size
        self.bytes = np.full(size, POISON, np.uint8)

    def part(self, address: int, size: int) -> np.ndarray:
        first = address - self.address
        return self.bytes[first : first + size]


class Queue:
    """A stream: work that waits until somebody asks for it."""

    def __init__(self) -> None:
        self.work: list[Any] = []
        self.done = 0
        self.recorded: Graph | None = None
        """What its work goes to instead."""

    def add(self, step: Any) -> None:
        self.work.append(step)

    def run(self, until: int | None = None) -> None:
        while self.done < (len(self.work) if until is None else until):
            step = self.work[self.done]
            self.work[self.done] = None
            self.done += 1
            step()


class Card:
    """A device: memory, streams, and what is wrong with it."""

    def __init__(self, ordinal: int, total: int):
        self.ordinal, self.total = ordinal, total
        self.blocks: dict[int, Block] = {}
        self.freed: dict[int, int] = {}
        self.next = FIRST_ADDRESS + ordinal * DEVICE_APART
        self.queues: dict[int, Queue] = {}
        self.error = SUCCESS

    @property
    def used(self) -> int:
        return sum(block.size for block in self.blocks.values())

    def find(self, address: int, size: int) -> Block:
        """The block that a range lies in; a test fails where there is none."""
        for block in self.blocks.values():
            if block.address <= address and address + size <= block.address + block.size:
                return block
        for start, length in self.freed.items():
            assert not start <= address < start + length, f"use after free of {size} bytes at {address:#x}"
        raise AssertionError(f"{size} bytes at {address:#x} are not in one piece of memory of this device")


class FakeCuda:
    """Stands in for the module `cuda.bindings.driver`."""

    def __init__(self, devices: int = 1, total: int = 80 * 2**30, version: int = 12080, **attributes: int):
        self.cards = [Card(ordinal, total) for ordinal in range(devices)]
        self.version = version
        self.attributes = ATTRIBUTES | attributes
        self._thread = threading.local()
        self.pinned: dict[int, Any] = {}
        self.launches: list[SimpleNamespace] = []
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        self.faults: list[str] = []
        self.images: dict[bytes, Artefact] = {}
        self.steps: dict[bytes, Step] = {}
        self.graphs: list[Graph] = []
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)
        self.breaking: str | None = None
        """Part of the name of a kernel that reads where nothing is."""
        self.CUdevice_attribute = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{n}": n for n in self.attributes})
        self.CUmemPool_attribute = SimpleNamespace(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD=4)
        self.CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL=9)
        self.CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith("cu") or not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            code = self.failing.get(name)
            if code is None and not name.startswith(WITHOUT_CONTEXT):
                code = (self.card.error or None) if self.current is not None else INVALID_CONTEXT
            return value(*arguments) if code is None else (code, None)

        return call

    @property
    def current(self) -> int | None:
        """The device whose context is current in this thread, as in a driver: none at first."""
        return getattr(self._thread, "current", None)

    @current.setter
    def current(self, ordinal: int | None) -> None:
        self._thread.current = ordinal

    @property
    def card(self) -> Card:
        assert self.current is not None
        return self.cards[self.current]

    @property
    def memory(self) -> dict[int, Block]:
        """What is allocated, on all devices."""
        return {address: block for card in self.cards for address, block in card.blocks.items()}

    def queue(self, stream: int) -> Queue:
        return self.card.queues.setdefault(int(stream), Queue())

    def enqueue(self, stream: int, work: Any) -> None:
        """Work in a stream's order; none is done once a kernel has failed."""
        card = self.card

        def step() -> None:
            if not card.error:
                work()

        queue = self.queue(stream)
        if queue.recorded is not None:
            queue.recorded.work.append(step)
        else:
            queue.add(step)

    def _breaks(self, stream: int, code: int) -> int:
        """What the driver says of something that no graph can hold: nothing where none is recorded."""
        recorded = self.queue(stream).recorded
        if recorded is None:
            return SUCCESS
        recorded.broken = recorded.broken or code
        return code

    def find(self, address: int, size: int) -> Block:
        return self.cards[(int(address) - FIRST_ADDRESS) // DEVICE_APART].find(int(address), size)

    def cuuint64_t(self, value: int) -> int:
        return value

    # --- devices --------------------------------------------------------------------------------------------

    def cuInit(self, flags: int):
        return (SUCCESS,)

    def cuDriverGetVersion(self):
        return SUCCESS, self.version

    def cuDeviceGetCount(self):
        return SUCCESS, len(self.cards)

    def cuDeviceGet(self, ordinal: int):
        return SUCCESS, ordinal

    def cuDeviceGetName(self, length: int, handle: int):
        return SUCCESS, b"Fake GPU\0\0"

    def cuDeviceTotalMem(self, handle: int):
        return SUCCESS, self.cards[handle].total

    def cuDeviceGetAttribute(self, attribute: str, handle: int):
        return SUCCESS, self.attributes[attribute]

    def cuDevicePrimaryCtxRetain(self, handle: int):
        return SUCCESS, f"context {handle}"

    def cuCtxSetCurrent(self, context: str):
        self.current = int(context.split()[1])
        return (SUCCESS,)

    def cuCtxSynchronize(self):
        for stream in self.card.queues:
            if self._breaks(stream, CAPTURE_UNSUPPORTED):
                return (CAPTURE_UNSUPPORTED,)
        for queue in list(self.card.queues.values()):
            queue.run()
        return (self.card.error,)

    # --- memory ---------------------------------------------------------------------------------------------

    def cuDeviceGetDefaultMemPool(self, handle: int):
        return SUCCESS, "pool"

    def cuMemPoolSetAttribute(self, pool: str, attribute: int, value: int):
        return (SUCCESS,)

    def cuMemPoolTrimTo(self, pool: str, size: int):
        return (SUCCESS,)

    def cuMemGetInfo(self):
        return SUCCESS, self.card.total - self.card.used, self.card.total

    def cuMemAlloc(self, size: int):
        card = self.card
        if card.used + size > card.total:
            return OUT_OF_MEMORY, None
        address = card.next
        card.next += -(-size // BLOCK_APART) * BLOCK_APART + BLOCK_APART
        card.blocks[address] = Block(address, size)
        return SUCCESS, address

    def cuMemAllocAsync(self, size: int, stream: int):
        assert self.queue(stream).recorded is None, (
            "the memory would be the graph's, and gone between its runs"
        )
        return FakeCuda.cuMemAlloc(self, size)

    def cuMemFree(self, address: int):
        FakeCuda.cuCtxSynchronize(self)
        self._free(self.card, address)
        return (SUCCESS,)

    def cuMemFreeAsync(self, address: int, stream: int):
        self.enqueue(stream, functools.partial(self._free, self.card, address))
        return (SUCCESS,)

    def _free(self, card: Card, address: int) -> None:
        assert address in card.blocks, f"{address:#x} is freed twice, or was never allocated"
        block = card.blocks.pop(address)
        block.bytes[...] = POISON
        card.freed[address] = block.size

    def cuPointerGetAttribute(self, attribute: int, address: int):
        return SUCCESS, (address - FIRST_ADDRESS) // DEVICE_APART

    def cuMemHostAlloc(self, size: int, flags: int):
        block = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(block)] = block
        return SUCCESS, ctypes.addressof(block)

    def _is_pinned(self, address: int, size: int) -> bool:
        return any(start <= address and address + size <= start + len(b) for start, b in self.pinned.items())

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int):
        # Memory that is not page-locked is read at once, other when the stream comes to it.
        assert self.queue(stream).recorded is None, "each run of the graph would read the host's memory again"
        staged = None if self._is_pinned(source, size) else ctypes.string_at(source, size)

        def work() -> None:
            data = ctypes.string_at(source, size) if staged is None else staged
            self.find(target, size).part(target, size)[...] = np.frombuffer(data, np.uint8)

        self.enqueue(stream, work)
        return (SUCCESS,)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int):
        if code := self._breaks(stream, CAPTURE_UNSUPPORTED):
            return (code,)

        def work() -> None:
            ctypes.memmove(target, self.find(source, size).part(source, size).tobytes(), size)

        self.enqueue(stream, work)
        if not self._is_pinned(target, size):
            self.queue(stream).run()
        return (self.card.error,)

    def cuMemcpyDtoDAsync(self, target: int, source: int, size: int, stream: int):
        def work() -> None:
            data = self.find(source, size).part(source, size).copy()
            self.find(target, size).part(target, size)[...] = data

        self.enqueue(stream, work)
        return (SUCCESS,)

    def cuMemcpyPeerAsync(self, target: int, to: str, source: int, of: str, size: int, stream: int):
        assert (to, of) == tuple(
            f"context {(address - FIRST_ADDRESS) // DEVICE_APART}" for address in (target, source)
        )
        return FakeCuda.cuMemcpyDtoDAsync(self, target, source, size, stream)

    def cuMemsetD8Async(self, target: int, value: int, size: int, stream: int):
        self.enqueue(stream, lambda: self.find(target, size).part(target, size).fill(value))
        return (SUCCESS,)

    # --- streams and events ---------------------------------------------------------------------------------

    def cuStreamCreate(self, flags: int):
        return SUCCESS, 77 + len(self.card.queues)

    def cuStreamSynchronize(self, stream: int):
        if code := self._breaks(stream, CAPTURE_UNSUPPORTED):
            return (code,)
        self.queue(stream).run()
        return (self.card.error,)

    def cuStreamWaitEvent(self, stream: int, event: Any, flags: int):
        if code := self._breaks(stream, CAPTURE_ISOLATION):
            return (code,)
        if event.queue is not None:
            self.enqueue(stream, functools.partial(event.queue.run, event.until))
        return (SUCCESS,)

    def cuStreamWriteValue32(self, stream: int, address: int, value: int, flags: int):
        assert self._is_pinned(address, 4)
        assert self.queue(stream).recorded is None, "each run of the graph would tell the same number"

        def work() -> None:
            ctypes.c_uint32.from_address(address).value = value

        self.enqueue(stream, work)
        return (SUCCESS,)

    def cuEventCreate(self, flags: int):
        return SUCCESS, SimpleNamespace(queue=None, until=0)

    def cuEventDestroy(self, event: Any):
        return (SUCCESS,)

    def cuEventRecord(self, event: Any, stream: int):
        event.queue = self.queue(stream)
        event.until = len(event.queue.work)
        return (SUCCESS,)

    def cuEventSynchronize(self, event: Any):
        if event.queue is not None:
            event.queue.run(event.until)
        return (self.card.error,)

    def cuEventElapsedTime(self, earlier: Any, later: Any):
        return SUCCESS, 1.25

    # --- graphs ---------------------------------------------------------------------------------------------

    def cuStreamBeginCapture(self, stream: int, mode: int):
        assert mode == self.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        assert stream, "the default stream cannot be recorded"
        assert self.queue(stream).recorded is None
        self.queue(stream).recorded = Graph()
        return (SUCCESS,)

    def cuStreamEndCapture(self, stream: int):
        queue = self.queue(stream)
        graph, queue.recorded = queue.recorded, None
        assert graph is not None, "nothing was recorded"
        return (CAPTURE_INVALIDATED, None) if graph.broken else (SUCCESS, graph)

    def cuGraphInstantiate(self, graph: Graph, flags: int):
        runnable = Graph()
        runnable.work = list(graph.work)
        self.graphs.append(runnable)
        return SUCCESS, runnable

    def cuGraphLaunch(self, graph: Graph, stream: int):
        assert not graph.destroyed
        for step in graph.work:
            self.queue(stream).add(step)
        return (SUCCESS,)

    def cuGraphDestroy(self, graph: Graph):
        return (SUCCESS,)

    def cuGraphExecDestroy(self, graph: Graph):
        graph.destroyed = True
        return (SUCCESS,)

    # --- kernels --------------------------------------------------------------------------------------------

    def compiled(self, step: Step, target: Target, aligned: frozenset[str]) -> Artefact:
        """A launch's kernel without a binary; takes the place of the compiler."""
        image = repr((step.emitted.text, step.signature, step.schedule, aligned, step.integers)).encode()
        found = self.images.get(image)
        if found is None:
            self.steps[image] = step
            found = self.images[image] = Artefact(
                target=str(target), entry=step.emitted.name, binary=image, binary_kind="cubin", texts={},
                signature=tuple((p.name, p.type) for p in step.parameters),
                hidden_parameters=HIDDEN_PARAMETERS, num_warps=step.schedule.num_warps, num_ctas=1,
                warp_size=32, shared_bytes=1024,
            )  # fmt: skip
        return found

    def cuModuleLoadData(self, image: bytes):
        return SUCCESS, Module(image, self.current)

    def cuModuleGetFunction(self, module: Module, name: bytes):
        return SUCCESS, module if module.image in self.images else name.decode()

    def cuFuncSetAttribute(self, function: Any, attribute: int, value: int):
        self.asked_for = (function, attribute, value)
        return (SUCCESS,)

    def cuLaunchKernel(self, function, x, y, z, bx, by, bz, shared, stream, parameters, extra):
        return (self._launch(function, (x, y, z), (bx, by, bz), shared, stream, parameters),)

    def cuLaunchCooperativeKernel(self, function, x, y, z, bx, by, bz, shared, stream, parameters):
        code = self._launch(function, (x, y, z), (bx, by, bz), shared, stream, parameters)
        self.launches[-1].cooperative = True
        return (code,)

    parameter_count = 0
    """Of the kernels that are not run, only looked at."""

    def _launch(self, function, grid, block, shared, stream, parameters) -> int:
        image, context = function if isinstance(function, Module) else (None, self.current)
        if context != self.current:
            return INVALID_HANDLE
        artefact = self.images.get(image) if image is not None else None
        signature = artefact.signature if artefact else ()
        count = len(signature) + HIDDEN_PARAMETERS if artefact else self.parameter_count
        pointers = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
        # Copied before the launch returns, each found through the array of pointers.
        slots = [ctypes.string_at(pointers[n], 8) for n in range(count)]
        words = [int.from_bytes(slot, "little") for slot in slots]
        name = artefact.entry if artefact else function
        told = {"function": name, "grid": grid, "block": block, "shared": shared, "stream": stream}
        self.launches.append(SimpleNamespace(**told, slots=words, device=self.current))
        if artefact is not None:
            run = functools.partial(self._run, self.card, image, grid, slots)
            self.enqueue(stream, run)
        return SUCCESS

    def _run(self, card: Card, image: bytes, grid: tuple[int, ...], slots: list[bytes]) -> None:
        step, artefact = self.steps[image], self.images[image]
        values = [
            _argument(card, slot, kind) for slot, (_, kind) in zip(slots, artefact.signature, strict=False)
        ]
        kinds = {p.name: p.type for p in step.parameters if not p.type.startswith("*")}
        try:
            if self.breaking is not None and self.breaking in artefact.entry:
                raise LaunchError("an injected failure")
            with mock.patch.object(interpreter, "MemoryGuard", functools.partial(_guard, card)):
                interpreter.interpret(
                    step.emitted.text, step.emitted.name, grid, values, step.emitted.constexprs,
                    signature=kinds,
                )  # fmt: skip
        except LaunchError as error:
            self.faults.append(str(error))
            card.error = ILLEGAL_ADDRESS

    def cuGetErrorName(self, code: int):
        return SUCCESS, f"CUDA_ERROR_{code}".encode()

    def cuGetErrorString(self, code: int):
        return SUCCESS, b"what went wrong"


def _argument(card: Card, slot: bytes, kind: str) -> Any:
    """A parameter as the interpreter takes it: a pointer as an array from there to the end of its memory."""
    if kind.startswith("*"):
        return _elements(card, int.from_bytes(slot, "little"), interpreter_numerics.NUMPY_NAMES[kind[1:]])
    if kind == "bf16":
        return float(np.frombuffer(slot[:2], np.uint16).astype(np.uint32) << 16).view(np.float32)
    code = PACKING[kind]
    return struct.unpack_from(f"<{code}", slot)[0]


def _elements(card: Card, address: int, dtype: str) -> np.ndarray:
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for block in card.blocks.values():
        if block.address <= address < block.address + block.size:
            length = (block.address + block.size - address) // kind.itemsize
            return block.part(address, length * kind.itemsize).view(kind)
    return np.empty(0, kind)  # nothing can be read there


def _guard(card: Card, kernel_name: str, arrays: Any) -> memory_guard.MemoryGuard:
    """A guard that allows what a card does: every address of the device's memory."""
    guard = memory_guard.MemoryGuard(kernel_name, [])
    guard.regions = [memory_guard.Region.of("device", block.bytes) for block in card.blocks.values()]
    return guard


@contextmanager
def installed(fake: FakeCuda) -> Iterator[FakeCuda]:
    """The fake in the place of the driver and of the compiler."""
    from tilewright.compiler.targets.triton import on_device
    from tilewright.runtime import cuda

    cuda.use_bindings(fake)
    try:
        with mock.patch.object(on_device, "compile_step", fake.compiled):
            yield fake
    finally:
        cuda.use_bindings(None)
