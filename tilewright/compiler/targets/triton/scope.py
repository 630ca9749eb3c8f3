"""Evaluating nodes at a place in a kernel: which coordinates are bound, and what has been computed there.

A `Place` is where a group of axes is bound to positions: a scalar, or a vector of a tile's dimension. A
`Scope` is a region of the text with one arrangement of tile dimensions; a node is computed in the outermost
scope that binds all its axes.

    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)                  a place; `in_m = m < size_m` is its mask
    a = tl.load(a_ptr + m[:, None] * stride_a_m + k[None, :], …)  a read in a scope with the dimensions (m, k)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.compiler.nest import Kernel
from tilewright.compiler.targets.triton import spelling
from tilewright.compiler.targets.triton.parameters import Parameters
from tilewright.compiler.targets.triton.schedule import UNIT, ZERO, Layout, joined_run
from tilewright.compiler.targets.triton.writer import ATOM, LEVEL, Block, Names, Value, axis_name
from tilewright.dsl.program import Cast, Const, Index, Map, Node, Read, Reduce, Size
from tilewright.errors import InternalError

LONGEST = 64  # characters of an expression that is not given a name
_SUM, _PRODUCT = LEVEL["+"], LEVEL["*"]
_AND = LEVEL["&"]

_WISHES = {
    "mul": "product",
    "add": "total",
    "sub": "difference",
    "div": "quotient",
    "where": "chosen",
    "neg": "negated",
}


@dataclass
class Writer:
    """What all scopes of one kernel share."""

    kernel: Kernel
    layout: Layout
    names: Names
    parameters: Parameters
    uses: Mapping[Node, int]
    cast_alone: Mapping[Node, bool]
    top: Block
    sizes: dict[tuple[str, ...], str] = field(default_factory=dict)

    def size(self, axes: Sequence[str]) -> str:
        """The number of positions along a group of axes."""
        if len(axes) == 1:
            return self.parameters.size(axes[0])
        key = tuple(axes)
        if key not in self.sizes:
            name = self.names.fresh("size_" + group_name(axes))
            self.sizes[key] = name
            self.top.add(f"{name} = " + (" * ".join(self.parameters.size(a) for a in axes) or "1"))
        return self.sizes[key]


def group_name(axes: Sequence[str]) -> str:
    return "_".join(axis_name(a) for a in axes) or "one"


@dataclass(eq=False)
class Place:
    """A group of axes at flattened positions `flat`; coordinates of its axes are worked out when asked for.

    `mask` says which positions are inside (None: all). `vector`: a tile dimension, not one position.
    """

    writer: Writer
    block: Block
    axes: tuple[str, ...]
    flat: str
    mask: str | None = None
    vector: bool = False
    coordinates: dict[str, str] = field(default_factory=dict)

    def coordinate(self, axis: str) -> str:
        if len(self.axes) == 1:
            return self.flat
        if axis not in self.coordinates:
            self._decode(axis)
        return self.coordinates[axis]

    def _decode(self, axis: str) -> None:
        position = self.axes.index(axis)
        text = self.flat
        inner = self.axes[position + 1 :]
        if inner:
            text = f"{text} // {self.writer.size(inner)}"
        if position:
            size = self.writer.size((axis,))
            text = f"{text} % {size}"
        name = self.writer.names.fresh(axis_name(axis), self.block)
        self.block.add(f"{name} = {text}")
        self.coordinates[axis] = name


class Scope:
    """See the module's docstring. `dims` gives the dimension of each vector place, of `rank` dimensions."""

    def __init__(
        self, writer: Writer, block: Block, parent: Scope | None = None, places: Sequence[Place] = (),
        dims: Mapping[int, int] | None = None, rank: int = 0,
    ):  # fmt: skip
        self.writer = writer
        self.block = block
        self.parent = parent
        self.rank = rank
        self.dims: dict[int, int] = {**(parent.dims if parent else {}), **(dims or {})}
        self.places: dict[str, Place] = dict(parent.places) if parent else {}
        for place in places:
            self.places.update(dict.fromkeys(place.axes, place))
        self.values: dict[Node, Value] = {}
        self.reduce: Callable[[Scope, Reduce], str] | None = parent.reduce if parent else None

    # --- values ----------------------------------------------------------------------------------------

    def lookup(self, node: Node) -> Value | None:
        scope: Scope | None = self
        while scope is not None:
            if node in scope.values:
                return scope.values[node]
            scope = scope.parent
        return None

    def home(self, node: Node) -> Scope:
        """The outermost scope that binds all axes of a node and arranges them as here."""
        scope = self
        while scope.parent is not None and all(a in scope.parent.places for a in node.axes):
            scope = scope.parent
        return scope

    def evaluate(self, root: Node) -> Value:
        """The value of a node: its text, after the lines that it needs."""
        stack = [root]
        while stack:
            node = stack[-1]
            if self.lookup(node) is not None:
                stack.pop()
                continue
            expanded = spelling.expansion(node) if isinstance(node, Map) else None
            needed = (expanded,) if expanded is not None else self._needed(node)
            missing = [a for a in needed if self.lookup(a) is None]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            home = self.home(node)
            if expanded is not None:
                home.values[node] = home._operand(expanded)
            elif isinstance(node, Reduce):
                assert self.reduce is not None
                home.assign(node, Value(self.reduce(self, node)))
                found = home.values[node]
                home.values[node] = Value(found.text, ATOM, self._dims_of(node))
            else:
                home.define(node)
        found = self.lookup(root)
        assert found is not None
        return found

    def named(self, node: Node, wish: str = "") -> Value:
        """The value of a node as a name or a literal."""
        value = self.evaluate(node)
        if value.is_name or value.literal:
            return value
        return self.home(node).assign(node, value, wish)

    def _needed(self, node: Node) -> tuple[Node, ...]:
        if isinstance(node, Reduce) and self.reduce is None:
            raise InternalError(f"a reduction is needed before its loop has run: {node!r}")
        return node.args

    def _dims_of(self, node: Node) -> frozenset[int]:
        """The tile dimensions that a node's axes are bound to."""
        found = {id(self.places[a]) for a in node.axes}
        return frozenset(self.dims[i] for i in found if i in self.dims)

    def define(self, node: Node) -> None:
        value = self._spell(node)
        if not self._worth_a_name(node, value):
            self.values[node] = value
            return
        self.assign(node, value)

    def assign(self, node: Node, value: Value, wish: str = "") -> Value:
        """Give a value a name by a line of its own."""
        name = self.writer.names.fresh(wish or self.wish(node), self.block)
        self.block.add(f"{name} = {value.text}")
        self.values[node] = Value(name, ATOM, value.dims)
        return self.values[node]

    def _worth_a_name(self, node: Node, value: Value) -> bool:
        if value.literal or value.is_name:
            return False
        if isinstance(node, Read):
            return not self._cast_alone(node)
        if isinstance(node, Cast) and isinstance(node.arg, Read):
            return True
        return self.writer.uses.get(node, 2) > 1 or len(value.text) > LONGEST

    def _cast_alone(self, node: Read) -> bool:
        """Whether a read is used once, by a cast, which then has the operand's name."""
        return self.writer.cast_alone.get(node, False)

    def wish(self, node: Node) -> str:
        """What a person might call the value of a node."""
        while isinstance(node, Cast):
            node = node.arg
        if isinstance(node, Read):
            return node.param.lstrip("#")
        if isinstance(node, Reduce):
            return f"{node.combine}_{group_name(node.over)}"
        if isinstance(node, Map):
            return _WISHES.get(node.function, node.function)
        return "value"

    def _operand(self, node: Node) -> Value:
        """The value of an operand; named where it stands if that is further out than here."""
        value = self.lookup(node)
        assert value is not None
        if value.is_name or value.literal:
            return value
        home = self.home(node)
        return value if home is self else home.assign(node, value)

    def _spell(self, node: Node) -> Value:
        match node:
            case Const():
                return spelling.constant(node.value, node.dtype)
            case Read():
                return self.read(node)
            case Index():
                position = self.position(node.axis)
                return Value(f"{position.atom}.to(tl.int64)", ATOM, position.dims)
            case Size():
                size = self.writer.parameters.size(node.axis)
                return Value(size if self.writer.layout.wide else f"{size}.to(tl.int64)")
            case Cast():
                return spelling.cast(self._operand(node.arg), node.arg.dtype, node.dtype)
            case Map():
                if spelling.repeats_operands(node):
                    return spelling.spell(node, [self.named(a) for a in node.operands])
                return spelling.spell(node, [self._operand(a) for a in node.operands])
        raise InternalError(f"a value was needed before it was computed: {node!r}")

    # --- positions -------------------------------------------------------------------------------------

    def _oriented(self, place: Place, text: str) -> Value:
        """A position or mask of a place as a tile of this scope's rank."""
        dim = self.dims.get(id(place))
        if dim is None:
            return Value(text)
        if self.rank <= 1:
            return Value(text, ATOM, frozenset({dim}))
        indices = ", ".join(":" if d == dim else "None" for d in range(self.rank))
        return Value(f"{text}[{indices}]", ATOM, frozenset({dim}))

    def position(self, axis: str) -> Value:
        place = self.places[axis]
        return self._oriented(place, place.coordinate(axis))

    def mask(self, dims: frozenset[int]) -> Value | None:
        """Which positions of the tile are inside along the given dimensions."""
        parts = []
        for place in dict.fromkeys(self.places.values()):
            dim = self.dims.get(id(place))
            if place.mask is not None and dim in dims:
                parts.append((dim, self._oriented(place, place.mask).text))
        if not parts:
            return None
        texts = [text for _, text in sorted(parts)]
        return Value(" & ".join(texts), _AND if len(texts) > 1 else ATOM, frozenset(d for d, _ in parts))

    # --- memory ----------------------------------------------------------------------------------------

    def read(self, node: Read) -> Value:
        if node.param not in dict(self.writer.layout.classes):
            return Value(self.writer.parameters.scalar(node.param))
        pointer = self.address(node.param, node.names)
        mask = self.mask(pointer.dims)
        arguments = [pointer.text] + ([f"mask={mask.text}"] if mask else [])
        if mask:
            arguments.append(f"other={'0' if not node.dtype.is_float else '0.0'}")
        text = f"tl.load({', '.join(arguments)})"
        if node.dtype.is_bool:
            return Value(f"{text} != 0", LEVEL["!="], pointer.dims)
        return Value(text, ATOM, pointer.dims)

    def write(self, name: str, axes: tuple[str, ...], node: Node, value: Value) -> None:
        """Store a value of a node's dtype in a buffer."""
        pointer = self.address(name, axes, value.dims)
        mask = self.mask(pointer.dims | value.dims)
        value = self._stored(name, spelling.typed(value, node.dtype))
        text = f"{value.atom}.to(tl.int8)" if node.dtype.is_bool else value.text
        arguments = [pointer.text, text] + ([f"mask={mask.text}"] if mask else [])
        self.block.add(f"tl.store({', '.join(arguments)})")

    def _stored(self, name: str, value: Value) -> Value:
        if value.is_name or value.text.startswith("tl.full("):
            return value
        name = self.writer.names.fresh(name, self.block)
        self.block.add(f"{name} = {value.text}")
        return Value(name, ATOM, value.dims)

    def address(self, name: str, names: Sequence[str], at_least: frozenset[int] = frozenset()) -> Value:
        """A pointer to an operand's element at the current positions."""
        parameters, layout = self.writer.parameters, self.writer.layout
        terms: list[Value] = []
        dimension = 0
        while dimension < len(names):
            place = self.places[names[dimension]]
            if (
                len(place.axes) > 1
                and place.axes[0] == names[dimension]
                and joined_run(layout, name, names, place.axes)
            ):
                last = dimension + len(place.axes) - 1
                terms.append(self._term(name, last, self._oriented(place, place.flat)))
                dimension = last + 1
                continue
            if layout.of(name, dimension) != ZERO:
                terms.append(self._term(name, dimension, self.position(names[dimension])))
            dimension += 1
        pointer = parameters.pointer(name)
        dims = frozenset().union(*(t.dims for t in terms))
        text = " + ".join([pointer, *(t.text for t in terms if t.text)])
        return Value(text, _SUM if terms else ATOM, dims)

    def _term(self, name: str, dimension: int, position: Value) -> Value:
        kind = self.writer.layout.of(name, dimension)
        if kind == UNIT:
            return position
        if kind == ZERO:
            return Value("", ATOM)
        stride = self.writer.parameters.stride(name, dimension)
        return Value(f"{position.at(_PRODUCT)} * {stride}", _PRODUCT, position.dims)
