"""A Plan on the CPU: its kernels, specialised by layout and compiled, and the recipes that run them."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tilewright.compiler.chunks import chunk_extent, is_chunk_axis
from tilewright.compiler.in_place import Out, replaceable
from tilewright.compiler.joined import Call, joined
from tilewright.compiler.long_rows import cut
from tilewright.compiler.nest import Kernel, Plan, indexed_reads
from tilewright.compiler.one_chunk import in_one_chunk
from tilewright.compiler.pipeline import lower
from tilewright.compiler.placed import placed, written_in_place
from tilewright.compiler.plain_reads import with_plain_reads
from tilewright.compiler.slender import reshaped
from tilewright.compiler.targets.cpu import frame, loading, toolchain
from tilewright.compiler.targets.cpu.contractions.grouped import OfTaps, grouped, of_taps
from tilewright.compiler.targets.cpu.contractions.padded import padded
from tilewright.compiler.targets.cpu.contractions.reading.setting import Setting
from tilewright.compiler.targets.cpu.contractions.reordered import Reordered, reordered
from tilewright.compiler.targets.cpu.contractions.staged import Turned, staged, turned
from tilewright.compiler.targets.cpu.contractions.walk import Walk
from tilewright.compiler.targets.cpu.emit import emit, is_plain
from tilewright.compiler.targets.cpu.layout import Layout, bytes_of, layout_of, normal_strides
from tilewright.compiler.targets.cpu.objects import compiled_kernel, compiled_slice_loop, locks
from tilewright.compiler.targets.cpu.recipe import (
    NOTHING,
    CompiledKernel,
    Places,
    Recipe,
    Scalars,
    Step,
    lies_as,
    plain_entry,
    span,
)
from tilewright.compiler.targets.cpu.registers import registers_of
from tilewright.compiler.targets.cpu.rows.along_rows import along_rows
from tilewright.compiler.targets.cpu.schedule import Schedule, default_schedule
from tilewright.compiler.targets.cpu.slices import (
    Planned,
    Sliced,
    Slicing,
    each_step,
    order_of_sums,
    slicing,
    with_own,
)
from tilewright.compiler.targets.cpu.windows.slides import as_window, of_small_groups
from tilewright.compiler.targets.cpu.work import streams, work_items, workers_for
from tilewright.compiler.unmoved import read_as_it_lies, unmoved
from tilewright.dsl.axes import base
from tilewright.dsl.empty import without_empty_axes
from tilewright.dsl.extents import bind_extents
from tilewright.dsl.program import Program
from tilewright.dsl.text import to_text
from tilewright.runtime.choices import Choices, choices
from tilewright.runtime.precision import EXACT
from tilewright.runtime.recent import Recent

MAX_RECIPES = 256
MAX_OBJECTS = 64  # whose texts are remembered

Arrays = Mapping[str, np.ndarray]
Choose = Callable[[Kernel, Layout, toolchain.CpuTarget, bool], Schedule]


class CpuExecutable:
    """A Program on the CPU; `run` is safe to call from several threads."""

    def __init__(
        self, plan: Plan, target: toolchain.CpuTarget | None = None, choose: Choose = default_schedule
    ):
        self.plan = plan
        self.choose = choose
        self.target = target or toolchain.host()
        self._text = to_text(plan.program)
        self._kernel_names = _kernel_names(plan)  # plans of one Program differ by the kernels that they have
        self._names = tuple(p.name for p in plan.program.tiles)
        self._replaceable = replaceable(plan)
        self._kernels: dict[tuple, CompiledKernel] = {}
        self._recipes: Recent[tuple, Recipe] = Recent(MAX_RECIPES)
        self._others: dict[tuple[Program, str], CpuExecutable] = {}
        self._whole: dict[str, CpuExecutable] = {}

    def run(
        self, arguments: Arrays, scalars: Scalars | None = None, out: Out | None = None
    ) -> tuple[np.ndarray, ...]:
        """The results for operands whose dtypes are the Program's; shapes are checked, strides are free.

        `out` holds for each result None or an array of its shape and dtype to write it to, which may share
        memory with operands: all of them are read as they were before.
        """
        operands = [arguments[name] for name in self._names]
        recipe = self.recipe(operands, out is None)
        scalars = scalars or NOTHING
        return recipe.run(operands, scalars) if out is None else recipe.run_into(operands, scalars, out)

    def prepared(
        self, operands: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]] | None = None
    ) -> Prepared:
        """`run` for operands that lie as these do, in the order of the Program's. `shapes` are those in which
        fresh results are wanted, the Program's unless told.
        """
        return Prepared(self, operands, shapes)

    # --- recipes ----------------------------------------------------------------------------------

    def recipe(self, operands: Sequence[np.ndarray], fresh: bool, now: Choices | None = None) -> Recipe:
        """The recipe for operands like these, whose results go to `fresh` memory or are given it."""
        now = now or choices()
        layout = [x for a in operands for x in (a.shape, a.strides)]
        key = (now, fresh, *layout)
        recipe = self._recipes.get(key)
        if recipe is None:
            definition = self.plan.definition
            shapes = {n: a.shape for n, a in zip(self._names, operands, strict=True)}
            extents = bind_extents(definition, shapes)
            executable = self._for(without_empty_axes(definition, extents), accuracy=now[1])
            recipe = self._recipes[key] = executable._new_recipe(operands, extents, fresh)
        return recipe

    def _for(self, program: Program, accuracy: str) -> CpuExecutable:
        """The executable of the Program that a call runs: another one if it has an empty axis, or if another
        accuracy was chosen.
        """
        same = program == self.plan.definition
        if same and accuracy == EXACT:
            return self
        found = self._others.get((program, accuracy))
        if found is None:
            plan = self.plan if same else lower(program)
            choose = functools.partial(_at_accuracy, self.choose, accuracy)
            found = self._others[program, accuracy] = CpuExecutable(plan, self.target, choose)
        return found

    def _of(self, plan: Plan) -> CpuExecutable:
        """The executable of a plan of the same Program."""
        names = _kernel_names(plan)
        found = self._whole.get(names)
        if found is None:
            found = self._whole[names] = CpuExecutable(plan, self.target, self.choose)
        return found

    def _new_recipe(self, operands: Sequence[np.ndarray], extents: dict[str, int], fresh: bool) -> Recipe:
        for kernel in self.plan.kernels:
            for axis in kernel.axes():
                if is_chunk_axis(axis):
                    extents[axis] = chunk_extent(axis, extents)
        whole = in_one_chunk(self.plan, extents)
        if whole is not self.plan:
            return self._of(whole)._new_recipe(operands, extents, fresh)
        in_place, inside = self._in_place(operands, extents)
        inside = {**unmoved(self.plan, extents), **inside}
        places = self._places(operands, extents, inside)
        steps = self._steps(places, extents, inside, in_place, fresh)
        made = [(places.shapes[b.name], b.dtype.numpy) for b in places.buffers]
        steps, made = with_own(steps, made, len(operands), len(self.plan.results))
        return Recipe(
            tuple(steps),
            tuple(made),
            len(self.plan.results),
            (*map(span, operands), *((0, bytes_of(places.shapes[b.name], b.dtype)) for b in places.buffers)),
            frozenset(
                (places.number[result.name], position)
                for result in self.plan.results
                for position, operand in enumerate(operands)
                if (result.name, self._names[position]) in self._replaceable
                and result.name not in inside.values()  # else it is written earlier than it seems
                and lies_as(operand, places.shapes[result.name], result.dtype)
            ),
            plain_entry(steps, len(operands), made),
        )

    def _in_place(
        self, operands: Sequence[np.ndarray], extents: Mapping[str, int]
    ) -> tuple[dict[str, Kernel], dict[str, str]]:
        """Kernels of windows that write what they compute where it belongs, by the names of those that do
        not; and what these write, and the results that it belongs to.
        """
        found = placed(self.plan, extents)
        places = self._places(operands, extents, {})
        kernels: dict[str, Kernel] = {}
        inside: dict[str, str] = {}
        for kernel in self.plan.kernels if found else ():
            changed = written_in_place(kernel, found)
            changed = as_window(changed, extents) if changed is not kernel else None
            if changed is not None and not self._is_grouped(kernel, places, extents):
                kernels[kernel.name] = changed
                names = (output.buffer.name for output in kernel.outputs)
                inside |= {name: found[name].buffer.name for name in names if name in found}
        return kernels, inside

    def _places(
        self, operands: Sequence[np.ndarray], extents: Mapping[str, int], inside: Mapping[str, str]
    ) -> Places:
        """Where operands and results lie, and what is between kernels, some of it `inside` of results."""
        dtypes = {p.name: p.dtype for p in self.plan.program.tiles}
        places = Places({}, {}, {}, [])
        for name, operand in zip(self._names, operands, strict=True):
            places.add(name, operand.shape, normal_strides(operand.shape, operand.strides, dtypes[name]))
        for buffer in (*self.plan.results, *self.plan.intermediates):
            places.add_buffer(buffer, extents, inside.get(buffer.name))
        return places

    def _steps(
        self,
        places: Places,
        extents: dict[str, int],
        inside: Mapping[str, str],
        in_place: Mapping[str, Kernel],
        fresh: bool,
    ) -> list[Step | Sliced]:
        """The steps of all kernels, and of the copies that they read and that turn their results."""
        steps: list[Step | Sliced] = []
        waiting: list[Turned] = []
        for n, kernel in enumerate(self.plan.kernels):
            if kernel.outputs[0].buffer.name in inside.values():
                continue
            kernel = in_place.get(kernel.name, kernel)
            kernel = functools.reduce(lambda k, t: t.read_by(k), waiting, kernel)
            kernel = with_plain_reads(reshaped(kernel, extents), extents)
            kernel = self._as_it_lies(kernel, places, extents)
            kernel, order, taps = self._of_groups(kernel, places, extents)
            chunked = cut(kernel, places.strides, extents)
            if chunked is not None:
                extents[chunked.axis] = chunk_extent(chunked.axis, extents)
                for buffer in chunked.between:
                    places.add_buffer(buffer, extents)
                for part, piece in enumerate(chunked.kernels):
                    steps += self._step(Planned(piece, f"{n}: piece {part}", places), extents, fresh)
                continue
            kernel, group = (kernel, []) if taps else self._with_zeros(kernel, n, places, extents)
            turn = None
            if not group:
                kernel, group, turn = self._reordered(kernel, order, n, places, extents)
            setting = self._setting(kernel, places, extents)
            copies = taps.copies if taps else staged(kernel, setting)
            copies = copies or along_rows(kernel, places.strides, extents)
            for copy in copies:
                name = copy.buffer.name
                if name not in places.number:  # else an earlier kernel reads it too
                    places.add_buffer(copy.buffer, extents)
                    group.append(Planned(copy.kernel(kernel.name), f"{n}: {name}", places))
            turn = turn or (taps.turned if taps else turned(kernel, copies, setting))
            if turn is not None and turn.buffer.name not in inside:
                kernel = turn.written_by(kernel)
                waiting.append(turn)
                places.add_buffer(turn.along, extents, self._memory_for(turn))
            own = functools.reduce(
                lambda p, c: p.instead(c.param.name, c.buffer.name, c.order), copies, places
            )
            kernel = grouped(kernel, self._setting(kernel, own, extents))
            group.append(Planned(kernel, f"{n}: {kernel.outputs[0].buffer.axes}", own))
            if turn in waiting and turn.buffer in self.plan.results:
                group.append(Planned(turn.kernel(kernel.name), f"{n}: turned", places))
            steps += self._group(group, extents, fresh)
        return steps

    def _as_it_lies(self, kernel: Kernel, places: Places, extents: Mapping[str, int]) -> Kernel:
        """A kernel that only copies what is between kernels, reading it as it lies where it can."""
        found = read_as_it_lies(kernel, extents)
        if found is None:
            return kernel
        changed, buffer, source = found
        if source in {*self._names, buffer.name} or buffer.name in places.number:
            return kernel
        places.add_buffer(buffer, extents, source)
        return changed

    def _is_grouped(self, kernel: Kernel, places: Places, extents: Mapping[str, int]) -> bool:
        return grouped(kernel, self._setting(kernel, places, extents)) is not kernel

    def _setting(self, kernel: Kernel, places: Places, extents: Mapping[str, int]) -> Setting:
        """What decides how the sides of a kernel are read."""
        return Setting(places.strides, extents, registers_of(kernel, self.target))

    def _of_groups(
        self, kernel: Kernel, places: Places, extents: Mapping[str, int]
    ) -> tuple[Kernel, Reordered | None, OfTaps | None]:
        """Copies by which vectors are full of several groups, unless operands lie so. A kernel without any is
        one of rows.
        """
        if self._is_grouped(kernel, places, extents):
            return kernel, None, None
        setting = self._setting(kernel, places, extents)
        order, taps = reordered(kernel, setting), of_taps(kernel, setting)
        if order is taps is None:
            kernel = of_small_groups(kernel, extents, setting.registers.lanes)
        return kernel, order, taps

    def _with_zeros(
        self, kernel: Kernel, position: int, places: Places, extents: dict[str, int]
    ) -> tuple[Kernel, list[Planned]]:
        """The kernel, reading an operand with zeros around it where that pays, and the one that makes it."""
        wide = padded(kernel, self._setting(kernel, places, extents))
        if wide is None:
            return kernel, []
        name = wide.buffer.name
        if name in places.number:  # an earlier kernel reads it too
            return wide.read_by(kernel), []
        extents |= wide.extents(extents)
        places.add_buffer(wide.buffer, extents)
        copy = Planned(wide.kernel(kernel.name), f"{position}: {name}", wide.in_lines(places))
        return wide.read_by(kernel), [copy]

    def _reordered(
        self, kernel: Kernel, copy: Reordered | None, position: int, places: Places, extents: dict[str, int]
    ) -> tuple[Kernel, list[Planned], Turned | None]:
        """The kernel, reading the copy if there is one, the kernel that makes that, and the kernel's result
        before it is turned.
        """
        if copy is None:
            return kernel, [], None
        name = copy.buffer.name
        planned = []
        if name not in places.number:  # else an earlier kernel reads it too
            places.add_buffer(copy.buffer, extents)
            planned = [Planned(copy.kernel(kernel.name), f"{position}: {name}", places)]
        buffer = kernel.outputs[0].buffer
        there = placed(self.plan, extents).get(buffer.name)
        return copy.read_by(kernel), planned, copy.turned(buffer, there.order if there else buffer.axes)

    def _group(
        self, group: Sequence[Planned], extents: Mapping[str, int], fresh: bool
    ) -> list[Step | Sliced]:
        """The steps of kernels that follow each other, slice by slice where that pays."""
        together = {a for planned in group if len(group) > 1 for a in self._together(planned, extents)}
        cut = slicing(group, extents, together)
        if cut is not None and self._keeps_order(group, cut, extents):
            parts = [planned for planned in group if planned.writes_along(cut.axis)]
            workers = max(workers_for(planned.kernel, extents) for planned in parts)
            if cut.suits(workers):
                once = [planned for planned in group if planned not in parts]
                steps = [step for planned in once for step in self._step(planned, extents, fresh)]
                return [*steps, self._sliced(parts, cut, extents, fresh, workers)]
        return [step for planned in group for step in self._step(planned, extents, fresh)]

    def _sliced(
        self, parts: Sequence[Planned], cut: Slicing, extents: Mapping[str, int], fresh: bool, workers: int
    ) -> Sliced:
        """Kernels slice by slice, on so many threads."""
        one = {**extents, base(cut.axis): cut.length}
        steps: list[Step] = []
        for planned in parts:
            slices = cut.count if planned is parts[-1] else 1  # the others' results are read at once
            steps += self._step(planned.part(cut.axis, cut.length), one, fresh, slices, 1)
        apart = [planned.apart(cut.axis, cut.length) for planned in parts]
        with locks.kernels:
            loop = compiled_slice_loop(self.target)
        return Sliced.of(cut, steps, apart, workers, loop)

    def _keeps_order(self, group: Sequence[Planned], cut: Slicing, extents: Mapping[str, int]) -> bool:
        """Whether sums of slices are of the same order as those of the whole."""
        one = {**extents, base(cut.axis): cut.length}
        for planned in group:
            whole, part = (
                self._order(planned, extents),
                self._order(planned.part(cut.axis, cut.length), one),
            )
            if whole != part:
                return False
        return True

    def _order(self, planned: Planned, extents: Mapping[str, int]) -> tuple[object, ...]:
        call, layout, schedule = self._chosen(planned, extents)
        return order_of_sums(call.kernel, schedule, layout, call.extents)

    def _together(self, planned: Planned, extents: Mapping[str, int]) -> tuple[str, ...]:
        """The axes along which the rows of a contraction leave their operand together."""
        if planned.kernel.contraction is None:
            return ()
        call, layout, schedule = self._chosen(planned, extents)
        return Walk.of(call.kernel, schedule, layout).together

    def _chosen(self, planned: Planned, extents: Mapping[str, int]) -> tuple[Call, Layout, Schedule]:
        places = planned.places
        call = joined(Call(planned.kernel, places.shapes, places.strides, extents))
        layout = layout_of(call.kernel, call.shapes, call.strides, call.extents, self.target)
        return call, layout, self.choose(call.kernel, layout, self.target, False)

    def _memory_for(self, turn: Turned) -> str | None:
        """The buffer in whose memory a turned one lies: that of an intermediate, which all readers turn."""
        return None if turn.buffer in self.plan.results else turn.buffer.name

    def _step(
        self,
        planned: Planned,
        extents: Mapping[str, int],
        fresh: bool,
        slices: int = 1,
        workers: int | None = None,
    ) -> list[Step]:
        """The step of a kernel, if it has anything to do: for one of so many `slices`, on so many threads."""
        places = planned.places
        call = joined(Call(planned.kernel, places.shapes, places.strides, extents))
        kernel, shapes, strides, extents = call.kernel, call.shapes, call.strides, call.extents
        layout = layout_of(kernel, shapes, strides, extents, self.target)
        stream = fresh and streams(kernel, layout, self.target, shapes, slices)
        compiled = self._compiled(kernel, planned.position, layout, stream)
        slots = compiled.frame
        template = array("q", bytes(8 * slots.padded_size))
        workers = workers or workers_for(kernel, extents)
        items, sizes, workspace = work_items(compiled, self.target, extents, workers)
        if items == 0:
            return []
        workers = max(1, min(workers, items))
        template[frame.THREADS], template[frame.ITEMS], template[frame.WORKSPACE_BYTES] = (
            workers,
            items,
            workspace,
        )
        template[frame.SIZES : frame.SIZES + len(sizes)] = array("q", sizes)
        for axis, slot in slots.extent_slot.items():
            template[slot] = extents[axis]
        for (name, _), slot in slots.operand_slot.items():
            for dimension, stride in enumerate(strides[name]):
                template[slot + 1 + dimension] = stride
        scalars = tuple((slots.scalar_slot[p.name], p.name, p.dtype) for p in kernel.scalars)
        arrays = tuple(places.number[name] for name, _ in slots.operand_slot)
        filled = tuple(slots.operand_slot.values())
        return [Step(compiled, template, arrays, filled, scalars, workspace * workers, workers, extents)]

    # --- compiling --------------------------------------------------------------------------------

    def _compiled(self, kernel: Kernel, position: str, layout: Layout, stream: bool) -> CompiledKernel:
        key = (position, kernel.row, kernel.single, indexed_reads(kernel), layout.text(), stream)
        found = self._kernels.get(key)
        if found is None:
            with locks.kernels:
                found = self._kernels.get(key)
                if found is None:
                    found = self._kernels[key] = self._compile(kernel, position, layout, stream)
        return found

    def _compile(self, kernel: Kernel, position: str, layout: Layout, stream: bool) -> CompiledKernel:
        schedule = self.choose(kernel, layout, self.target, stream)
        of = {"program": self._text, "plan": self._kernel_names, "kernel": position}
        return compiled_kernel(kernel, layout, schedule, self.target, of)

    def compiled(self, arguments: Arrays) -> tuple[CompiledKernel, ...]:
        """The kernels that operands like these run, in order; the operands' contents are not read."""
        return tuple(step.compiled for step in self.steps(arguments))

    def steps(self, arguments: Arrays) -> tuple[Step, ...]:
        """The same with all that a call of these operands decides: extents, threads, memory. Steps of slices
        are those of one.
        """
        return each_step(self.recipe([arguments[name] for name in self._names], fresh=True).steps)

    def source(self, compiled: CompiledKernel, language: str = "mlir") -> str:
        """The code of one kernel: "mlir", or what became of it as "llvm" or "asm"."""
        openmp = loading.openmp() is not None
        text = emit(compiled.kernel, compiled.layout, compiled.schedule, self.target, openmp)
        if language == "mlir":
            return text
        translate = {"llvm": toolchain.optimised_ir, "asm": toolchain.assembly}[language]
        return translate(text, self.target, is_plain(compiled.kernel, compiled.schedule))


