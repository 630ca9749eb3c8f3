"""Programs as mathematics, for people: `e = exp(x - max(x, d))`, then `y = e / sum(e, d)`.

    formula(node)      one expression
    formula(program)   one line for each result and for each subexpression that is used more than once

Parentheses stand only where precedence asks for them; the order of evaluation is kept. Conversions that the
language makes by itself (float16 computed in float32, an integer meeting a float, narrowing of a result) are
left out unless `casts=True`. An operand that is read under other axis names than it was declared with prints
as `x[j d]`. A scan whose combine has no name prints as `scan(l0 * r0, l1 * r0 + r1; a, b; i)[1]`: what it
makes of the values l of what came before and r of what comes next, what it begins with, the axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from tilewright.dsl.axes import union
from tilewright.dsl.dtypes import bool_, int64
from tilewright.dsl.program import (
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Order,
    Program,
    Read,
    Reduce,
    Scan,
    Scatter,
    Size,
    topological,
)
from tilewright.dsl.scalars import SCALARS
from tilewright.dsl.scans import NAMED, name_of, sides
from tilewright.errors import InternalError

_PRECEDENCE = (
    ("==", "!=", "<", "<=", ">", ">="),
    ("|",),
    ("^",),
    ("&",),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "//", "%"),
    ("unary",),
    ("**",),
    ("atom",),
)
_LEVEL = {operator: level for level, group in enumerate(_PRECEDENCE) for operator in group}
_UNARY = {"neg": "-", "not": "~"}
_COMPARISON, _PRODUCT, _PREFIX, _POWER, _ATOM = (_LEVEL[o] for o in ("==", "*", "unary", "**", "atom"))

# One letter for the results of common functions; others take the first letter of their name.
_LETTERS = {
    "mul": "p",
    "div": "q",
    "add": "t",
    "sub": "z",
    "where": "w",
    "rsqrt": "r",
    "sqrt": "r",
    "cast": "c",
}

_WORDS = {At: "at", Scatter: "scatter", Order: "order"}

Text = tuple[str, int]


def formula(
    what: Node | Program,
    names: Mapping[Node, str] | None = None,
    *,
    casts: bool = False,
    longest: int = 20_000,
) -> str:
    """`what` as mathematics; nodes in `names` are printed by those names, as known quantities.

    Parts of an expression that would make it longer than `longest` characters are printed as `...`.
    """
    if isinstance(what, Program):
        return "\n".join(_program_lines(what, dict(names or {}), casts, longest))
    names = names or {}
    writer = _Writer(names, _renamed_params([what]), casts, longest)
    return writer.text(what)


def definition(node: Node, names: Mapping[Node, str]) -> str:
    """The right-hand side of `name = …` for a node that has a name itself."""
    return _Writer(names, _renamed_params([node]), False, 20_000).definition(node)


def names_of_all(program: Program) -> dict[Node, str]:
    """A name for every node of a Program but constants; an implied cast goes by its operand's."""
    names: dict[Node, str] = {}
    for result in program.results:
        root = _without_narrowing(result.node)
        if not _is_trivial(root):
            names.setdefault(root, result.name)
    taken = _taken(program)
    for node in program.nodes():
        if isinstance(node, Read):
            names[node] = node.param
        elif isinstance(node, Cast) and (_is_implied(node) or _without_narrowing(node) is not node):
            names[node] = names.get(node.arg) or formula(node.arg, names)
        elif node.args and node not in names:
            names[node] = _name_for(node, taken)
            taken.add(names[node])
    return names


def _taken(program: Program) -> set[str]:
    """The names in a Program that mean something else than one of its values."""
    taken = {p.name for p in program.params} | {r.name for r in program.results}
    return taken | set(SCALARS) | set(union(*(n.axes for n in program.nodes())))


