"""A recipe on a device, worked out once: what is left for a call is to write addresses and to launch.

All kernels of a call find their arguments in one row of slots, eight bytes each:

    addresses of operands and buffers │ scalars │ addresses of scratch memory │ sizes, strides, zero

and each kernel has an array of pointers into it, which the driver follows before a launch returns. The last
part never changes, so a call packs the front of the row and asks the driver once a kernel.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tilewright.compiler.targets.triton.driver import (
    PACKING,
    SLOT_BYTES,
    LoadedKernel,
    bfloat16_bits,
    packing,
)
from tilewright.compiler.targets.triton.launch import Recipe, Step
from tilewright.compiler.targets.triton.parameters import POINTER, SCALAR, Parameter
from tilewright.errors import ArgumentError
from tilewright.runtime import capturing
from tilewright.runtime.cuda import launches
from tilewright.runtime.cuda.pool import scratch
from tilewright.runtime.cuda.streams import Stream

ALIGNMENT = 16  # bytes: Triton loads wider vectors from addresses that are multiples of it
_OTHER_CONTEXT = {201, 400}
"""What the driver says of a launch in a thread whose context is none, or another device's."""

Numbers = Mapping[str, float | int]


class Queue:
    """The kernels of a recipe in a device's context, loaded for each way in which arrays are aligned.

    `names` are the operands in the order of a call's addresses, which those of the buffers follow.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], op: str, load: Any, card: Any):
        self.recipe = recipe
        buffers = [buffer.name for buffer, _ in recipe.buffers]
        self.places = (*names, *buffers, *(name for name, _ in recipe.inside))
        self.inside = tuple(buffers.index(result) for _, result in recipe.inside)
        """The numbers of the buffers whose addresses come last once more, for what lies inside of them."""
        self.op = op
        self.card = card
        self._load = load
        self._aligned: Launches | None = None
        """For arrays that all lie at multiples of 16 bytes, as nearly all do."""
        self._others: dict[tuple[bool, ...], Launches] = {}

    def launch(self, addresses: Sequence[int], scalars: Numbers, stream: Stream) -> None:
        """Queue the kernels on a stream, for arrays at these addresses in the order of `places`."""
        together = 0
        for address in addresses:
            together |= address
        found = None if together % ALIGNMENT else self._aligned
        if found is None:
            found = self._launches(addresses)
        card = self.card
        if stream.recording is not None:
            found.start(addresses, scalars, stream)
            stream.recording.kernels += found.entries
            return
        number = launches.begin(self.op, card.ordinal, stream.handle, found.entries)
        found.start(addresses, scalars, stream)
        card.progress.finish(number, stream.handle)
        if card.is_blocking:
            stream.synchronize()

    def _launches(self, addresses: Sequence[int]) -> Launches:
        lies = tuple([address % ALIGNMENT == 0 for address in addresses])
        found = self._others.get(lies)
        if found is None:
            aligned = frozenset(name for name, even in zip(self.places, lies, strict=True) if even)
            steps = [step.suited(aligned) for step in self.recipe.steps]
            kernels = [self._load(step, aligned & step.operands) for step in steps]
            found = self._others[lies] = Launches(self.places, steps, kernels, self)
            if all(lies):
                self._aligned = found
        return found


@dataclass(frozen=True)
class _Scalar:
    """A number that a call gives, and how `struct` packs it."""

    name: str
    type: str

    @property
    def code(self) -> str:
        return packing([(self.name, self.type)], 0).format[1:]


class Launches:
    """Kernels with all that their launches need but addresses and scalars."""

    def __init__(
        self, places: Sequence[str], steps: Sequence[Step], kernels: Sequence[LoadedKernel], queue: Queue
    ):
        self.kernels = tuple(kernels)
        self.entries = tuple(kernel.artefact.entry for kernel in kernels)
        self.op, self.card = queue.op, queue.card
        self._scalars = tuple(
            dict.fromkeys(_Scalar(p.of, p.type) for s in steps for p in s.parameters if p.kind == SCALAR)
        )
        self._scalar_names = tuple(scalar.name for scalar in self._scalars)
        self._rounded = tuple(n for n, scalar in enumerate(self._scalars) if scalar.type == "bf16")
        self._scratch = tuple(
            (number, position, size)
            for number, (step, kernel) in enumerate(zip(steps, kernels, strict=True))
            for position, size in enumerate(kernel.scratch_bytes((step.grid,)))
            if size
        )
        codes = "".join(scalar.code for scalar in self._scalars)
        self._front = struct.Struct(f"<{len(places)}Q{codes}{len(self._scratch)}Q")
        self._row = _Row(self, places, steps)

    def start(self, addresses: Sequence[int], scalars: Numbers, stream: Stream) -> None:
        """Queue all kernels on a stream."""
        values = self._values(scalars) if self._scalars else ()
        if not self._scratch:
            self._enter(addresses, values, stream.handle)
            return
        with ExitStack() as stack:
            memory = [stack.enter_context(scratch(stream, size)) for _, _, size in self._scratch]
            self._enter(addresses, [*values, *memory], stream.handle)

    def _values(self, scalars: Numbers) -> list[float | int]:
        values = [scalars[name] for name in self._scalar_names]
        for index in self._rounded:
            values[index] = bfloat16_bits(values[index])
        function = capturing.running()
        if function is not None:
            for scalar, value in zip(self._scalars, values, strict=True):
                function.note(f"op {self.op!r}: {scalar.name}", value)
        return values

    def _enter(self, addresses: Sequence[int], values: Sequence[float | int], handle: int) -> None:
        row = self._row
        try:
            self._front.pack_into(row.slots, 0, *addresses, *values)
        except (struct.error, OverflowError) as error:
            raise ArgumentError(f"kernel {self.entries[0]!r}: {error}; {self._typed(values)}") from error
        for start, head, tail in row.starts:
            code = start(*head, handle, *tail)
            if code[0]:
                self._again(code, start, (*head, handle, *tail))

    def _again(self, code: Any, start: Any, arguments: tuple[Any, ...]) -> None:
        """Once more in the device's own context, if it was another's that was current; else the error."""
        if int(code[0]) in _OTHER_CONTEXT:
            self.card.activate()
            code = start(*arguments)
        if code[0]:
            function = arguments[0]
            kernel = next(kernel for kernel in self.kernels if kernel.function is function)
            kernel.explain(code, arguments[1:4])

    def _typed(self, values: Sequence[Any]) -> str:
        pairs = zip(self._scalars, values, strict=False)
        return ", ".join(f"{scalar.name}: {scalar.type} = {value!r}" for scalar, value in pairs)

    # --- the row of slots -----------------------------------------------------------------------------------

    def slots_of(self, places: Sequence[str], steps: Sequence[Step]) -> tuple[list[list[int]], bytes]:
        """For each kernel the slots of its arguments; and the bytes of those that never change."""
        found: dict[Any, int] = {place: n for n, place in enumerate(places)}
        found |= {scalar: len(found) + n for n, scalar in enumerate(self._scalars)}
        found |= {part[:2]: len(found) + n for n, part in enumerate(self._scratch)}
        constants = bytearray()

        def slot(key: Any, code: str, value: int) -> int:
            if key not in found:
                found[key] = len(found)
                constants.extend(struct.pack(f"<{code}", value).ljust(SLOT_BYTES, b"\0"))
            return found[key]

        def argument(step: Step, parameter: Parameter) -> int:
            if parameter.kind == POINTER:
                return found[parameter.of]
            if parameter.kind == SCALAR:
                return found[_Scalar(parameter.of, parameter.type)]
            value = step.integers[parameter.name]
            return slot((parameter.type, value), PACKING[parameter.type], value)

        rows = []
        for number, (step, kernel) in enumerate(zip(steps, self.kernels, strict=True)):
            given = [argument(step, parameter) for parameter in step.parameters]
            hidden = range(kernel.artefact.hidden_parameters)
            given += [found.get((number, n), -1) for n in hidden]
            rows.append([slot(None, "Q", 0) if n < 0 else n for n in given])
        return rows, bytes(constants)


class _Row(threading.local):
    """One thread's row of slots, and for each kernel the array of pointers into it, ready to be launched."""

    def __init__(self, of: Launches, places: Sequence[str], steps: Sequence[Step]):
        rows, constants = of.slots_of(places, steps)
        front = of._front.size
        self.slots = bytearray(bytes(front) + constants)
        self._held = (ctypes.c_char * len(self.slots)).from_buffer(self.slots)
        start = ctypes.addressof(self._held)
        self._arrays = [
            (ctypes.c_void_p * max(1, len(row)))(*(start + SLOT_BYTES * slot for slot in row)) for row in rows
        ]
        self.starts = tuple(
            (kernel.start, kernel.head((step.grid,)), (ctypes.addressof(array), *kernel.tail))
            for step, kernel, array in zip(steps, of.kernels, self._arrays, strict=True)
        )
        """For each kernel the driver's function, and its arguments before and behind the stream."""


def loader(target: Any, ordinal: int, compile_step: Any) -> Any:
    """What loads a step's kernel into a device's context, each once for all recipes that have it."""
    kernels: dict[tuple, LoadedKernel] = {}

    def load(step: Step, aligned: frozenset[str]) -> LoadedKernel:
        key = (step.emitted.text, step.schedule, step.divisible_by_16(aligned))
        found = kernels.get(key)
        if found is None:
            found = kernels[key] = LoadedKernel(compile_step(step, target, aligned), ordinal)
        return found

    return load
