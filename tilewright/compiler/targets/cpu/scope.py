"""Evaluating nodes at a place in a loop nest.

A `Scope` knows the coordinate of every axis that is bound so far and the values already computed there.
Along the lane axis a coordinate stands for consecutive positions, one a lane; values that do not vary
along it stay scalars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.compiler.nest import Output, needed
from tilewright.compiler.targets.cpu.builder import I64, PTR, STORAGE_FLOATS, Builder, Type, Value
from tilewright.compiler.targets.cpu.coordinates import Coordinate, Flat, Lanes, Spaced, Step
from tilewright.compiler.targets.cpu.frame import Frame
from tilewright.compiler.targets.cpu.layout import (
    STRIDED,
    UNIT,
    WIDEST_GAP,
    ZERO,
    Layout,
    elements_apart,
)
from tilewright.compiler.targets.cpu.picked_lanes import merged, spaced_lanes, spread
from tilewright.compiler.targets.cpu.picked_reads import read_picked
from tilewright.compiler.targets.cpu.spelling import (
    convert,
    expansion,
    from_memory,
    memory_kind,
    spell,
    to_memory,
    value_type,
)
from tilewright.compiler.targets.cpu.toolchain import FREE_MASKS
from tilewright.dsl.affine import affine
from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType
from tilewright.dsl.program import At, Cast, Const, Index, Map, Node, Read, Reduce, Scan, Size
from tilewright.errors import InternalError

WIDEST_WALK = 4  # elements from lane to lane where positions are computed: as for a WIDEST_GAP
LONGEST_PREFETCH = 128 << 10  # bytes: two rows of each operand must fit in the second cache
PREFETCH_LEAD = 1 << 10  # bytes beyond the same place of the next row, whose start is soon needed


@dataclass(frozen=True)
class Operand:
    """An operand's address, and of each dimension the stride and its class."""

    pointer: Value
    strides: tuple[Value, ...]
    classes: str


@dataclass
class Loaded:
    """What a kernel's function reads from its frame once."""

    extents: dict[str, Value]
    operands: dict[tuple[str, bool], Operand]
    scalars: dict[str, Value]


def load_frame(b: Builder, pointer: Value, frame: Frame, layout: Layout) -> Loaded:
    def slot(position: int, type: Type = I64) -> Value:
        return b.load(b.offset(pointer, 8 * position), type)

    def stride(position: int, kind: str, size: int) -> Value:
        """A constant where the layout says it: addresses are then a pointer and a displacement."""
        if kind.isdigit():
            return b.constant(elements_apart(kind) * size, I64)
        return slot(position)

    known = {**layout.windows.known, **layout.sides.known}
    extents = {
        axis: b.constant(known[axis], I64) if axis in known else slot(at)
        for axis, at in frame.extent_slot.items()
    }
    read = {p.name: p.dtype for p in frame.kernel.tiles}
    written = {o.buffer.name: o.buffer.dtype for o in frame.kernel.outputs}
    lying = {o.buffer.name: _contiguous(o.buffer.axes, frame.kernel.single) for o in frame.kernel.outputs}
    operands = {}
    for (name, is_written), at in frame.operand_slot.items():
        classes = lying[name] if is_written else layout.classes[name]
        size = (written if is_written else read)[name].numpy.itemsize
        strides = tuple(stride(at + 1 + d, kind, size) for d, kind in enumerate(classes))
        operands[name, is_written] = Operand(slot(at, PTR), strides, classes)
    scalars = {}
    for param in frame.kernel.scalars:
        at = frame.scalar_slot[param.name]
        if param.dtype.is_float:
            scalars[param.name] = b.convert(slot(at, Type("f64")), param.dtype.short)
        else:
            scalars[param.name] = b.convert(slot(at), value_type(param.dtype).kind)
    return Loaded(extents, operands, scalars)