def _program_lines(program: Program, names: dict[Node, str], casts: bool, longest: int) -> Iterable[str]:
    roots = [r.node if casts else _without_narrowing(r.node) for r in program.results]
    declared = {p.name: p.axes for p in program.params}
    renamed = {
        node for node in program.nodes() if isinstance(node, Read) and node.names != declared.get(node.param)
    }
    result_names: dict[Node, str] = {}
    for result, root in zip(program.results, roots, strict=True):
        if not _is_trivial(root):
            result_names.setdefault(root, result.name)
    known = {**names, **result_names}
    shared = _shared(roots, names, casts)
    taken = _taken(program) | set(names.values())
    for node in shared:
        if node not in known:
            known[node] = _name_for(node, taken)
            taken.add(known[node])
    writer = _Writer(known, {node.param for node in renamed}, casts, longest)
    for declared in program.extents:
        yield f"size({declared.axis}) = {writer.text(declared.size)}"
    for node in topological(roots):
        if node in result_names:
            yield f"{result_names[node]} = {writer.definition(node)}"
        elif node in shared and node not in names:
            yield f"{known[node]} = {writer.definition(node)}"
    for result, root in zip(program.results, roots, strict=True):
        if result_names.get(root) != result.name:
            yield f"{result.name} = {writer.text(root)}"


def _without_narrowing(node: Node) -> Node:
    narrows = isinstance(node, Cast) and node.type.is_float and node.arg.dtype == node.type.compute
    return node.args[0] if narrows else node


def _is_implied(node: Node) -> bool:
    """Whether a cast is one that the language makes by itself when operands meet."""
    if not isinstance(node, Cast):
        return False
    before, after = node.arg.dtype, node.type
    if before.is_float:
        return after.is_float and after.bits > before.bits
    if after.is_float:
        return True
    return before == bool_ or after == int64


def _is_trivial(node: Node) -> bool:
    while isinstance(node, Cast) or (isinstance(node, Map) and node.function == "neg"):
        node = node.args[0]
    return isinstance(node, (Const, Read, Index, Size))


def _shared(roots: Iterable[Node], names: Collection[Node], casts: bool) -> dict[Node, None]:
    """Nodes that would be printed more than once, operands before users."""
    uses: Counter[Node] = Counter()
    roots = tuple(roots)
    order = topological(roots)
    visible = {node for node in order if not (_is_implied(node) and not casts)}
    for node in (*order, None):
        operands = roots if node is None else node.args
        if node is not None and (node not in visible or node in names):
            continue
        for operand in operands:
            while operand not in visible:
                operand = operand.args[0]
            uses[operand] += 1
    return {node: None for node in order if uses[node] > 1 and not _is_trivial(node)}


def _name_for(node: Node, taken: Collection[str]) -> str:
    called = word(node)
    letter = _LETTERS.get(called, called[0])
    name, number = letter, 1
    while name in taken:
        number += 1
        name = f"{letter}{number}"
    return name


def word(node: Node) -> str:
    """What a node is called: its function, its reduction, its scan."""
    match node:
        case Map():
            return node.function
        case Reduce():
            return node.combine
        case Scan():
            return name_of(node.body) or "scan"
    return _WORDS.get(type(node), "cast")


def _renamed_params(roots: Iterable[Node]) -> set[str]:
    """Operands that stand under several axis names in one graph."""
    seen: dict[str, tuple[str, ...]] = {}
    renamed = set()
    for node in topological(roots):
        if isinstance(node, Read) and seen.setdefault(node.param, node.names) != node.names:
            renamed.add(node.param)
    return renamed


