"""Programs as text: exact, the same in every process, one node a line.

    program softmax
    param x f32 [_0 d]
    %0 = read x [_0 d]
    %1 = max [d] %0
    %2 = sub %0 %1
    %3 = exp %2
    %4 = sum [d] %3
    %5 = div %3 %4
    result y [_0 d] %5

The combine of a scan stands before it, over `left n` and `right n`, the values of its two sides:

    %1 = left 0 f32
    %2 = right 0 f32
    %3 = mul %1 %2
    %4 = scan 0 [d] forward (%3) (%0)                 or  scan 0 [d] reverse from 1.0 (%3) (%0)

`from_text(to_text(program)) == program`, to the last bit of every constant. The text is plain ASCII and
depends on nothing but the program, so it is what build caches hash and store. `extent oh %4` gives the
extent of an axis that no operand has; `%7 = at [h w] %0 %5 %6` and `%9 = scatter [row] [n] %7 %8` list the
positions last; `%5 = ascending [i] %4` is the order of %4 along i.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from tilewright.dsl.dtypes import BY_NAME, DType
from tilewright.dsl.program import (
    COMBINES,
    At,
    AxisExtent,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Order,
    Param,
    Program,
    Read,
    Reduce,
    Result,
    Scan,
    Scatter,
    Size,
    topological,
)
from tilewright.dsl.scalars import SCALARS
from tilewright.dsl.scans import LEFT, left, placeholder, right
from tilewright.errors import InternalError, LanguageError, UserError

_PLAIN = re.compile(r"[!-\[\]-~]")
_ESCAPE = re.compile(r"\\([0-9a-f]+);")
_NODE = re.compile(r"%(\d+) = (\S+)(?: (.*))?\Z")
_HEADER = re.compile(r"(param|scalar) (\S+) (\w+) \[(.*)\]\Z")
_EXTENT = re.compile(r"extent (\S+) %(\d+)\Z")
_SCAN = re.compile(r"(\d+) \[(\S+)\] (forward|reverse)(?: from ([^(]+))? \((.+)\) \((.+)\)\Z")
_RESULT = re.compile(r"result (\S+) \[(.*)\] %(\d+)\Z")


def to_text(program: Program) -> str:
    """The program's text. Equal programs have equal texts, in every process."""
    nodes = _with_bodies(program)
    number = {node: f"%{position}" for position, node in enumerate(nodes)}
    lines = [f"program {_escape(program.name)}"]
    for param in program.params:
        keyword = "scalar" if param.scalar else "param"
        lines.append(f"{keyword} {_escape(param.name)} {param.dtype} {_axes(param.axes)}")
    lines.extend(f"{number[node]} = {_node_text(node, number)}" for node in nodes)
    for declared in program.extents:
        lines.append(f"extent {declared.axis} {number[declared.size]}")
    for result in program.results:
        lines.append(f"result {_escape(result.name)} {_axes(result.axes)} {number[result.node]}")
    return "\n".join(lines) + "\n"


def from_text(text: str) -> Program:
    """The program that `to_text` wrote. Raises `LanguageError` with the line where the text is not one."""
    reader = _Reader()
    for position, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            reader.line(line.strip())
        except (KeyError, ValueError, IndexError, OverflowError, UserError, InternalError) as error:
            raise LanguageError(f"line {position} of a program's text is not valid: {line!r}") from error
    return reader.program()


# --- writing ----------------------------------------------------------------------------------------------


def _with_bodies(program: Program) -> tuple[Node, ...]:
    """Every node, operands before users and the combine of a scan before the scan."""
    nodes: dict[Node, None] = {}
    for node in topological((*(e.size for e in program.extents), *(r.node for r in program.results))):
        if isinstance(node, Scan):
            nodes.update(dict.fromkeys(topological(node.body)))
        nodes[node] = None
    return tuple(nodes)


def _node_text(node: Node, number: Mapping[Node, str]) -> str:
    stands_for = placeholder(node)
    if stands_for:
        return f"{'left' if stands_for[0] == LEFT else 'right'} {stands_for[1]} {node.dtype}"
    operands = " ".join(number[a] for a in node.args)
    match node:
        case Const():
            return f"const {node.type} {_constant(node.value)}"
        case Read():
            return f"read {_escape(node.param)} {_axes(node.names)}"
        case Index():
            return f"index {_axes((node.axis,))}"
        case Size():
            return f"size {_axes((node.axis,))}"
        case Cast():
            return f"cast {node.type} {operands}"
        case Map():
            return f"{node.function} {operands}"
        case Reduce():
            return f"{node.combine} {_axes(node.over)} {operands}"
        case At():
            return f"at {_axes(node.along)} {operands}"
        case Scatter():
            return f"scatter {_axes(node.along)} {_axes(node.over)} {operands}"
        case Order():
            return f"{'descending' if node.descending else 'ascending'} {_axes((node.axis,))} {operands}"
        case Scan():
            way = "reverse" if node.reverse else "forward"
            start = "".join(f" {_constant(c.value)}" for c in node.initial)
            body = " ".join(number[value] for value in node.body)
            start = f" from{start}" if start else ""
            return f"scan {node.which} {_axes((node.axis,))} {way}{start} ({body}) ({operands})"
    raise InternalError(f"the text form does not know the node {node!r}")


