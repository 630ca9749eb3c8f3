"""Evaluating nodes at a place in a kernel: which coordinates are bound, and what has been computed there.

A `Scope` is a region of the text with one arrangement of tile dimensions; a node is computed in the
outermost scope that binds all its axes.

    a = tl.load(a_ptr + m[:, None] * stride_a_m + k[None, :], …)  a read in a scope with the dimensions (m, k)
    h = oh[:, None] + r[None, :]                                  a computed position, tested in the mask
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tilewright.compiler.nest import Output, needed
from tilewright.compiler.targets.triton import float8, spelling
from tilewright.compiler.targets.triton.facts import written_inside
from tilewright.compiler.targets.triton.places import Place, Writer, group_name
from tilewright.compiler.targets.triton.schedule import UNIT, ZERO, indexed_names, joined_run
from tilewright.compiler.targets.triton.writer import ATOM, LEVEL, Block, Value, axis_name
from tilewright.dsl.affine import Affine, affine, from_affine
from tilewright.dsl.dtypes import FLOAT8, DType
from tilewright.dsl.masks import without_mask
from tilewright.dsl.program import At, Cast, Const, Index, Map, Node, Read, Reduce, Scan, Size
from tilewright.dsl.scans import name_of
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


def conjunction(condition: Node) -> tuple[Node, ...]:
    """The conditions of which one is made by `and`."""
    if isinstance(condition, Map) and condition.function == "and":
        return tuple(part for operand in condition.operands for part in conjunction(operand))
    return (condition,)


def both(*conditions: Value | None) -> Value | None:
    """All of some masks; None is one that always holds."""
    masks = [mask for mask in conditions if mask is not None]
    if len(masks) < 2:
        return masks[0] if masks else None
    dims = frozenset[int]().union(*(mask.dims for mask in masks))
    return Value(" & ".join(mask.at(_AND) for mask in masks), _AND, dims)


def _only_positions(writer: Writer, block: Block) -> dict[str, Place]:
    """The places of axes that no loop walks."""
    return {axis: Place(writer, block, (axis,), "0", only=True) for axis in writer.kernel.single}


class Walk(Protocol):
    """What computes some scans of a kernel together."""

    @property
    def operands(self) -> tuple[Node, ...]: ...

    def write(self, scope: Scope) -> None: ...

    def end(self, scope: Scope) -> None: ...


class Scope:
    """See the module's docstring. `dims` gives the dimension of each vector place, of `rank` dimensions."""

    def __init__(
        self, writer: Writer, block: Block, parent: Scope | None = None, places: Sequence[Place] = (),
        dims: Mapping[int, int] | None = None, rank: int = 0,
    ):  # fmt: skip
        self.writer = writer
        self.block = block
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.rank = rank
        self.dims: dict[int, int] = {**(parent.dims if parent else {}), **(dims or {})}
        self.places: dict[str, Place] = dict(parent.places) if parent else _only_positions(writer, block)
        for place in places:
            self.places.update(dict.fromkeys(place.axes, place))
        self.values: dict[Node, Value] = {}
        self.reduce: Callable[[Scope, Reduce], str] | None = parent.reduce if parent else None
        self.walks: Mapping[Scan, Walk] = parent.walks if parent else {}

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
            rewritten = self._rewritten(node)
            wanted = (rewritten,) if rewritten is not None else self._needed(node)
            missing = [a for a in wanted if self.lookup(a) is None]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            home = self.home(node)
            if rewritten is not None:
                home.values[node] = home._operand(rewritten)
            elif isinstance(node, Reduce):
                assert self.reduce is not None
                home.assign(node, Value(self.reduce(self, node)))
                found = home.values[node]
                home.values[node] = Value(found.text, ATOM, self._dims_of(node))
            elif isinstance(node, Scan):
                self.walks[node].write(home)
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

    def typed(self, node: Node) -> Value:
        """The value of a node in its own dtype, which literals and small numbers lack."""
        value = spelling.typed(self.evaluate(node), node.dtype)
        return self._widened(value) if node in self.writer.small else value

    def _needed(self, node: Node) -> tuple[Node, ...]:
        if isinstance(node, Reduce) and self.reduce is None:
            raise InternalError(f"a reduction is needed before its loop has run: {node!r}")
        if isinstance(node, Scan):
            return self.walks[node].operands
        masked = self._masked_read(node)
        if masked is not None:
            return (*needed(masked), *self._tests(masked, node.args[0]), node.args[2])
        return (*needed(node), *self._tests(node)) if isinstance(node, At) else needed(node)

    def _rewritten(self, node: Node) -> Node | None:
        """The node in other terms, if it is to be computed so."""
        if not isinstance(node, Map):
            return None
        true = self.writer.layout.facts.true
        if node.function == "and" and true & set(node.operands):
            one, other = node.operands
            return other if one in true else one
        if node.function == "where" and node.operands[0] in true:
            return node.operands[1]
        if node in self.writer.small and node.function in ("add", "sub"):
            return self._regrouped(node)
        return spelling.expansion(node)

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
        if value.literal or value.is_name or node in self.writer.tests:
            return False
        if node in self.writer.wishes:
            return True
        if isinstance(node, Index) and node in self.writer.small:
            return False
        if isinstance(node, (Read, At)):
            return not self._cast_alone(node)
        if isinstance(node, Cast) and node.dtype in FLOAT8:
            return self.writer.uses.get(node, 2) > 1
        if isinstance(node, Cast) and isinstance(node.arg, (Read, At)):
            return True
        return self.writer.uses.get(node, 2) > 1 or len(value.text) > LONGEST

    def _cast_alone(self, node: Node) -> bool:
        """Whether a read is used once, by a cast, which then has the operand's name."""
        return self.writer.cast_alone.get(node, False)

    def wish(self, node: Node) -> str:
        """What a person might call the value of a node."""
        if node in self.writer.wishes:
            return self.writer.wishes[node]
        while isinstance(node, Cast):
            node = node.arg
        node = self._masked_read(node) or node
        node = node.arg if isinstance(node, At) else node
        if isinstance(node, Read):
            return node.param.lstrip("#")
        if isinstance(node, Reduce):
            return f"{node.combine}_{group_name(node.over)}"
        if isinstance(node, Scan):
            return f"{name_of(node.body) or 'scan'}_{axis_name(node.axis)}"
        if isinstance(node, Map):
            return _WISHES.get(node.function, node.function)
        return "value"

    def _operand(self, node: Node) -> Value:
        """The value of an operand; named where it stands if that is further out than here."""
        value = self.lookup(node)
        assert value is not None
        if value.is_name or value.literal or (isinstance(node, Index) and node in self.writer.small):
            return value
        home = self.home(node)
        return value if home is self else home.assign(node, value)

    def _spell(self, node: Node) -> Value:
        match node:
            case Const():
                return spelling.constant(node.value, node.dtype)
            case Read():
                return self.read(node)
            case At():
                return self.read_at(node, self._tests(node))
            case Index():
                return self._in_64_bits(node, self.position(node.axis))
            case Size():
                size = Value(self.writer.parameters.size(node.axis))
                return size if self.writer.layout.wide else self._in_64_bits(node, size)
            case Cast():
                return self._cast(node)
            case Map():
                return self._map(node)
        raise InternalError(f"a value was needed before it was computed: {node!r}")

    def _in_64_bits(self, node: Node, value: Value) -> Value:
        if node in self.writer.small or value.literal:
            return value
        return Value(f"{value.atom}.to(tl.int64)", ATOM, value.dims)

    def _cast(self, node: Cast) -> Value:
        value = self._operand(node.arg)
        if node not in self.writer.small:
            return spelling.cast(value, node.arg.dtype, node.dtype)
        if node.arg.dtype.bits == 32 or value.literal:
            return value
        return Value(f"{value.atom}.to(tl.int32)", ATOM, value.dims)

    def _map(self, node: Map) -> Value:
        masked = self._masked_read(node)
        if masked is not None:
            fill = self._operand(node.operands[2])
            return self.read_at(masked, self._tests(masked, node.operands[0]), fill.text)
        natural, small = node in self.writer.layout.facts.natural, node in self.writer.small
        get = self.named if spelling.repeats_operands(node, natural) else self._operand
        operands = [get(a) for a in node.operands]
        if not small and not self._widens_by_itself(node):
            pairs = zip(node.operands, operands, strict=True)
            operands = [self._widened(v) if a in self.writer.small else v for a, v in pairs]
        return spelling.spell(node, operands, natural=natural, small=small)

    def _widens_by_itself(self, node: Map) -> bool:
        """Whether Triton computes in 64 bits what has small operands and must not be small itself."""
        large = [a for a in node.operands if a not in self.writer.small and not a.dtype.is_bool]
        if any(isinstance(a, Const) for a in large):
            return False
        return node.dtype.is_bool or (bool(large) and node.function in (*spelling.INFIX, "where"))

    @staticmethod
    def _widened(value: Value) -> Value:
        return value if value.literal else Value(f"{value.atom}.to(tl.int64)", ATOM, value.dims)

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
        if place.only:
            return Value("0", literal=True)
        return self._oriented(place, place.coordinate(axis))

    def mask(self, dims: frozenset[int]) -> Value | None:
        """Which positions of the tile are inside along the given dimensions."""
        parts = []
        for place in dict.fromkeys(self.places.values()):
            dim = self.dims.get(id(place))
            if place.mask is not None and dim in dims:
                parts.append((dim, self._oriented(place, place.mask)))
        return both(*(part for _, part in sorted(parts, key=lambda p: p[0])))

    def _regrouped(self, node: Node) -> Node | None:
        """A sum in which what is known further out, or along one dimension, is added up there and first.

        oh * 2 + r - 1    →    h_start = oh[:, None] * 2 - 1  before the loop over r;  h_start + r[None, :]
        """
        form = affine(node)
        groups: dict[tuple[int, ...], dict[Node, int]] = {}
        keys = {term: (self.home(term).depth, *sorted(self._dims_of(term))) for term in form.terms}
        for term in sorted(form.terms, key=lambda t: keys[t]):
            groups.setdefault(keys[term], {})[term] = form.terms[term]
        parts = [Affine(terms, 0) for terms in groups.values()]
        if len(parts) < 2:
            return None
        parts[0] = Affine(parts[0].terms, form.constant)
        if all(len(part.terms) == 1 and not part.constant for part in parts):
            return None
        total = self._summed(parts, self.writer.wishes.get(node))
        if total is node:
            return None
        self.writer.uses[total] = self.writer.uses[node]
        if node in self.writer.wishes:
            self.writer.wishes[total] = self.writer.wishes[node]
        return total

    def _summed(self, parts: Sequence[Affine], wish: str | None) -> Node:
        total = self._part(parts[0], wish)
        for part in parts[1:]:
            negative = all(coefficient < 0 for coefficient in part.terms.values())
            term = self._part(part.scaled(-1) if negative else part, wish)
            total = Map("sub" if negative else "add", (total, term))
            self.writer.small.add(total)
            self.writer.uses.setdefault(total, 1)
        return total

    def _part(self, part: Affine, wish: str | None) -> Node:
        node = from_affine(part)
        self.writer.small.add(node)
        if wish and (len(part.terms) > 1 or part.constant):
            self.writer.wishes.setdefault(node, f"{wish}_start")
        self.writer.uses.setdefault(node, 1)
        return node

    # --- memory ----------------------------------------------------------------------------------------

    def read(self, node: Read) -> Value:
        if node.param not in dict(self.writer.layout.classes):
            return Value(self.writer.parameters.scalar(node.param))
        pointer = self.address(node.param, node.names)
        return self._load(pointer, self.mask(pointer.dims), node.dtype)

    def _load(self, pointer: Value, mask: Value | None, dtype: DType, fill: str = "") -> Value:
        arguments = [pointer.text]
        if dtype in FLOAT8:
            return float8.loaded(pointer, mask, dtype)
        if mask:
            arguments += [f"mask={mask.text}", f"other={fill or ('0.0' if dtype.is_float else '0')}"]
        text = f"tl.load({', '.join(arguments)})"
        if dtype.is_bool:
            return Value(f"{text} != 0", LEVEL["!="], pointer.dims)
        return Value(text, ATOM, pointer.dims)

    def _masked_read(self, node: Node) -> At | None:
        """The indexed read that `where(condition, read, constant)` reads only where the condition holds."""
        if not isinstance(node, Map) or node.function != "where":
            return None
        condition, value, fill = node.operands
        if not isinstance(value, At) or self.writer.uses[value] > 1 or not isinstance(fill, Const):
            return None
        rest = {*conjunction(value.inside())} - {*conjunction(condition)} - self.writer.layout.facts.true
        fits = fill.value == 0 or not rest  # where only the position is outside there is 0
        fits = fits and (value.dtype not in FLOAT8 or fill.value == 0)
        return value if fits and not value.dtype.is_bool else None

    def _tests(self, node: At, condition: Node | None = None) -> tuple[Node, ...]:
        """What must hold where an indexed operand is read, without what always does."""
        found: dict[Node, None] = {}
        covered: set[Node] = set()
        for whole in (condition, node.inside()):
            if whole is None or covered.issuperset(parts := conjunction(whole)):
                continue
            shared = self.writer.uses[whole] > (whole is condition)
            found.update(dict.fromkeys((whole,) if shared else parts))
            if not shared or set(whole.axes) <= set(node.axes):  # else it comes after the read
                covered.update(parts)
        return tuple(test for test in found if test not in self.writer.layout.facts.true)

    def outside(self, node: Node) -> float | int | None:
        """What a value that runs along masked dimensions is where a mask does not hold; None if anything."""
        while True:
            computed = self._rewritten(node)
            if computed is not None:
                node = computed
            elif isinstance(node, Cast) and node.dtype.is_float == node.arg.dtype.is_float:
                node = node.arg
            else:
                break
        if self._masked_read(node) is not None:
            fill = node.args[2]
            assert isinstance(fill, Const)
            return fill.value
        under = without_mask(node)
        if under is not None:
            return 0 if self.outside(under[1]) == 0 else None
        return 0 if isinstance(node, (Read, At)) else None

    def read_at(self, node: At, tests: Sequence[Node], fill: str = "") -> Value:
        """An operand at computed positions, `fill` (or 0) where a test fails: nothing is touched there."""
        assert isinstance(node.arg, Read)
        pairs = zip(node.along, node.positions, strict=True)
        at = {axis: self.named(position, axis_name(axis)) for axis, position in pairs}
        name, names = indexed_names(node)
        pointer = self.address(name, names, at=[at[axis] for axis in node.arg.names if axis in at])
        values = [self.lookup(test) for test in tests]
        inside = [v for v in values if v is not None and v.dims <= pointer.dims]
        beside = [v for v in values if v is not None and not v.dims <= pointer.dims]
        value = self._load(pointer, both(self.mask(pointer.dims), *inside), node.dtype, fill)
        condition = both(*beside)
        if condition is None:
            return value
        condition = both(self.mask(condition.dims - pointer.dims), condition) or condition
        fill = fill or ("0.0" if node.dtype.is_float else "0")
        return Value(f"tl.where({condition.text}, {value.text}, {fill})", ATOM, value.dims | condition.dims)

    def store(self, output: Output, value: Value) -> None:
        """Store a result of the kernel, at its places where it has some."""
        buffer = output.buffer
        if not output.places:
            self.write(buffer.name, buffer.axes, output.node, value)
            return
        pairs = zip(buffer.axes, output.places, strict=True)
        at = [
            self.position(p.axis) if isinstance(p, Index) else self.named(p, f"to_{axis_name(axis)}")
            for axis, p in pairs
        ]
        tests = [t for t in conjunction(written_inside(output)) if t not in self.writer.layout.facts.true]
        inside = [self.evaluate(test) for test in tests]
        self._put(self.address(buffer.name, ("",) * len(at), at), buffer.name, output.node, value, inside)

    def write(self, name: str, axes: tuple[str, ...], node: Node, value: Value) -> None:
        """Store a value of a node's dtype in a buffer."""
        self._put(self.address(name, axes), name, node, value)

    def _put(self, pointer: Value, name: str, node: Node, value: Value, inside: Sequence[Value] = ()) -> None:
        mask = both(self.mask(pointer.dims | value.dims), *inside)
        value = spelling.typed(value, node.dtype)
        value = self._stored(name, float8.bits(value, node.dtype) if node.dtype in FLOAT8 else value)
        text = f"{value.atom}.to(tl.int8)" if node.dtype.is_bool else value.text
        arguments = [pointer.text, text] + ([f"mask={mask.text}"] if mask else [])
        self.block.add(f"tl.store({', '.join(arguments)})")

    def _stored(self, name: str, value: Value) -> Value:
        if value.is_name or value.text.startswith("tl.full("):
            return value
        name = self.writer.names.fresh(name, self.block)
        self.block.add(f"{name} = {value.text}")
        return Value(name, ATOM, value.dims)

    def address(self, name: str, names: Sequence[str], at: Iterable[Value] = ()) -> Value:
        """A pointer to an operand's element at the current positions; `at` are those along nameless axes."""
        parameters, layout = self.writer.parameters, self.writer.layout
        terms: list[Value] = []
        computed = iter(at)
        dimension = 0
        while dimension < len(names):
            if not names[dimension]:
                terms.append(self._term(name, dimension, next(computed)))
                dimension += 1
                continue
            place = self.places[names[dimension]]
            if place.only:
                dimension += 1
                continue
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
        terms = [term for term in terms if term.text]
        dims = frozenset().union(*(t.dims for t in terms))
        text = " + ".join([pointer, *(t.at(_SUM + 1) for t in terms)])
        return Value(text, _SUM if terms else ATOM, dims)

    def _term(self, name: str, dimension: int, position: Value) -> Value:
        kind = self.writer.layout.of(name, dimension)
        if kind == UNIT:
            return position
        if kind == ZERO:
            return Value("", ATOM)
        stride = self.writer.parameters.stride(name, dimension)
        return Value(f"{position.at(_PRODUCT)} * {stride}", _PRODUCT, position.dims)
