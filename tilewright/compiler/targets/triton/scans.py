"""Scan kernels as Triton text: a row kernel in which values are carried along the row.

    h = tl.associative_scan(x, 1, step)     a row that fits, or a block of one that does not
    h = step(h_state, h)                    after what came before: the last block, or where the scan begins
    h_state = tl.gather(h, last, 1)         what the next block begins with

A chunk of a row has what came before in memory, or is scanned alone, and what it ends with is stored.

A reverse scan walks positions from the end of the row, `t = size_t - 1 - tl.arange(…)`. So what is outside of
the row always comes last and reaches nothing: no combine needs an element that changes nothing. (With
Triton's own `reverse=True` it would come first, and there is an open bug for combines that do not commute,
triton-lang/triton#4362.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.targets.triton import spelling
from tilewright.compiler.targets.triton.places import Place, Writer, group_name
from tilewright.compiler.targets.triton.rows import Rows
from tilewright.compiler.targets.triton.scope import Scope
from tilewright.compiler.targets.triton.writer import ATOM, Block, Names, Value
from tilewright.dsl.program import Node, Scan, topological
from tilewright.dsl.scans import Body, name_of, needed, sides


@dataclass(frozen=True)
class Walk:
    """The scans that one `tl.associative_scan` computes.

    kept: the values of the tuple that they depend on. step: the function that combines these. states: the
    names of what comes before, none where nothing does. looped: the row is walked in blocks.
    """

    rows: Scans
    scans: tuple[Scan, ...]
    kept: tuple[int, ...]
    step: str
    states: tuple[str, ...]
    looped: bool

    @property
    def scan(self) -> Scan:
        return self.scans[0]

    @property
    def operands(self) -> tuple[Node, ...]:
        return tuple(self.scan.operands[n] for n in self.kept)

    def write(self, scope: Scope) -> None:
        """The lines that compute the scans at all positions of a scope."""
        rows, block = self.rows, scope.block
        tiles = [rows.whole(scope, operand) for operand in self.operands]
        totals = [rows.names.fresh(scope.wish(self.scan.value(n)), block) for n in self.kept]
        operand = tiles[0] if len(tiles) == 1 else f"({', '.join(tiles)})"
        scanned = f"tl.associative_scan({operand}, {rows.rank - 1}, {self.step})"
        block.add(f"{', '.join(totals)} = {scanned}")
        if self.states:
            self._continue(block, totals)
        for scan in self.scans:
            position = self.kept.index(scan.which)
            total = totals[position]
            seen = self._before(block, total, self.states[position]) if scan.exclusive else total
            scope.values[scan] = Value(seen, ATOM, frozenset(range(rows.rank)))
        if self.looped:
            for state, total in zip(self.states, totals, strict=True):
                block.add(f"{state} = tl.gather({total}, {rows.last_element()}, {rows.rank - 1})")

    def _continue(self, block: Block, totals: Sequence[str]) -> None:
        """Combine what comes before the block with what it has found; an inclusive scan begins bare."""
        call = f"{self.step}({', '.join((*self.states, *totals))})"
        if self.scan.exclusive:
            block.add(f"{', '.join(totals)} = {call}")
            return
        names = self.rows.names
        continued = [names.fresh(f"continued_{total}", block) for total in totals]
        block.add(f"{', '.join(continued)} = {call}")
        for total, after in zip(totals, continued, strict=True):
            block.add(f"{total} = tl.where({self.rows.first_block(self.scan)}, {total}, {after})")

    def end(self, scope: Scope) -> None:
        """The last values of the scans, once the row has been walked."""
        rows, last = self.rows, self.states
        if rows.rank == 1:  # numbers: each is the one element of its tile
            last = tuple(rows.names.fresh(f"last_{scope.wish(self.scan.value(n))}") for n in self.kept)
            states = ", ".join(self.states) if len(last) == 1 else f"({', '.join(self.states)})"
            scope.block.add(f"{', '.join(last)} = tl.reduce({states}, 0, {self.step})")
        for scan in self.scans:
            dims = frozenset({0}) if rows.rank > 1 else frozenset()
            scope.values[scan] = Value(last[self.kept.index(scan.which)], ATOM, dims)

    def _before(self, block: Block, total: str, state: str) -> str:
        """What an exclusive scan has: the total of the element before, at the first one the state."""
        rows = self.rows
        lane = rows.lane(block)
        place = f"tl.broadcast_to(tl.maximum({lane} - 1, 0), {rows.full_shape()})"
        name = rows.names.fresh(f"before_{total}", block)
        block.add(f"{name} = tl.gather({total}, {place}, {rows.rank - 1})")
        block.add(f"{name} = tl.where({lane} == 0, {state}, {name})")
        return name


class Scans(Rows):
    """Writes the body of a scan kernel into the writer's top block."""

    # --- positions -------------------------------------------------------------------------------------

    def _along(self, block: Block, start: str, bound: str) -> Place:
        if not self.kernel.scans[0].reverse:
            return super()._along(block, start, bound)
        axes = self.schedule.columns
        flat = self.names.fresh(group_name(axes), block)
        before = f" - {start}" if start else ""
        block.add(f"{flat} = {self.writer.size(axes)} - 1{before} - tl.arange(0, {self.block_columns})")
        mask = None
        if bound:
            mask = self.names.fresh(f"in_{group_name(axes)}", block)
            block.add(f"{mask} = {flat} >= 0")
        return Place(self.writer, block, axes, flat, mask, vector=True)

    def first_block(self, scan: Scan) -> str:
        """Whether nothing comes before a block."""
        return f"{self._start} == {'0' if scan in self._starts else self._low}"

    def lane(self, block: Block) -> str:
        """The numbers of a block's elements, in walking order, as a tile of the kernel's rank."""
        found = self._lanes.get(id(block))
        if found is None:
            found = self._lanes[id(block)] = self.names.fresh("lane", block)
            across = "[None, :]" if self.rank > 1 else ""
            block.add(f"{found} = tl.arange(0, {self.block_columns}){across}")
        return found

    def full_shape(self) -> str:
        return f"({', '.join(self.shape)}{',' if self.rank == 1 else ''})"

    def _state_shape(self) -> str:
        return f"({self.block_rows}, 1)" if self.rank > 1 else "(1,)"

    def last_element(self) -> str:
        return f"tl.full({self._state_shape()}, {self.block_columns} - 1, tl.int32)"

    def whole(self, scope: Scope, node: Node) -> str:
        """The value of a node as a tile of the full shape, which all operands of a scan must have."""
        value = scope.typed(node)
        if value.dims == frozenset(range(self.rank)):
            return value.text
        return f"tl.broadcast_to({value.text}, {self.full_shape()})"

    # --- walks -----------------------------------------------------------------------------------------

    def write(self) -> None:
        self._lanes: dict[int, str] = {}
        self._steps: dict[tuple[Body, tuple[int, ...]], str] = {}
        self._starts = {start.scan: start.state for start in self.kernel.starts}
        super().write()

    def _walks(self, scope: Scope, scans: Sequence[Scan]) -> Mapping[Scan, Walk]:
        """The walks of some scans, with lines for the states that they begin with."""
        loops: dict[tuple, list[Scan]] = {}
        for scan in scans:
            loops.setdefault(scan.loop, []).append(scan)
        walks = [self._walk(scope, tuple(found)) for found in loops.values()]
        return {scan: walk for walk in walks for scan in walk.scans}

    def _walk(self, scope: Scope, scans: tuple[Scan, ...]) -> Walk:
        body, looped = scans[0].body, self.schedule.looped
        kept = needed(body, [scan.which for scan in scans])
        states: list[str] = []
        if looped or scans[0].exclusive:
            for n in kept:
                begins = self._begins(scope, scans[0].value(n))
                states.append(self.names.fresh(f"{scope.wish(scans[0].value(n))}_state"))
                scope.block.add(f"{states[-1]} = {begins}")
        return Walk(self, scans, kept, self._step(body, kept), tuple(states), looped)

    def _begins(self, scope: Scope, scan: Scan) -> str:
        """What comes before the first block; any number of the right type where nothing does."""
        if scan in self._starts:
            return f"tl.broadcast_to({scope.typed(self._starts[scan]).text}, {self._state_shape()})"
        number = spelling.number(scan.initial[scan.which].value if scan.exclusive else 0, scan.dtype)
        return f"tl.full({self._state_shape()}, {number}, {spelling.TYPES[scan.dtype.short]})"

    def _step(self, body: Body, kept: tuple[int, ...]) -> str:
        """The function that combines two neighbours; the kernel's text has it before the kernel."""
        key = (body, kept)
        if key not in self._steps:
            name = self.names.fresh(f"{name_of(body) or 'scan'}_step")
            self._steps[key] = name
            self.writer.functions.append(step_function(self.writer, name, body, kept))
        return self._steps[key]


