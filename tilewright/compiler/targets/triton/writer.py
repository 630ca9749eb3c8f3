"""Python text in pieces: blocks of lines, names that do not clash, expressions that know their precedence."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

PRECEDENCE = (
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
LEVEL = {operator: level for level, group in enumerate(PRECEDENCE) for operator in group}
ATOM = LEVEL["atom"]
UNARY = LEVEL["unary"]

INDENT = "    "
WIDTH = 110

# What generated code calls by these names, and what Triton's front end reads as something else.
_RESERVED = frozenset({"tl", "triton", "float", "int", "bool", "range", "min", "max", "abs", "len", "print", "_"})


@dataclass
class Block:
    """Lines of code, with the blocks inside (loop bodies) indented; `head` is the line that opens it."""

    head: str = ""
    lines: list[str | Block] = field(default_factory=list)

    def add(self, line: str | Block) -> None:
        self.lines.append(line)

    def render(self, depth: int = 0) -> Iterable[str]:
        inner = depth
        if self.head:
            yield INDENT * depth + self.head
            inner += 1
        for line in self.lines:
            if isinstance(line, Block):
                yield from line.render(inner)
            else:
                yield from wrapped(line, inner)


def wrapped(line: str, depth: int) -> Iterable[str]:
    """A line as it is, or broken after the commas of its outermost call where it is too long."""
    indent = INDENT * depth
    if len(indent) + len(line) <= WIDTH or not line.endswith(")") or "(" not in line:
        yield (indent + line).rstrip()
        return
    head, arguments = _outermost_call(line)
    yield f"{indent}{head}"
    for argument in arguments:
        yield f"{indent}{INDENT}{argument},"
    yield f"{indent})"


def _outermost_call(line: str) -> tuple[str, list[str]]:
    """`f(a, g(b, c))` as `f(` and its arguments."""
    depth, start = 0, 0
    for position in range(len(line) - 1, -1, -1):
        depth += (line[position] in ")]") - (line[position] in "([")
        if depth == 0:
            start = position + 1
            break
    arguments, depth, begin = [], 0, start
    for position in range(start, len(line) - 1):
        depth += (line[position] in "([") - (line[position] in ")]")
        if depth == 0 and line[position] == ",":
            arguments.append(line[begin:position].strip())
            begin = position + 1
    return line[:start], [*arguments, line[begin:-1].strip()]


@dataclass(frozen=True)
class Value:
    """An expression: its text, how tightly its outermost operator binds, and the tile dimensions it varies along.

    A literal is a Python number, which takes the type of what it meets.
    """

    text: str
    level: int = ATOM
    dims: frozenset[int] = frozenset()
    literal: bool = False

    @property
    def is_name(self) -> bool:
        return self.level == ATOM and self.text.isidentifier()

    def at(self, level: int) -> str:
        """The text as an operand of an operator of this level."""
        return self.text if self.level >= level else f"({self.text})"

    @property
    def atom(self) -> str:
        return self.at(ATOM)


class Names:
    """Identifiers of one function. Those of a loop's body are free again after it: Triton forgets them there."""

    def __init__(self, taken: Iterable[str] = ()):
        self._taken = set(_RESERVED) | set(taken) | set(keyword.kwlist)
        self._owned: dict[int, list[str]] = {}

    def release(self, block: Block) -> None:
        """Names given out for the body of a loop may be used again."""
        self._taken.difference_update(self._owned.pop(id(block), ()))

    def fresh(self, wish: str, block: Block | None = None) -> str:
        """`wish` made an identifier, with a number behind it if it is taken; for use inside `block` alone."""
        stem = identifier(wish)
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}{number}" if not stem[-1].isdigit() else f"{stem}_{number}"
        self._taken.add(name)
        if block is not None and block.head:
            self._owned.setdefault(id(block), []).append(name)
        return name


def identifier(text: str) -> str:
    """`text` as a Python identifier of ASCII letters, digits and underscores."""
    plain = re.sub(r"[^0-9A-Za-z_]", "_", text.replace("'", "2"))
    return f"v{plain}" if not plain or plain[0].isdigit() else plain


def axis_name(axis: str) -> str:
    """A readable identifier for an axis: `_0` is batch axis 0, `#rows:…` counts parts."""
    if axis.startswith("#"):
        return "part"
    if axis.startswith("_"):
        return f"batch{axis[1:]}".replace("'", "_2")
    return identifier(axis)