def _at_accuracy(
    choose: Choose, accuracy: str, kernel: Kernel, layout: Layout, target: toolchain.CpuTarget, stream: bool
) -> Schedule:
    return replace(choose(kernel, layout, target, stream), accuracy=accuracy)


class Prepared:
    """An executable for operands that lie as certain ones do, which are not looked at again."""

    __slots__ = ("_executable", "_inside", "_latest", "_outside", "_recipes")

    def __init__(
        self,
        executable: CpuExecutable,
        operands: Sequence[np.ndarray],
        outside: Sequence[tuple[int, ...]] | None,
    ):
        self._executable = executable
        self._inside = [operand.shape for operand in operands]
        self._outside = outside
        self._recipes: dict[tuple[Choices, bool], Recipe] = {}
        self._latest: tuple[Choices, Recipe] | None = None  # for fresh results; threads see both or none

    def __call__(
        self, operands: Sequence[np.ndarray], scalars: Scalars = NOTHING, out: Out | None = None
    ) -> tuple[np.ndarray, ...]:
        now = choices()
        if out is not None:
            return self._found(now, operands, False).run_into(operands, scalars, out)
        latest = self._latest
        if latest is None or latest[0] != now:
            recipe = self._found(now, operands, True)
            latest = now, recipe if self._outside is None else recipe.shaped(self._outside)
            self._latest = latest
        return latest[1].run(operands, scalars)

    def repeated(self, operands: Sequence[np.ndarray], out: Out) -> Callable[..., None] | None:
        """The same call again, on these operands or others like them that lie elsewhere."""
        return self._found(choices(), operands, False).repeated(operands, out)

    def _found(self, now: Choices, operands: Sequence[np.ndarray], fresh: bool) -> Recipe:
        recipe = self._recipes.get((now, fresh))
        if recipe is None:
            inside = [o.reshape(shape) for o, shape in zip(operands, self._inside, strict=True)]
            recipe = self._recipes[now, fresh] = self._executable.recipe(inside, fresh, now)
        return recipe


@functools.lru_cache(maxsize=MAX_OBJECTS)
def _kernel_names(plan: Plan) -> str:
    return " ".join(kernel.name for kernel in plan.kernels)