class _Writer:
    """Texts of nodes, each with the precedence of its outermost operator; built without recursion."""

    def __init__(self, names: Mapping[Node, str], renamed: Collection[str], casts: bool, longest: int):
        self.names = names
        self.renamed = renamed
        self.casts = casts
        self.longest = longest
        self.memo: dict[Node, Text] = {node: (name, _ATOM) for node, name in names.items()}

    def text(self, root: Node) -> str:
        for node in topological([root]):
            if node not in self.memo:
                self.memo[node] = self._limited(self._text(node))
        return self.memo[root][0]

    def definition(self, node: Node) -> str:
        """The right-hand side of the line that gives a named node its name."""
        for operand in node.args:
            self.text(operand)
        return self._limited(self._text(node))[0]

    def _limited(self, text: Text) -> Text:
        return text if len(text[0]) <= self.longest else ("...", _ATOM)

    def _text(self, node: Node) -> Text:
        match node:
            case Const():
                text = _number(node.value)
                return text, _PREFIX if text.startswith("-") else _ATOM
            case Read():
                return self._read(node), _ATOM
            case Index():
                return f"index({node.axis})", _ATOM
            case Size():
                return f"size({node.axis})", _ATOM
            case Cast():
                if _is_implied(node) and not self.casts:
                    return self.memo[node.arg]
                return f"cast({self.memo[node.arg][0]}, {node.type})", _ATOM
            case Reduce():
                return f"{node.combine}({self.memo[node.arg][0]}, {' '.join(node.over)})", _ATOM
            case At():
                return f"{self._operand(node.arg, _ATOM)}.at({self._positions(node)})", _ATOM
            case Scatter():
                return f"scatter_add({self.memo[node.arg][0]}, {self._positions(node)})", _ATOM
            case Order():
                word = ", descending" if node.descending else ""
                return f"argsort({self.memo[node.arg][0]}, {node.axis}{word})", _ATOM
            case Scan():
                return self._scan(node), _ATOM
            case Map():
                return self._map(node)
        raise InternalError(f"formula does not know the node {node!r}")

    def _read(self, node: Read) -> str:
        return f"{node.param}[{' '.join(node.names)}]" if node.param in self.renamed else node.param

    def _positions(self, node: At | Scatter) -> str:
        pairs = zip(node.along, node.positions, strict=True)
        return ", ".join(f"{axis}={self.memo[position][0]}" for axis, position in pairs)

    def _scan(self, node: Scan) -> str:
        name = name_of(node.body)
        operands = ", ".join(self.memo[o][0] for o in node.operands)
        how = ", reverse" * node.reverse
        if name and node.exclusive and node.initial[0].value == NAMED[name].identity(node.dtype):
            how += ", exclusive"
        elif node.exclusive:
            start = ", ".join(_number(c.value) for c in node.initial)
            how += f", exclusive from {start if len(node.initial) == 1 else f'({start})'}"
        if name:
            return f"{name}({operands}, {node.axis}{how})"
        number = "" if len(node.body) == 1 else None
        sides_of = [
            (placeholder, f"{letter}{position if number is None else number}")
            for letter, side in zip("lr", sides(node.body), strict=True)
            for position, placeholder in enumerate(side)
        ]
        writer = _Writer(dict(sides_of), (), self.casts, self.longest)
        body = ", ".join(writer.text(value) for value in node.body)
        which = f"[{node.which}]" if len(node.body) > 1 else ""
        return f"scan({body}; {operands}; {node.axis}{how}){which}"

    def _map(self, node: Map) -> Text:
        prefix = _UNARY.get(node.function)
        if prefix:
            return prefix + self._operand(node.operands[0], _PREFIX), _PREFIX
        infix = SCALARS[node.function].infix
        if infix is None:
            return f"{node.function}({', '.join(self.memo[a][0] for a in node.operands)})", _ATOM
        return self._infix(infix, *node.operands)

    def _infix(self, infix: str, left: Node, right: Node) -> Text:
        level = _LEVEL[infix]
        if infix == "**":
            return f"{self._operand(left, _POWER + 1)} ** {self._operand(right, _PREFIX)}", level
        if infix == "+" and self._is_negated(right):
            return f"{self._operand(left, level)} - {self._operand(right.args[0], level + 1)}", level
        on_the_left = level + 1 if level == _COMPARISON else level
        return f"{self._operand(left, on_the_left)} {infix} {self._operand(right, level + 1)}", level

    def _is_negated(self, node: Node) -> bool:
        return isinstance(node, Map) and node.function == "neg" and node not in self.names

    def _operand(self, node: Node, at_least: int) -> str:
        text, level = self.memo[node]
        return text if level >= at_least else f"({text})"


def _number(value: float | int | bool) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 and str(value) != "-0.0":
        return str(int(value))
    return str(value)