def step_function(writer: Writer, name: str, body: Body, kept: tuple[int, ...]) -> str:
    """The combine of a scan as a jitted function of what came before and what comes now."""
    numbers = [""] if len(kept) == 1 else list(map(str, range(len(kept))))
    parameters = [f"{side}{n}" for side in ("before", "now") for n in numbers]
    lefts, rights = sides(body)
    uses: Counter[Node] = Counter(body[n] for n in kept)
    for node in topological(body[n] for n in kept):
        uses.update(node.args)
    block = Block()
    names = Names([name, *parameters, *spelling.RESERVED])
    scope = Scope(
        replace(
            writer,
            names=names,
            uses=uses,
            cast_alone={},
            top=block,
            small=set(),
            tests=(),
            wishes={},
            sizes={},
        ),
        block,
    )
    placeholders = [side[n] for side in (lefts, rights) for n in kept]
    scope.values = {node: Value(p) for node, p in zip(placeholders, parameters, strict=True)}
    results = []
    for n in kept:
        value = scope.evaluate(body[n])
        kind = spelling.TYPES[body[n].dtype.short]
        results.append(
            f"tl.full({parameters[-1]}.shape, {value.text}, {kind})" if value.literal else value.text
        )
    block.add(f"return {', '.join(results)}")
    lines = "\n".join(block.render(1))
    return f"@triton.jit\ndef {name}({', '.join(parameters)}):\n{lines}\n"