def _contiguous(axes: Sequence[str], single: Sequence[str]) -> str:
    """The classes of a result's dimensions: it lies along the last one, but for those of one position."""
    last = max((n for n, axis in enumerate(axes) if axis not in single), default=len(axes) - 1)
    return "".join(UNIT if n >= last else STRIDED for n in range(len(axes)))


@dataclass
class Scope:
    """What is known at a place. `straight`: vectors that are partly outside of an operand are read under
    masks, where else a branch would ask first whether any of it is inside.
    """

    b: Builder
    loaded: Loaded
    layout: Layout
    lanes: int
    coordinates: dict[str, Coordinate] = field(default_factory=dict)
    mask: Value | None = None
    stream: bool = False
    values: dict[Node, Value] = field(default_factory=dict)
    flat: Flat | None = None
    straight: bool = False

    def child(self, coordinates: Mapping[str, Coordinate], mask: Value | None = None) -> Scope:
        """A scope inside this one, with more axes bound."""
        return Scope(
            self.b,
            self.loaded,
            self.layout,
            self.lanes,
            {**self.coordinates, **coordinates},
            mask if mask is not None else self.mask,
            self.stream,
            dict(self.values),
            self.flat,
            self.straight,
        )

    def extent(self, axis: str) -> Value:
        return self.loaded.extents[base(axis)]

    # --- values -----------------------------------------------------------------------------------

    def evaluate(self, root: Node) -> Value:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.values:
                stack.pop()
                continue
            expanded = expansion(node) if isinstance(node, Map) else None
            wanted = (
                (expanded,)
                if expanded is not None
                else ()
                if isinstance(node, (Reduce, Scan))
                else needed(node)
            )
            missing = [a for a in wanted if a not in self.values]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            self.values[node] = self.values[expanded] if expanded is not None else self._evaluate(node)
        return self.values[root]

    def hoist(self, roots: Iterable[Node], varying: frozenset[str]) -> None:
        """Compute here, once, what the loops over the `varying` axes would compute again and again."""
        stack, seen = list(roots), set()
        while stack:
            node = stack.pop()
            if node in seen or node in self.values:
                continue
            seen.add(node)
            if not varying & set(node.axes):
                self.evaluate(node)
            else:
                stack.extend(needed(node))

    def _evaluate(self, node: Node) -> Value:
        match node:
            case Const():
                return self.b.constant(node.value, value_type(node.dtype))
            case Read():
                return self.read(node)
            case At():
                return self.read_at(node)
            case Index():
                return self.position(node.axis)
            case Size():
                return self.extent(node.axis)
            case Cast():
                return convert(self.b, self.values[node.arg], node.arg.dtype, node.dtype)
            case Map():
                return spell(self.b, node, [self.values[a] for a in node.operands])
        raise InternalError(f"a value was needed before it was computed: {node!r}")

    def position(self, axis: str) -> Value:
        """The coordinate along an axis as an int64 value, a vector along the lane axis."""
        coordinate = self.coordinates[axis]
        if isinstance(coordinate, Value):
            return coordinate
        if coordinate.positions is not None:
            return coordinate.positions
        assert coordinate.first is not None
        return self.b.add(coordinate.first, self.b.mul(self.b.iota(I64.vector(self.lanes)), coordinate.apart))

    def full(self, value: Value) -> Value:
        """The value in every lane."""
        return self.b.splat(value, self.lanes) if not value.lanes and self.lanes else value

    # --- memory -----------------------------------------------------------------------------------

    def read(self, node: Read) -> Value:
        if node.param in self.loaded.scalars:
            return self.loaded.scalars[node.param]
        operand = self.loaded.operands[node.param, False]
        return self._read_places(operand, self._places_of(node.param, node.names), node.dtype)

    def _places_of(self, name: str, axes: tuple[str, ...]) -> tuple[Coordinate, ...]:
        """The coordinates of what is read or written with these axes."""
        flat = self.flat
        if flat is None or (name, axes) not in flat.operands:
            return tuple(self.coordinates[axis] for axis in axes)
        here = {flat.outer: flat.base, flat.inner: Lanes(flat.first)}
        return tuple(here.get(axis) or self.coordinates[axis] for axis in axes)

    def _read_places(self, operand: Operand, places: Sequence[Coordinate], dtype: DType) -> Value:
        pointer, step = self.address(operand, places)
        if step is None:
            return self._load(pointer, dtype, 0)
        if isinstance(step, str) and step == UNIT:
            return self._load(pointer, dtype, self.lanes)
        if isinstance(step, Spaced):
            return self._load_spaced(pointer, dtype, step.apart)
        kind = _safe_kind(memory_kind(dtype))
        assert isinstance(step, Value)
        value = self.b.gather(pointer, step, Type(kind, self.lanes), mask=self.mask)
        return self._from_memory(value, dtype)

    def read_at(self, node: At) -> Value:
        """An operand at computed positions; nothing outside of it is touched."""
        picked = read_picked(self, node)
        if picked is not None:
            return picked
        straight, unbroken = self._around(node)
        if unbroken is None:
            return self._read_walking(node, {})
        with self.b.if_(unbroken, [value_type(node.dtype, self.lanes)]) as choice:
            choice.yield_(self.full(self._read_walking(node, straight)))
            choice.otherwise()
            choice.yield_(self.full(self._read_walking(node, {})))
        return choice.results[0]

    def _around(self, node: At) -> tuple[dict[str, Coordinate], Value | None]:
        """The positions that go around from an axis' end to its beginning, as lanes that do not, and whether
        no lane does; None of other reads.
        """
        b, found = self.b, dict[str, Coordinate]()
        unbroken: Value | None = None
        for axis, position in zip(node.along, node.positions, strict=True):
            lane = next((a for a in position.axes if isinstance(self.coordinates[a], Lanes)), None)
            coordinate = self.coordinates[lane] if lane else None
            if not isinstance(position, Map) or position.function != "mod" or lane is None:
                continue
            assert isinstance(coordinate, Lanes)
            whole, around = position.operands
            straight = affine(whole).step(lane) == 1 and lane not in around.axes
            if not straight or coordinate.first is None or coordinate.apart != 1:
                continue
            start, extent = (self.at_first(n, lane, coordinate.first) for n in (position, around))
            found[axis] = Lanes(start)
            fits = b.cmp("le", b.add(start, self.lanes), extent)
            unbroken = fits if unbroken is None else b.and_(unbroken, fits)
        return found, unbroken

    def at_first(self, node: Node, lane: str, first: Value) -> Value:
        """A value in the first lane."""
        here = {**self.coordinates, lane: first}
        known = {n: v for n, v in self.values.items() if lane not in n.axes and not v.lanes}
        return Scope(self.b, self.loaded, self.layout, 0, here, values=known).evaluate(node)

    def _read_walking(self, node: At, known: Mapping[str, Coordinate]) -> Value:
        """An operand at computed positions, some of which are known."""
        operand, places, walks = self.places_at(node, known)
        if self.straight and isinstance(self.address(operand, places)[1], (str, Spaced)):
            return self._read_straight(operand, places, walks, node.dtype)
        lanes = {axis: walk for axis, walk in walks.items() if isinstance(walk, Lanes)}
        inside = self._inside({axis: walk for axis, walk in walks.items() if axis not in lanes})
        if inside is None:
            return self._read_lanes(operand, places, self._inside(lanes), node.dtype)
        _, step = self.address(operand, places)
        type = value_type(node.dtype, self.lanes if step is not None or lanes else 0)
        with self.b.if_(inside, [type]) as choice:
            choice.yield_(self._read_lanes(operand, places, self._inside(lanes), node.dtype))
            choice.otherwise()
            choice.yield_(self.b.constant(0, type))
        return choice.results[0]

    def _read_straight(
        self, operand: Operand, places: tuple[Coordinate, ...], walks: Mapping[str, Coordinate], dtype: DType
    ) -> Value:
        """Vectors of an operand under the mask of what is inside, without a branch."""
        b = self.b
        apart = {axis: walk for axis, walk in walks.items() if isinstance(walk, Lanes)}
        mask, inside = self._inside(apart), self._inside({a: w for a, w in walks.items() if a not in apart})
        mask = self.mask if mask is None else mask if self.mask is None else b.and_(self.mask, mask)
        pointer, step = self.address(operand, places)
        if isinstance(step, Spaced):
            return replace(self, mask=mask)._load_spaced(pointer, dtype, step.apart, inside)
        if inside is not None:
            inside = self.full(inside)
            mask = inside if mask is None else b.and_(mask, inside)
        return replace(self, mask=mask)._read_places(operand, places, dtype)

    def _read_lanes(
        self, operand: Operand, places: tuple[Coordinate, ...], inside: Value | None, dtype: DType
    ) -> Value:
        """An operand in those lanes that are inside, 0 in the others."""
        if inside is None:
            return self._read_places(operand, places, dtype)
        _, step = self.address(operand, places)
        if step is None:
            one = self._if_inside(self.b.any(inside), operand, places, dtype)
            zero = self.b.constant(0, value_type(dtype, self.lanes))
            return self.b.select(inside, self.full(one), zero)
        mask = inside if self.mask is None else self.b.and_(self.mask, inside)
        some = replace(self, mask=mask)
        if isinstance(step, str):
            return some._read_places(operand, places, dtype)
        return some._if_inside(self.b.any(mask), operand, places, dtype)  # lanes are visited one by one

    def places_at(
        self, node: At, known: Mapping[str, Coordinate] | None = None
    ) -> tuple[Operand, tuple[Coordinate, ...], dict[str, Coordinate]]:
        """What is read, where, and the positions that may be outside."""
        assert isinstance(node.arg, Read)
        known = known or {}
        positions = zip(node.along, node.positions, strict=True)
        walks = {axis: known.get(axis) or self.walk(position) for axis, position in positions}
        operand = self.loaded.operands[node.arg.param, False]
        places = tuple(walks.get(axis) or self.coordinates[axis] for axis in node.arg.names)
        proven = self.layout.inside.get(node, frozenset())
        return operand, places, {a: walk for a, walk in walks.items() if a not in proven}

    def addresses(self, node: Read | At) -> tuple[Value, Value | None]:
        """Where each lane reads, as integers, and which lanes are inside; None where all are."""
        operand, places, walks = self._found(node)
        pointer, steps = self.address(operand, places)
        assert isinstance(steps, Value)
        return self.b.add(self.b.integer(pointer), steps), self._inside(walks)

    def _found(self, node: Read | At) -> tuple[Operand, tuple[Coordinate, ...], Mapping[str, Coordinate]]:
        """What is read, where, and the positions that may be outside."""
        for position in needed(node):
            self.evaluate(position)
        if isinstance(node, At):
            return self.places_at(node)
        operand = self.loaded.operands[node.param, False]
        return operand, tuple(self.coordinates[axis] for axis in node.names), {}

    def inside(self, node: At, axes: Sequence[str]) -> Value:
        """Whether the positions along these axes are inside of the operand, a lane each if they differ."""
        walks: dict[str, Coordinate] = {}
        for axis, position in zip(node.along, node.positions, strict=True):
            if axis in axes:
                self.evaluate(position)
                walks[axis] = self.walk(position)
        inside = self._inside(walks)
        assert inside is not None
        return inside

    def lanes_inside(self, axis: str, lanes: Lanes) -> Value:
        """Which of the positions along an axis it has."""
        inside = self._inside({axis: lanes})
        assert inside is not None
        return inside

    def _if_inside(
        self, inside: Value, operand: Operand, places: Sequence[Coordinate], dtype: DType
    ) -> Value:
        """What is read there, or 0 without reading."""
        _, step = self.address(operand, places)
        type = value_type(dtype, self.lanes if step is not None else 0)
        with self.b.if_(inside, [type]) as choice:
            choice.yield_(self._read_places(operand, places, dtype))
            choice.otherwise()
            choice.yield_(self.b.constant(0, type))
        return choice.results[0]

    def walk(self, position: Node) -> Coordinate:
        """A position as a coordinate: consecutive along the lanes where one lane is one step."""
        lane = next((a for a in position.axes if isinstance(self.coordinates[a], Lanes)), None)
        if lane is None:
            return self.values[position]
        coordinate = self.coordinates[lane]
        assert isinstance(coordinate, Lanes)
        apart = affine(position).step(lane) or 0
        if coordinate.first is not None and coordinate.apart == 1 and 1 <= abs(apart) <= WIDEST_WALK:
            return Lanes(self.at_first(position, lane, coordinate.first), apart=apart)
        return Lanes(positions=self.values[position])

    def _inside(self, walks: Mapping[str, Coordinate]) -> Value | None:
        """Whether every position is inside its axis: one unsigned comparison each; None of none."""
        b = self.b
        inside: Value | None = None
        for axis, walk in walks.items():
            extent = self.extent(axis)
            if isinstance(walk, Lanes):
                position = walk.positions
                if position is None:
                    assert walk.first is not None
                    position = b.add(walk.first, b.mul(b.iota(I64.vector(self.lanes)), walk.apart))
                one = b.cmp("lt", position, b.splat(extent, self.lanes), signed=False)
            else:
                one = b.cmp("lt", walk, extent, signed=False)
            if inside is not None and one.lanes != inside.lanes:
                one, inside = self.full(one), self.full(inside)
            inside = one if inside is None else b.and_(inside, one)
        return inside

    def in_place(self, output: Output) -> tuple[Scope, Value | None]:
        """The scope in which an output is written where it belongs, and whether that is inside at all, as far
        as all lanes share it.
        """
        if not output.places:
            return self, None
        axes = output.buffer.axes
        for place in output.places:
            self.evaluate(place)
        walks = {axis: self.walk(place) for axis, place in zip(axes, output.places, strict=True)}
        proven = self.layout.windows.within.get(output.buffer.name, frozenset())
        asked = {axis: walk for axis, walk in walks.items() if axis not in proven}
        lanes = {axis: walk for axis, walk in asked.items() if isinstance(walk, Lanes)}
        mask = self._inside(lanes)
        if mask is not None and self.mask is not None:
            mask = self.b.and_(self.mask, mask)
        return self.child(walks, mask), self._inside({a: w for a, w in asked.items() if a not in lanes})

    def write(self, name: str, dtype: DType, axes: tuple[str, ...], value: Value) -> None:
        pointer, step = self.address_of(name, axes)
        value = self._to_memory(value, dtype)
        if step is None:
            self.b.store(value, pointer)
            return
        value = self.full(value)
        if isinstance(step, Spaced):
            apart = step.apart * dtype.numpy.itemsize
            step = self.b.lane_constant([lane * apart for lane in range(self.lanes)], I64.vector(self.lanes))
        if isinstance(step, Value) and self.mask is None:
            self._write_apart(value, pointer, step)
        elif isinstance(step, Value):
            self.b.scatter(value, pointer, step, mask=self.mask)
        elif self.mask is not None:
            self._write_some(value, pointer, self.mask)
        else:
            self.b.store(value, pointer, nontemporal=self.stream)

    def _write_some(self, value: Value, pointer: Value, mask: Value) -> None:
        """The lanes under a mask: all of them as they are where masks cost as much as ten stores."""
        b = self.b
        if b.target.vector_bits >= FREE_MASKS:
            b.store_masked(value, pointer, mask)
            return
        with b.if_(b.all(mask)) as choice:
            b.store(value, pointer)
            choice.otherwise()
            b.store_masked(value, pointer, mask)

    def _write_apart(self, value: Value, pointer: Value, step: Value) -> None:
        """Lane after lane: no slower than the instruction for it, on some machines several times faster."""
        for lane in range(self.lanes):
            self.b.store(self.b.extract(value, lane), self.b.offset(pointer, self.b.extract(step, lane)))

    def accumulate(self, name: str, dtype: DType, axes: tuple[str, ...], step: str, value: Value) -> None:
        """Combine a value into a buffer that this thread alone works on."""
        pointer, stride = self.address_of(name, axes)
        if stride is None or stride == UNIT:
            old = self._load(pointer, dtype, 0 if stride is None else self.lanes)
        else:
            assert isinstance(stride, Value)
            kind = _safe_kind(memory_kind(dtype))
            old = self._from_memory(
                self.b.gather(pointer, stride, Type(kind, self.lanes), mask=self.mask), dtype
            )
        self.cached().write(name, dtype, axes, self.b.combine(step, old, value, signed=dtype.kind == "int"))

    def cached(self) -> Scope:
        """The same place, whose writes stay in the caches: they are read again, and lie anywhere."""
        return replace(self, stream=False)

    def prefetch(self, node: Read, axis: str) -> None:
        """Ask for what the next position along `axis` will read where this one reads whole vectors."""
        operand = self.loaded.operands.get((node.param, False))
        if operand is None or axis not in node.names or len(set(node.names)) != len(node.names):
            return
        pointer, step = self.address(operand, tuple(self.coordinates[name] for name in node.names))
        if isinstance(step, str) and step == UNIT:
            ahead = operand.strides[node.names.index(axis)]
            near = self.b.cmp("le", ahead, LONGEST_PREFETCH)  # else it would be gone when it is needed
            distance = self.b.select(near, self.b.add(ahead, PREFETCH_LEAD), self.b.constant(0, I64))
            self.b.prefetch(self.b.offset(pointer, distance))

    def prefetch_along(self, node: Read, distance: int) -> None:
        """Ask for what lies so many bytes behind a whole vector that is read here."""
        operand = self.loaded.operands.get((node.param, False))
        if operand is None:
            return
        pointer, step = self.address(operand, tuple(self.coordinates[name] for name in node.names))
        if isinstance(step, str) and step == UNIT:
            self.b.prefetch(self.b.offset(pointer, distance))

    def ahead(self, node: At, distance: Value) -> None:
        """Ask for what is read so many bytes of lanes further on, if lanes lie side by side or nearly so."""
        operand, places, _ = self.places_at(node)
        pointer, step = self.address(operand, places)
        if isinstance(step, (str, Spaced)):
            apart = step.apart if isinstance(step, Spaced) else 1
            self.b.prefetch(self.b.offset(pointer, self.b.mul(distance, apart)))

    def ask_for(self, node: At, along: str, further: int) -> None:
        """Ask for all that lanes read so many positions further `along` an axis, if they lie side by side or
        nearly so.
        """
        for position in node.positions:
            self.evaluate(position)
        assert isinstance(node.arg, Read)
        operand, places, _ = self.places_at(node)
        pointer, step = self.address(operand, places)
        if not isinstance(step, (str, Spaced)):
            return
        b, apart = self.b, step.apart if isinstance(step, Spaced) else 1
        pointer = b.offset(pointer, b.mul(operand.strides[node.arg.names.index(along)], further))
        size = self.lanes * node.dtype.numpy.itemsize
        for part in range(abs(apart)):
            b.prefetch(b.offset(pointer, part * size if apart > 0 else -part * size))

    def start_of(self, node: Read | At) -> tuple[Value, dict[str, Value]]:
        """Where an operand is read here, every coordinate a number, and its strides in bytes by dimension."""
        operand, places, _ = self._found(node)
        pointer, step = self.address(operand, places)
        assert step is None
        read = node.arg if isinstance(node, At) else node
        assert isinstance(read, Read)
        return pointer, dict(zip(read.names, operand.strides, strict=True))

    def start_in(self, node: At, copy: Operand) -> Value:
        """Where that would be read in a copy of the operand."""
        _, places, _ = self._found(node)
        return self.address(copy, places)[0]

    def address_of(self, name: str, axes: tuple[str, ...]) -> tuple[Value, Step]:
        return self.address(self.loaded.operands[name, True], self._places_of(name, axes))

    def address(self, operand: Operand, places: Sequence[Coordinate]) -> tuple[Value, Step]:
        """A scalar address, and how lanes step from it: not at all (None), one element (UNIT), a few, or byte
        offsets.
        """
        b = self.b
        scalar: Value | None = None
        lanes: Value | None = None
        unit = 0
        strided = 0
        apart = 1
        for dimension, coordinate in enumerate(places):
            stride = operand.strides[dimension]
            if isinstance(coordinate, Value):
                scalar = _plus(b, scalar, b.mul(coordinate, stride))
                continue
            if coordinate.first is not None:
                scalar = _plus(b, scalar, b.mul(coordinate.first, stride))
                kind = operand.classes[dimension]
                gap = coordinate.apart * elements_apart(kind)
                unit += 1 <= abs(gap) <= WIDEST_GAP
                strided += kind != ZERO
                if kind != ZERO:
                    apart = gap
                    each = b.splat(b.mul(stride, coordinate.apart), self.lanes)
                    step = b.mul(each, b.iota(I64.vector(self.lanes)))
                    lanes = _plus(b, lanes, step)
            else:
                assert coordinate.positions is not None
                strided += 2
                lanes = _plus(b, lanes, b.mul(coordinate.positions, b.splat(stride, self.lanes)))
        pointer = b.offset(operand.pointer, scalar) if scalar is not None else operand.pointer
        if unit == 1 and strided == 1:
            return pointer, UNIT if apart == 1 else Spaced(apart)
        return pointer, lanes

    def stored_type(self, dtype: DType) -> Type:
        """Of vectors as they lie in memory."""
        return Type(_safe_kind(memory_kind(dtype)), self.lanes)

    def _load(self, pointer: Value, dtype: DType, lanes: int) -> Value:
        type = Type(_safe_kind(memory_kind(dtype)), lanes)
        if lanes and self.mask is not None:
            value = self.b.load_masked(pointer, self.mask, self.b.constant(0, type), type)
        else:
            value = self.b.load(pointer, type)
        return self._from_memory(value, dtype)

    def _load_spaced(self, pointer: Value, dtype: DType, apart: int, inside: Value | None = None) -> Value:
        """Lanes `apart` elements from each other: as many vectors, of which nothing behind the last lane is
        read, and the lanes picked from them; 0 where they are not `inside`. The last lane may come first.
        """
        b, lanes = self.b, self.lanes
        picked = [spaced_lanes(lanes, part, apart) for part in range(abs(apart))]
        step = lanes * dtype.numpy.itemsize
        if apart < 0:
            pointer = b.offset(pointer, apart * (lanes - 1) * dtype.numpy.itemsize)
        masks = [spread(b, self.mask, lanes, places) for places in picked]
        if inside is not None:  # last: what lanes have in common with other lines is computed once
            masks = [b.and_(mask, b.splat(inside, lanes)) for mask in masks]
        vectors = [
            self.load_lanes(b.offset(pointer, part * step), dtype, mask) for part, mask in enumerate(masks)
        ]
        return merged(b, vectors, picked, lanes)

    def load_lanes(self, pointer: Value, dtype: DType, mask: Value) -> Value:
        return replace(self, mask=mask)._load(pointer, dtype, self.lanes)

    def _from_memory(self, value: Value, dtype: DType) -> Value:
        if dtype.short in STORAGE_FLOATS:
            return self.b.bitcast(value, dtype.short)
        return from_memory(self.b, value, dtype)

    def _to_memory(self, value: Value, dtype: DType) -> Value:
        if dtype.short in STORAGE_FLOATS:
            return self.b.bitcast(value, value.type.integer.kind)
        return to_memory(self.b, value, dtype)


def _safe_kind(kind: str) -> str:
    """Floats of 8 and 16 bits travel as the integers of their bits."""
    return Type(kind).integer.kind if kind in STORAGE_FLOATS else kind


def _plus(b: Builder, total: Value | None, term: Value) -> Value:
    return term if total is None else b.add(total, term)
