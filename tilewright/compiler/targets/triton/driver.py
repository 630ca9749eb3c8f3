"""Launching compiled Triton kernels on NVIDIA devices, without Triton and without torch.

    kernel = LoadedKernel(artefact)                       # loads the cubin; needs the device
    kernel.launch((blocks,), [x, y, out, n])              # arrays on the device, then scalars

A kernel's parameters are those of its signature without the constexprs, followed by the pointers that Triton
appends to every kernel since 3.4: its global scratch memory, then its profiling memory. How many there are is
counted in the PTX when the kernel is compiled (`Artefact.hidden_parameters`).
"""

from __future__ import annotations

import ctypes
import math
import struct
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from tilewright.compiler.targets.triton.toolchain import Artefact
from tilewright.errors import ArgumentError, InternalError, ResourceError, TargetError
from tilewright.runtime import cuda
from tilewright.runtime.cuda import launches
from tilewright.runtime.cuda.pool import scratch
from tilewright.runtime.cuda.streams import DEFAULT_STREAM, Stream

# How `struct` packs a parameter of each Triton type; each stands at the start of a slot of eight bytes.
PACKING = {
    "i1": "B",
    "i8": "b",
    "i16": "h",
    "i32": "i",
    "i64": "q",
    "u1": "B",
    "u8": "B",
    "u16": "H",
    "u32": "I",
    "u64": "Q",
    "fp16": "e",
    "bf16": "H",
    "fp32": "f",
    "fp64": "d",
}
SLOT_BYTES = 8
# Beyond this the driver wants to be asked for a block's shared memory.
SHARED_WITHOUT_ASKING = 48 * 1024
GRID_LIMITS = (2**31 - 1, 65535, 65535)


def packing(signature: Sequence[tuple[str, str]], hidden_parameters: int) -> struct.Struct:
    """The layout of all parameters, one slot each.

    >>> packing([("x", "*fp32"), ("n", "i32")], 2).format
    '<Qi4xQQ'
    """
    parts = []
    for name, kind in signature:
        code = "Q" if kind.startswith("*") else PACKING.get(kind)
        if code is None:
            raise InternalError(f"parameter {name!r}: no packing for the type {kind!r}")
        padding = SLOT_BYTES - struct.calcsize(f"<{code}")
        parts.append(code + (f"{padding}x" if padding else ""))
    return struct.Struct("<" + "".join(parts) + "Q" * hidden_parameters)


def address_of(value: Any) -> int:
    """The device address of an array: a `DeviceArray`, an integer, or what other libraries have."""
    if isinstance(value, int):
        return value
    if hasattr(value, "data_ptr"):
        return int(value.data_ptr())
    if hasattr(value, "__cuda_array_interface__"):
        return int(value.__cuda_array_interface__["data"][0])
    if value is None:
        return 0
    raise ArgumentError(f"a kernel needs arrays on the device, not {type(value).__name__}")


def bfloat16_bits(value: float) -> int:
    """The nearest bfloat16, ties to even, as its bits.

    >>> hex(bfloat16_bits(1.0))
    '0x3f80'
    """
    (bits,) = struct.unpack("<I", struct.pack("<f", np.float32(value)))
    if value != value:
        return 0x7FC0
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


def whole_grid(grid: Sequence[int]) -> tuple[int, ...]:
    """A grid in three dimensions."""
    return (*grid, 1, 1, 1)[:3]


class _Parameters(threading.local):
    """Where one thread packs parameters: the slots, and the pointers to them that the driver reads.

    The driver copies parameters before a launch returns, so a thread can use one place for all its launches.
    """

    def __init__(self, layout: struct.Struct):
        count = layout.size // SLOT_BYTES
        self.slots = ctypes.create_string_buffer(max(1, layout.size))
        start = ctypes.addressof(self.slots)
        self.pointers = (ctypes.c_void_p * max(1, count))(*(start + SLOT_BYTES * i for i in range(count)))
        self.address = ctypes.addressof(self.pointers)


