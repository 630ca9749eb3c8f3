"""Contraction kernels as Triton text: tiles of m × n, a loop over k, the epilogue on the finished sums.

    for start in range(0, size_k, BLOCK_K):
        a, b = …                                     both sides loaded, their prologues applied
        acc = tl.dot(a, b, acc, input_precision="ieee")

Half-precision sides widened to float32 stay narrow for `tl.dot`, whose products are exact and sums float32;
sides of 8 bits are float16 numbers, or bfloat16 ones if the other side is of those. Where the hardware
multiplies operands of 8 bits as they lie, the loop is

    acc = tl.dot(a.to(tl.float8e4nv, bitcast=True), b.to(tl.float8e5, bitcast=True), acc, …)

Types that `tl.dot` lacks are multiplied and summed as m × k × n tiles. Of a sum in parts (`split_sums`) a
program has one, and what it stores are the sums of that part. Persistent programs take tile after tile, in
one loop that Triton flattens, so that the loads of a tile begin before the one before it is stored.

Operands of two dimensions that a descriptor can say (`described`) are loaded by the hardware's copies:

    a_tiles = tl.make_tensor_descriptor(a_ptr, shape=[size_m, size_k], strides=[stride_a_m, 1], …)
    a = a_tiles.load([tile_m * BLOCK_M, start])      zero beyond the ends, as any read is

What follows the sum of a large tile needs registers and shared memory beside those of the loop. A schedule
with `subtiles` has it written for one part of the columns after the other, which needs a part of them:

    low, high = tl.split(tl.permute(tl.reshape(acc, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tilewright.compiler.nest import ACCUMULATOR, Contraction, Kernel, evaluated
from tilewright.compiler.targets.triton import float8, spelling
from tilewright.compiler.targets.triton.places import Place, Writer, group_name, positions, program_id
from tilewright.compiler.targets.triton.schedule import STRIDED, UNIT, Layout, Schedule
from tilewright.compiler.targets.triton.scope import Scope
from tilewright.compiler.targets.triton.sides import LEAST_BYTES, are_bytes, common_type, narrow, uses_dot
from tilewright.compiler.targets.triton.writer import ATOM, Block, Value
from tilewright.dsl.dtypes import FLOAT8, bfloat16
from tilewright.dsl.program import At, Node, Read, topological


def described(kernel: Kernel, layout: Layout) -> dict[Read, tuple[str, str]]:
    """The reads of a contraction's operands that descriptors can say, if strides and addresses are aligned.

    Their dimensions are those of a tile, one of them contiguous; positions fit 32 bits. With the axes in the
    order of memory.
    """
    contraction = kernel.contraction
    assert contraction is not None
    found: dict[Read, tuple[str, str]] = {}
    if not uses_dot(kernel) or layout.wide or len(contraction.k) != 1:
        return found
    for side, own in ((contraction.left, contraction.m), (contraction.right, contraction.n)):
        for read in evaluated([side]):
            if not isinstance(read, Read) or len(own) != 1 or set(read.names) != {*own, *contraction.k}:
                continue
            first, second = read.names
            kinds = layout.of(read.param, 0), layout.of(read.param, 1)
            if kinds == (STRIDED, UNIT):
                found[read] = (first, second)
            elif kinds == (UNIT, STRIDED):
                found[read] = (second, first)
    ways = Counter(read.param for read in found)
    return {read: axes for read, axes in found.items() if ways[read.param] == 1}


def _drop_unused(loop: Block, count: int) -> None:
    """Leave out those of the first lines of a loop that bind what nothing after them needs."""
    for number in reversed(range(count)):
        name = str(loop.lines[number]).partition(" = ")[0]
        if not any(re.search(rf"\b{name}\b", str(line)) for line in loop.lines[number + 1 :]):
            del loop.lines[number]


class Dots:
    """Writes the body of a contraction kernel into the writer's top block."""

    def __init__(self, writer: Writer, schedule: Schedule):
        assert writer.kernel.contraction is not None
        self.writer = writer
        self.schedule = schedule
        self.contraction: Contraction = writer.kernel.contraction
        self.top = writer.top
        self.body = Block("for") if schedule.persistent else writer.top
        """What a program does for a tile."""
        self.names = writer.names
        block = writer.parameters.block
        self.m, self.n, self.k = schedule.rows, schedule.columns, schedule.depth
        self.block_m = block("BLOCK_" + group_name(self.m).upper(), schedule.block_rows)
        self.block_n = block("BLOCK_" + group_name(self.n).upper(), schedule.block_columns)
        self.block_k = block("BLOCK_" + group_name(self.k).upper(), schedule.block_depth)
        self.dot = uses_dot(writer.kernel)
        self.described = described(writer.kernel, writer.layout) if schedule.descriptors else {}
        self._tiles: dict[Read, str] = {}
        self._starts: dict[int, str] = {}
        self.in_bytes = schedule.in_bytes and are_bytes(writer.kernel) and schedule.block_depth >= LEAST_BYTES
        self.narrow = common_type(self.contraction) if self.dot else None
        """In which both sides stay narrow for `tl.dot`."""

    def write(self) -> None:
        c, schedule = self.contraction, self.schedule
        given, tile_m, tile_n = self._tile()
        self._make_descriptors()
        top = Scope(self.writer, self.body, None, given)
        m = self._positions(self.body, self.m, f"{tile_m} * {self.block_m}", self.block_m, schedule.even_rows)
        n = self._positions(
            self.body, self.n, f"{tile_n} * {self.block_n}", self.block_n, schedule.even_columns
        )
        acc = self.names.fresh("acc")
        kind = spelling.TYPES[c.root.dtype.short]
        self.body.add(f"{acc} = tl.zeros(({self.block_m}, {self.block_n}), {kind})")
        start = self.names.fresh("start")
        low, high = self._bounds(given)
        loop = Block(f"for {start} in range({low}, {high}, {self.block_k}):")
        k = self._positions(loop, self.k, start, self.block_k, schedule.even_depth)
        write = self._dot if self.dot else self._product
        bound = len(loop.lines)
        loop.add(f"{acc} = {write(top, loop, m, n, k, acc)}")
        if self.described:
            _drop_unused(loop, bound)
        self.body.add(loop)
        if schedule.subtiles == 1:
            places = [m, n]
            self._epilogue(Scope(self.writer, self.body, top, places, {id(m): 0, id(n): 1}, 2), acc)
        else:
            self._epilogue_in_parts(Scope(self.writer, self.body, top, [m], {id(m): 0}, 2), n, acc)
        if self.body is not self.top:
            self.top.add(self.body)

    def _positions(self, block: Block, axes: Sequence[str], start: str, size: str, even: bool) -> Place:
        bound = "" if even else self.writer.size(axes)
        place = positions(self.writer, block, axes, start, size, bound)
        self._starts[id(place)] = start
        return place

    def _make_descriptors(self) -> None:
        blocks = {self.m: self.block_m, self.n: self.block_n, self.k: self.block_k}
        parameters = self.writer.parameters
        for read, axes in self.described.items():
            name = self._tiles[read] = self.names.fresh(f"{read.param}_tiles")
            shape = ", ".join(self.writer.size((axis,)) for axis in axes)
            block = ", ".join(blocks[axis,] for axis in axes)
            stride = parameters.stride(read.param, read.names.index(axes[0]))
            self.top.add(
                f"{name} = tl.make_tensor_descriptor({parameters.pointer(read.param)}, shape=[{shape}], "
                f"strides=[{stride}, 1], block_shape=[{block}])"
            )

    def _load_described(self, inner: Scope, node: Node, own: Place, k: Place, rows: Place) -> None:
        """The tiles of a side's operands that have a descriptor, the dimension of `rows` first."""
        for read in topological([node]):
            if not isinstance(read, Read) or read not in self.described or inner.lookup(read):
                continue
            places = {own.axes[0]: own, k.axes[0]: k}
            axes = self.described[read]
            at = ", ".join(self._starts[id(places[axis])] for axis in axes)
            turned = "" if places[axes[0]] is rows else ".T"
            name = self.names.fresh(read.param, inner.block)
            tile = Value(f"{self._tiles[read]}.load([{at}]){turned}", ATOM, frozenset({0, 1}))
            if read.dtype in FLOAT8 and not self.in_bytes:
                tile = float8.number(tile, read.dtype)
            inner.block.add(f"{name} = {tile.text}")
            inner.values[read] = Value(name, ATOM, tile.dims)

    def _bounds(self, given: Sequence[Place]) -> tuple[str, str]:
        """The positions of the sum that this program adds up."""
        size, split = self.writer.size(self.k), self.writer.kernel.split
        if split is None:
            return "0", size
        part = next(place for place in given if split.axis in place.axes)
        low, high = self.names.fresh("low"), self.names.fresh("high")
        chunk = self.writer.parameters.chunk()
        self.body.add(f"{low} = {part.flat} * {chunk}")
        self.body.add(f"{high} = tl.minimum({low} + {chunk}, {size})")
        return low, high

    def _constexpr(self, wish: str, value: int) -> str:
        name = self.names.fresh(wish)
        self.writer.parameters.blocks[name] = value
        return name

    def _tile(self) -> tuple[list[Place], str, str]:
        """Which tile this program has: a few tiles of rows run through all columns before the next few.

        With the places that it has in the batch, and among the parts of the sum.
        """
        c, top, add, fresh = self.contraction, self.top.add, self.body.add, self.names.fresh
        pid, split, given = program_id(self.writer), self.writer.kernel.split, []
        tiles_m, tiles_n = fresh("tiles_m"), fresh("tiles_n")
        top(f"{tiles_m} = tl.cdiv({self.writer.size(self.m)}, {self.block_m})")
        top(f"{tiles_n} = tl.cdiv({self.writer.size(self.n)}, {self.block_n})")
        parts = self._constexpr("PARTS", self.schedule.parts) if split is not None else ""
        if self.schedule.persistent:
            pid = self._every_tile(pid, [tiles_m, tiles_n, parts])
        if split is not None:
            part = fresh("part")
            add(f"{part} = {pid} % {parts}")
            add(f"{pid} = {pid} // {parts}")
            given.append(Place(self.writer, self.body, (split.axis,), part))
        if c.batch:
            flat = fresh(group_name(c.batch))
            add(f"{flat} = {pid} // ({tiles_m} * {tiles_n})")
            add(f"{pid} = {pid} % ({tiles_m} * {tiles_n})")
            given.append(Place(self.writer, self.body, c.batch, flat))
        group, first, height = self._constexpr("GROUP", self.schedule.group), fresh("first"), fresh("height")
        tile_m, tile_n = fresh("tile_m"), fresh("tile_n")
        add(f"{first} = {pid} // ({group} * {tiles_n}) * {group}")
        add(f"{height} = tl.minimum({tiles_m} - {first}, {group})")
        add(f"{tile_m} = {first} + {pid} % ({group} * {tiles_n}) % {height}")
        add(f"{tile_n} = {pid} % ({group} * {tiles_n}) // {height}")
        return given, tile_m, tile_n

    def _every_tile(self, pid: str, counts: Sequence[str]) -> str:
        """Have the program take every tile that is as many further as there are programs; a tile's number."""
        tile, programs = self.names.fresh("tile"), self._constexpr("PROGRAMS", self.schedule.persistent)
        batch = [self.writer.size(self.contraction.batch)] if self.contraction.batch else []
        tiles = " * ".join([*filter(None, counts), *batch])
        self.body.head = f"for {tile} in tl.range({pid}, {tiles}, {programs}, flatten=True):"
        rest = self.names.fresh("rest")
        self.body.add(f"{rest} = {tile}")
        return rest

    # --- products --------------------------------------------------------------------------------------

    def _dot(self, top: Scope, loop: Block, m: Place, n: Place, k: Place, acc: str) -> str:
        left = self._side(
            top, loop, self.contraction.left, m, k, {id(m): 0, id(k): 1}, (self.block_m, self.block_k)
        )
        right = self._side(
            top, loop, self.contraction.right, n, k, {id(k): 0, id(n): 1}, (self.block_k, self.block_n)
        )
        precision = "" if self.narrow else f', input_precision="{self.schedule.input_precision}"'
        if self.in_bytes:
            precision = f", max_num_imprecise_acc={self.block_k}"
        return f"tl.dot({left}, {right}, {acc}{precision})"

    def _side(
        self, top: Scope, loop: Block, node: Node, own: Place, k: Place, dims: dict[int, int],
        shape: tuple[str, str],
    ) -> str:  # fmt: skip
        """One side as a whole tile, zero beyond the end of k."""
        outer = Scope(self.writer, self.body, top, [own], {id(own): dims[id(own)]}, 2)
        inner = Scope(self.writer, loop, outer, [k], {id(k): dims[id(k)]}, 2)
        if self.narrow:
            node = narrow(node) or node
        self._load_described(inner, node, own, k, own if dims[id(own)] == 0 else k)
        value = self._bytes(inner, node) if self.in_bytes else inner.typed(node)
        if self.narrow == bfloat16 and node.dtype in FLOAT8:
            value = spelling.cast(value, node.dtype, bfloat16)
        mask, zero = inner.mask(frozenset({dims[id(k)]})), "0" if self.in_bytes else "0.0"
        if mask is not None and not (inner.outside(node) == 0 and dims[id(k)] in value.dims):
            value = Value(f"tl.where({mask.text}, {value.text}, {zero})", ATOM, value.dims | mask.dims)
        if value.dims != {0, 1}:
            value = Value(f"tl.broadcast_to({value.text}, ({shape[0]}, {shape[1]}))", ATOM, frozenset({0, 1}))
        if self.in_bytes:
            value = float8.native(value, node.dtype)
        if value.is_name:
            return value.text
        side = "left" if own.axes == self.m else "right"
        name = self.names.fresh(inner.wish(node) if isinstance(node, (At, Read)) else side, loop)
        loop.add(f"{name} = {value.text}")
        return name

    def _bytes(self, inner: Scope, node: Node) -> Value:
        """A tile of an operand as it lies in memory, zero where it is not inside."""
        assert isinstance(node, Read)
        found = inner.lookup(node)
        if found is not None:
            return found
        pointer = inner.address(node.param, node.names)
        mask = inner.mask(pointer.dims)
        masked = f", mask={mask.text}, other=0" if mask else ""
        return Value(f"tl.load({pointer.text}{masked})", ATOM, pointer.dims)

    def _product(self, top: Scope, loop: Block, m: Place, n: Place, k: Place, acc: str) -> str:
        dims = {id(m): 0, id(k): 1, id(n): 2}
        outer = Scope(self.writer, self.body, top, [m, n], {i: d for i, d in dims.items() if i != id(k)}, 3)
        inner = Scope(self.writer, loop, outer, [k], dims, 3)
        dtype = self.contraction.root.dtype
        left, right = inner.typed(self.contraction.left), inner.typed(self.contraction.right)
        product = spelling.infix("mul", left, right, dtype)
        mask = inner.mask(frozenset({1}))
        sides = ((self.contraction.left, left), (self.contraction.right, right))
        zero = all(inner.outside(node) == 0 and 1 in value.dims for node, value in sides)
        if mask is not None and not zero:
            zero = spelling.identity_text("sum", dtype)
            product = Value(f"tl.where({mask.text}, {product.text}, {zero})", ATOM, product.dims | mask.dims)
        if product.dims != {0, 1, 2}:
            shape = f"({self.block_m}, {self.block_k}, {self.block_n})"
            product = Value(f"tl.broadcast_to({product.text}, {shape})")
        total = spelling.reduction("sum", product.text, dtype, 1, 1)
        return f"{acc} + {total}"

    # --- what follows the sum --------------------------------------------------------------------------

    def _epilogue_in_parts(self, rows: Scope, n: Place, acc: str) -> None:
        """The epilogue for one part of the columns after the other; what runs along rows is shared."""
        start = self._starts[id(n)]
        width = f"{self.block_n} // {self.schedule.subtiles}"
        for number, part in enumerate(self._columns_of(acc, self.schedule.subtiles)):
            first = start + (f" + {number} * ({width})" if number else "")
            columns = self._positions(self.body, self.n, first, width, self.schedule.even_columns)
            self._epilogue(Scope(self.writer, self.body, rows, [columns], {id(columns): 1}, 2), part)

    def _columns_of(self, sums: str, parts: int) -> list[str]:
        """A tile's columns in so many tiles from left to right; halves are split again."""
        if parts == 1:
            return [sums]
        half = f"{self.block_n} // {2 * self.schedule.subtiles // parts}"
        low, high = self.names.fresh("low"), self.names.fresh("high")
        halves = f"tl.reshape({sums}, ({self.block_m}, 2, {half}))"
        self.body.add(f"{low}, {high} = tl.split(tl.permute({halves}, (0, 2, 1)))")
        return [*self._columns_of(low, parts // 2), *self._columns_of(high, parts // 2)]

    def _epilogue(self, scope: Scope, acc: str) -> None:
        for node in self.writer.kernel.nodes():
            if isinstance(node, Read) and node.param == ACCUMULATOR:
                scope.values[node] = Value(acc, ATOM, frozenset({0, 1}))
        outputs = self.writer.kernel.outputs
        values = [scope.evaluate(o.node) for o in outputs]
        for output, value in zip(outputs, values, strict=True):
            scope.store(output, value)
