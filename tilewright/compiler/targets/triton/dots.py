"""Contraction kernels as Triton text: tiles of m × n, a loop over k, the epilogue on the finished sums.

    for start in range(0, size_k, BLOCK_K):
        a, b = …                                     both sides loaded, their prologues applied
        acc = tl.dot(a, b, acc, input_precision="ieee")

Half-precision sides widened to float32 stay narrow for `tl.dot`, whose products are exact and sums float32.
Types that `tl.dot` lacks are multiplied and summed as m × k × n tiles. Of a sum in parts (`split_sums`) a
program has one, and what it stores are the sums of that part.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.nest import ACCUMULATOR, Contraction
from tilewright.compiler.targets.triton import spelling
from tilewright.compiler.targets.triton.places import Place, Writer, group_name, positions, program_id
from tilewright.compiler.targets.triton.schedule import Schedule, narrow, uses_dot
from tilewright.compiler.targets.triton.scope import Scope
from tilewright.compiler.targets.triton.writer import ATOM, Block, Value
from tilewright.dsl.program import At, Node, Read


class Dots:
    """Writes the body of a contraction kernel into the writer's top block."""

    def __init__(self, writer: Writer, schedule: Schedule):
        assert writer.kernel.contraction is not None
        self.writer = writer
        self.schedule = schedule
        self.contraction: Contraction = writer.kernel.contraction
        self.top = writer.top
        self.names = writer.names
        block = writer.parameters.block
        c = self.contraction
        self.m, self.n, self.k = schedule.rows, schedule.columns, schedule.depth
        self.block_m = block("BLOCK_" + group_name(self.m).upper(), schedule.block_rows)
        self.block_n = block("BLOCK_" + group_name(self.n).upper(), schedule.block_columns)
        self.block_k = block("BLOCK_" + group_name(self.k).upper(), schedule.block_depth)
        self.dot = uses_dot(writer.kernel)
        halves = [half for side in (c.left, c.right) if (half := narrow(side)) is not None]
        self.narrow = self.dot and len(halves) == 2 and halves[0].dtype == halves[1].dtype

    def write(self) -> None:
        c, schedule = self.contraction, self.schedule
        given, tile_m, tile_n = self._tile()
        top = Scope(self.writer, self.top, None, given)
        m = self._positions(self.top, self.m, f"{tile_m} * {self.block_m}", self.block_m, schedule.even_rows)
        n = self._positions(
            self.top, self.n, f"{tile_n} * {self.block_n}", self.block_n, schedule.even_columns
        )
        acc = self.names.fresh("acc")
        kind = spelling.TYPES[c.root.dtype.short]
        self.top.add(f"{acc} = tl.zeros(({self.block_m}, {self.block_n}), {kind})")
        start = self.names.fresh("start")
        low, high = self._bounds(given)
        loop = Block(f"for {start} in range({low}, {high}, {self.block_k}):")
        k = self._positions(loop, self.k, start, self.block_k, schedule.even_depth)
        write = self._dot if self.dot else self._product
        loop.add(f"{acc} = {write(top, loop, m, n, k, acc)}")
        self.top.add(loop)
        self._epilogue(top, m, n, acc)

    def _positions(self, block: Block, axes: Sequence[str], start: str, size: str, even: bool) -> Place:
        return positions(self.writer, block, axes, start, size, "" if even else self.writer.size(axes))

    def _bounds(self, given: Sequence[Place]) -> tuple[str, str]:
        """The positions of the sum that this program adds up."""
        size, split = self.writer.size(self.k), self.writer.kernel.split
        if split is None:
            return "0", size
        part = next(place for place in given if split.axis in place.axes)
        low, high = self.names.fresh("low"), self.names.fresh("high")
        chunk = self.writer.parameters.chunk()
        self.top.add(f"{low} = {part.flat} * {chunk}")
        self.top.add(f"{high} = tl.minimum({low} + {chunk}, {size})")
        return low, high

    def _tile(self) -> tuple[list[Place], str, str]:
        """Which tile this program has: a few tiles of rows run through all columns before the next few.

        With the places that it has in the batch, and among the parts of the sum.
        """
        c, add, fresh = self.contraction, self.top.add, self.names.fresh
        pid, split, given = program_id(self.writer), self.writer.kernel.split, []
        if split is not None:
            parts, part = fresh("PARTS"), fresh("part")
            self.writer.parameters.blocks[parts] = self.schedule.parts
            add(f"{part} = {pid} % {parts}")
            add(f"{pid} = {pid} // {parts}")
            given.append(Place(self.writer, self.top, (split.axis,), part))
        tiles_m, tiles_n = fresh("tiles_m"), fresh("tiles_n")
        add(f"{tiles_m} = tl.cdiv({self.writer.size(self.m)}, {self.block_m})")
        add(f"{tiles_n} = tl.cdiv({self.writer.size(self.n)}, {self.block_n})")
        if c.batch:
            flat = fresh(group_name(c.batch))
            add(f"{flat} = {pid} // ({tiles_m} * {tiles_n})")
            add(f"{pid} = {pid} % ({tiles_m} * {tiles_n})")
            given.append(Place(self.writer, self.top, c.batch, flat))
        group, first, height = fresh("GROUP"), fresh("first"), fresh("height")
        self.writer.parameters.blocks[group] = self.schedule.group
        tile_m, tile_n = fresh("tile_m"), fresh("tile_n")
        add(f"{first} = {pid} // ({group} * {tiles_n}) * {group}")
        add(f"{height} = tl.minimum({tiles_m} - {first}, {group})")
        add(f"{tile_m} = {first} + {pid} % ({group} * {tiles_n}) % {height}")
        add(f"{tile_n} = {pid} % ({group} * {tiles_n}) // {height}")
        return given, tile_m, tile_n

    # --- products --------------------------------------------------------------------------------------

    def _dot(self, top: Scope, loop: Block, m: Place, n: Place, k: Place, acc: str) -> str:
        left = self._side(
            top, loop, self.contraction.left, m, k, {id(m): 0, id(k): 1}, (self.block_m, self.block_k)
        )
        right = self._side(
            top, loop, self.contraction.right, n, k, {id(k): 0, id(n): 1}, (self.block_k, self.block_n)
        )
        precision = "" if self.narrow else f', input_precision="{self.schedule.input_precision}"'
        return f"tl.dot({left}, {right}, {acc}{precision})"

    def _side(
        self, top: Scope, loop: Block, node: Node, own: Place, k: Place, dims: dict[int, int],
        shape: tuple[str, str],
    ) -> str:  # fmt: skip
        """One side as a whole tile, zero beyond the end of k."""
        outer = Scope(self.writer, self.top, top, [own], {id(own): dims[id(own)]}, 2)
        inner = Scope(self.writer, loop, outer, [k], {id(k): dims[id(k)]}, 2)
        if self.narrow:
            node = narrow(node) or node
        value = inner.typed(node)
        mask = inner.mask(frozenset({dims[id(k)]}))
        if mask is not None and not (inner.outside(node) == 0 and dims[id(k)] in value.dims):
            value = Value(f"tl.where({mask.text}, {value.text}, 0.0)", ATOM, value.dims | mask.dims)
        if value.dims != {0, 1}:
            value = Value(f"tl.broadcast_to({value.text}, ({shape[0]}, {shape[1]}))", ATOM, frozenset({0, 1}))
        if value.is_name:
            return value.text
        side = "left" if own.axes == self.m else "right"
        name = self.names.fresh(inner.wish(node) if isinstance(node, (At, Read)) else side, loop)
        loop.add(f"{name} = {value.text}")
        return name

    def _product(self, top: Scope, loop: Block, m: Place, n: Place, k: Place, acc: str) -> str:
        dims = {id(m): 0, id(k): 1, id(n): 2}
        outer = Scope(self.writer, self.top, top, [m, n], {i: d for i, d in dims.items() if i != id(k)}, 3)
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

    def _epilogue(self, top: Scope, m: Place, n: Place, acc: str) -> None:
        scope = Scope(self.writer, self.top, top, [m, n], {id(m): 0, id(n): 1}, 2)
        for node in self.writer.kernel.nodes():
            if isinstance(node, Read) and node.param == ACCUMULATOR:
                scope.values[node] = Value(acc, ATOM, frozenset({0, 1}))
        outputs = self.writer.kernel.outputs
        values = [scope.evaluate(o.node) for o in outputs]
        for output, value in zip(outputs, values, strict=True):
            scope.write(output.buffer.name, output.buffer.axes, output.node, value)