def _constant(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _axes(axes: tuple[str, ...]) -> str:
    return f"[{' '.join(axes)}]"


def _escape(name: str) -> str:
    escaped = "".join(c if _PLAIN.match(c) else f"\\{ord(c):x};" for c in name)
    return escaped or "\\"


# --- reading ----------------------------------------------------------------------------------------------


def _unescape(text: str) -> str:
    return "" if text == "\\" else _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


class _Reader:
    """Builds a program from its lines, in order."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.params: dict[str, Param] = {}
        self.nodes: list[Node] = []
        self.extents: list[AxisExtent] = []
        self.results: list[Result] = []

    def program(self) -> Program:
        if self.name is None or not self.results:
            raise LanguageError(
                "a program's text begins with `program name` and has at least one `result` line"
            )
        return Program(self.name, tuple(self.params.values()), tuple(self.results), tuple(self.extents))

    def line(self, line: str) -> None:
        if self.name is None:
            keyword, name = line.split(" ")
            if keyword != "program":
                raise ValueError(line)
            self.name = _unescape(name)
        elif found := _NODE.match(line):
            if int(found[1]) != len(self.nodes):
                raise ValueError(line)
            self.nodes.append(self._node(found[2], found[3] or ""))
        elif found := _EXTENT.match(line):
            self.extents.append(AxisExtent(found[1], self.nodes[int(found[2])]))
        elif found := _RESULT.match(line):
            node = self.nodes[int(found[3])]
            self.results.append(Result(_unescape(found[1]), node, tuple(found[2].split())))
        elif found := _HEADER.match(line):
            name = _unescape(found[2])
            axes = tuple(found[4].split())
            self.params[name] = Param(name, axes, BY_NAME[found[3]], scalar=found[1] == "scalar")
        else:
            raise ValueError(line)

    def _node(self, word: str, rest: str) -> Node:
        if word in _LEAVES:
            return _LEAVES[word](self, rest)
        if word == "cast":
            dtype, operand = rest.split(" ")
            return Cast(self._operand(operand), BY_NAME[dtype])
        if word in COMBINES:
            axes, operand = rest[1:].split("] ")
            over = tuple(axes.split())
            return Reduce(word, over, self._operand(operand))
        if word in ("ascending", "descending"):
            axis, operand = rest.removeprefix("[").split("] ")
            return Order(axis, word == "descending", self._operand(operand))
        if word in ("at", "scatter"):
            return self._positions(word, rest)
        if word == "scan":
            return self._scan(rest)
        operands = tuple(self._operand(name) for name in rest.split())
        if len(operands) != SCALARS[word].arity:
            raise ValueError(rest)
        return Map(word, operands)

    def _positions(self, word: str, rest: str) -> Node:
        *lists, operands = rest.split("] ")
        along, *over = (tuple(axes.removeprefix("[").split()) for axes in lists)
        arg, *positions = (self._operand(name) for name in operands.split())
        if word == "at" and not over:
            return At(along, arg, tuple(positions))
        (summed,) = over
        return Scatter(along, summed, arg, tuple(positions))

    def _scan(self, rest: str) -> Node:
        found = _SCAN.match(rest)
        if not found:
            raise ValueError(rest)
        which, axis, way, start, *groups = found.groups()
        body, operands = (tuple(self._operand(name) for name in group.split()) for group in groups)
        numbers = start.split() if start else []
        if len(operands) != len(body) or len(numbers) not in (0, len(body)):
            raise ValueError(rest)
        initial = tuple(
            Const(_parse_constant(number, value.dtype), value.dtype)
            for number, value in zip(numbers, body, strict=False)
        )
        return Scan(int(which), body, operands, axis, way == "reverse", initial)

    def _operand(self, text: str) -> Node:
        if not re.match(r"%\d+\Z", text):
            raise ValueError(text)
        return self.nodes[int(text[1:])]

    def _const(self, rest: str) -> Node:
        name, value = rest.split(" ")
        return Const(_parse_constant(value, BY_NAME[name]), BY_NAME[name])

    def _read(self, rest: str) -> Node:
        name, axes = rest.split(" ", 1)
        param = self.params[_unescape(name)]
        return Read(param.name, tuple(axes.strip("[]").split()), param.dtype)

    def _index(self, rest: str) -> Node:
        return Index(rest.strip("[]"))

    def _size(self, rest: str) -> Node:
        return Size(rest.strip("[]"))

    def _left(self, rest: str) -> Node:
        position, dtype = rest.split(" ")
        return left(int(position), BY_NAME[dtype])

    def _right(self, rest: str) -> Node:
        position, dtype = rest.split(" ")
        return right(int(position), BY_NAME[dtype])


_LEAVES: dict[str, Callable[[_Reader, str], Node]] = {
    "const": _Reader._const,
    "read": _Reader._read,
    "index": _Reader._index,
    "size": _Reader._size,
    "left": _Reader._left,
    "right": _Reader._right,
}


def _parse_constant(text: str, dtype: DType) -> float | int | bool:
    if dtype.is_bool:
        return {"true": True, "false": False}[text]
    if dtype.is_integer:
        return int(text)
    value = float(text)
    return math.nan if math.isnan(value) else value