class LoadedKernel:
    """A compiled kernel in a device's context, ready to launch."""

    def __init__(self, artefact: Artefact, ordinal: int = 0):
        self.artefact = artefact
        self.card = cuda.card(ordinal)
        self._check_fits()
        self._layout = packing(artefact.signature, artefact.hidden_parameters)
        self._parameters = _Parameters(self._layout)
        self._pointers = tuple(i for i, (_, kind) in enumerate(artefact.signature) if kind.startswith("*"))
        self._bfloat16 = tuple(i for i, (_, kind) in enumerate(artefact.signature) if kind == "bf16")
        self._driver = cuda.bindings()
        self.card.activate()
        loaded = self._driver.cuModuleLoadData(artefact.binary)
        self._module = cuda.check(loaded, f"loading kernel {artefact.entry!r}")
        found = self._driver.cuModuleGetFunction(self._module, artefact.entry.encode())
        self.function = cuda.check(found, f"finding kernel {artefact.entry!r}")
        self._ask_for_shared_memory()
        cooperative = self._driver.cuLaunchCooperativeKernel
        self.start = cooperative if artefact.cooperative else self._driver.cuLaunchKernel
        """The driver's function, called with `head`, a stream, the address of parameters, and `tail`."""
        self.tail = () if artefact.cooperative else (0,)

    def head(self, grid: Sequence[int]) -> tuple[Any, ...]:
        """What a launch begins with: function, grid, block, and the bytes of shared memory."""
        return (self.function, *whole_grid(grid), self.artefact.threads, 1, 1, self.artefact.shared_bytes)

    def scratch_bytes(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The sizes of what Triton's appended pointers point at: global scratch first, then profiling."""
        artefact = self.artefact
        sizes = [artefact.global_scratch_bytes, artefact.profile_scratch_bytes]
        sizes += [0] * (artefact.hidden_parameters - len(sizes))
        return tuple(size * math.prod(grid) for size in sizes[: artefact.hidden_parameters])

    def _check_fits(self) -> None:
        """Refuse what this device cannot run, in words, before the driver does so in numbers."""
        artefact, properties = self.artefact, self.card.properties
        kind, _, architecture = artefact.target.partition(":")
        if kind != "cuda":
            raise TargetError(f"kernel {artefact.entry!r} is for {artefact.target}; this is an NVIDIA device")
        major, minor = properties.capability
        # From Hopper on, Triton compiles for the one architecture ("sm_90a"); before, for its successors too.
        wanted = divmod(int(architecture), 10)
        runs = wanted == (major, minor) or (wanted[0] == major < 9 and wanted[1] <= minor)
        if not runs:
            raise TargetError(
                f"kernel {artefact.entry!r} was compiled for {artefact.target}, but {properties.name} is "
                f"{properties.target}; compile it for that target"
            )
        if artefact.num_ctas != 1 or artefact.programmatic_launch:
            raise TargetError(
                f"kernel {artefact.entry!r} uses clusters or programmatic launch, which the launcher lacks; "
                "compile it with num_ctas=1 and launch_pdl=False"
            )
        if artefact.shared_bytes > properties.shared_bytes_per_block:
            raise ResourceError(
                f"kernel {artefact.entry!r} needs {artefact.shared_bytes} bytes of shared memory; a block of "
                f"{properties.name} has {properties.shared_bytes_per_block}: take a smaller tile"
            )
        if artefact.threads > properties.threads_per_block:
            raise ResourceError(
                f"kernel {artefact.entry!r} asks for {artefact.threads} threads; a block of "
                f"{properties.name} has at most {properties.threads_per_block}"
            )

    def _ask_for_shared_memory(self) -> None:
        if self.artefact.shared_bytes <= SHARED_WITHOUT_ASKING:
            return
        attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        asked = self._driver.cuFuncSetAttribute(self.function, attribute, self.artefact.shared_bytes)
        cuda.check(
            asked,
            f"giving kernel {self.artefact.entry!r} {self.artefact.shared_bytes} bytes of shared memory",
        )

    def launch(self, grid: Sequence[int], arguments: Sequence[Any], stream: int = DEFAULT_STREAM) -> None:
        """Queue the kernel on a stream and return; a grid with a zero runs nothing.

        arguments: in the order of `artefact.signature`: arrays on the device (or their addresses) for
            pointers, numbers for the rest.
        """
        if 0 in grid:
            return
        queue = Stream.of(stream, self.card.ordinal)
        with ExitStack() as stack:
            hidden = [stack.enter_context(scratch(queue, size)) for size in self.scratch_bytes(grid)]
            parameters = self._parameters
            self._pack(parameters.slots, arguments, hidden)
            self.card.activate()
            launches.begin(self.artefact.entry, self.card.ordinal, stream, (self.artefact.entry,))
            code = self.start(*self.head(grid), stream, parameters.address, *self.tail)
            if code[0]:
                self.explain(code, whole_grid(grid))

    def _pack(self, slots: Any, arguments: Sequence[Any], hidden: Sequence[int]) -> None:
        values = list(arguments)
        if len(values) != len(self.artefact.signature):
            raise InternalError(
                f"kernel {self.artefact.entry!r} takes {[name for name, _ in self.artefact.signature]}; "
                f"{len(values)} arguments were given"
            )
        for index in self._pointers:
            if type(values[index]) is not int:
                values[index] = address_of(values[index])
        for index in self._bfloat16:
            values[index] = bfloat16_bits(values[index])
        try:
            self._layout.pack_into(slots, 0, *values, *hidden)
        except (struct.error, OverflowError) as error:
            raise ArgumentError(f"kernel {self.artefact.entry!r}: {error}; {self._typed(values)}") from error

    def _typed(self, values: Sequence[Any]) -> str:
        pairs = zip(self.artefact.signature, values, strict=True)
        return ", ".join(f"{name}: {kind} = {value!r}" for (name, kind), value in pairs)

    def explain(self, code: Any, extents: Sequence[int]) -> None:
        """Raise what the driver said of a launch."""
        if any(extent > limit for extent, limit in zip(extents, GRID_LIMITS, strict=True)):
            raise ResourceError(
                f"kernel {self.artefact.entry!r}: a grid of {tuple(extents)}; the device takes at most "
                f"{GRID_LIMITS}"
            )
        cuda.check(code, f"launching kernel {self.artefact.entry!r}")
