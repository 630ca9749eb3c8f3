"""Python text in pieces: blocks of lines, names that do not clash, expressions that know their precedence."""

from __future__ import annotations

import itertools
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
_RESERVED = frozenset(
    {"tl", "triton", "float", "int", "bool", "range", "min", "max", "abs", "len", "print", "_"}
)


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
    """A line, broken if it is too long: after the commas of its outermost call, or before its operators."""
    indent = INDENT * depth
    if len(indent) + len(line) <= WIDTH:
        yield (indent + line).rstrip()
        return
    call, tail = _without_conversion(line)
    head, arguments = _outermost_call(call)
    if arguments:
        yield f"{indent}{head}"
        for argument in arguments:
            yield from filled(f"{argument},", depth + 1)
        yield f"{indent}){tail}"
        return
    name, equals, expression = line.partition(" = ")
    terms = _terms(expression)
    if not equals or len(terms) < 2:
        yield indent + line
        return
    yield f"{indent}{name} = ("
    for term in terms:
        yield f"{indent}{INDENT}{term}"
    yield f"{indent})"


def filled(text: str, depth: int) -> Iterable[str]:
    """An argument of a call, broken before its loosest operators where it is too long."""
    line, indent = INDENT * depth, INDENT * depth
    for term in _terms(text):
        if line.strip() and len(line) + len(term) + 1 > WIDTH:
            yield line.rstrip()
            line = indent + INDENT
        line += term + " "
    yield line.rstrip()


def _depths(text: str) -> Iterable[tuple[int, int]]:
    """Each position outside of strings, with how many brackets are open there."""
    depth = 0
    for position, letter in enumerate(text):
        depth -= letter in ")]"
        yield position, depth
        depth += letter in "(["


def _without_conversion(line: str) -> tuple[str, str]:
    """`x = f(…).to(tl.float32)` as `x = f(…)` and what follows."""
    found = re.search(r"(?<=\))\.to\([\w.]+\)$", line)
    return (line[: found.start()], found.group()) if found else (line, "")


def _outermost_call(line: str) -> tuple[str, list[str]]:
    """`y = f(a, g(b, c))` as `y = f(` and its arguments; no arguments where the line is not one call."""
    found = re.match(r"(\w+ = )?[\w.]+\(", line)
    if found is None or not line.endswith(")"):
        return line, []
    start = found.end()
    if any(depth == 0 for position, depth in _depths(line) if start <= position < len(line) - 1):
        return line, []
    commas = [p for p, depth in _depths(line) if depth == 1 and p >= start and line[p] == ","]
    edges = [start, *(p + 1 for p in commas), len(line)]
    return line[:start], [line[a : b - 1].strip() for a, b in itertools.pairwise(edges)]


def is_call(text: str) -> bool:
    """Whether an expression is one call: `f(a) + g(b)` is not."""
    return bool(_outermost_call(text)[1]) and "=" not in text.partition("(")[0]


def _terms(expression: str) -> list[str]:
    """A long expression before each of its loosest operators."""
    open_at = dict(_depths(expression))
    for operators in PRECEDENCE[:-3]:
        starts = [
            found.start() + 1
            for operator in operators
            for found in re.finditer(rf" {re.escape(operator)} ", expression)
            if open_at[found.start()] == 0
        ]
        if starts:
            edges = [0, *sorted(starts), len(expression)]
            return [expression[a:b].strip() for a, b in itertools.pairwise(edges)]
    return [expression]


@dataclass(frozen=True)
class Value:
    """An expression: its text, how tightly its outermost operator binds, the tile dimensions it varies along.

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
    """Identifiers of one function; those of a loop's body, which Triton forgets, are free again after it."""

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
