"""Rewrite rules as equations, and the machine that applies them.

    x, c = number("x", "i"), number("c")
    Rule("constant factors leave a sum", tw.sum(x * c, "i"), c * tw.sum(x, "i"))

Both sides are ordinary expressions over pattern variables. A variable stands for any node of its dtypes. An
axis that a pattern names stands for the axes that the matched reduction (or position) has; a variable may
depend only on those that it declares, so `c` above is constant along "i" without a guard, and a rule that is
well formed as an expression cannot capture an axis. A number in a pattern stands for that number in any
dtype.

`when` guards a rule: a function of some of its variables, by name; a `constant` is passed as its value,
everything else as its node. What an equation cannot say is a `CodeRule`, which shows examples of what it
rewrites; one test evaluates both sides of every rule.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.dsl.axes import split_names
from tilewright.dsl.dtypes import (
    FLOAT8,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from tilewright.dsl.expression import Expr
from tilewright.dsl.program import (
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Order,
    Reduce,
    Scan,
    Scatter,
    Size,
    indexed,
    reduced,
    topological,
)
from tilewright.dsl.scalars import COMMUTATIVE
from tilewright.errors import InternalError

FLOATS = (float32, float64, float16, bfloat16, *FLOAT8)
INTEGERS = (int64, int32, int16, int8, uint8)


@dataclass(frozen=True, eq=False, slots=True)
class Var(Node):
    """A pattern variable: any node of one of `types`, or any `Const` of them if `constant`."""

    name: str
    names: tuple[str, ...]
    types: tuple[DType, ...]
    constant: bool = False

    def __post_init__(self) -> None:
        self._derive(self.names, self.types[0])

    def key(self) -> tuple:
        return (self.name, self.names, self.types, self.constant)


def _variable(types: tuple[DType, ...], name: str, axes: str, constant: bool = False) -> Expr:
    return Expr(Var(name, split_names(axes), types, constant))


def number(name: str, axes: str = "") -> Expr:
    return _variable(FLOATS + INTEGERS, name, axes)


def real(name: str, axes: str = "") -> Expr:
    return _variable(FLOATS, name, axes)


def integer(name: str, axes: str = "") -> Expr:
    return _variable(INTEGERS, name, axes)


def boolean(name: str, axes: str = "") -> Expr:
    return _variable((bool_,), name, axes)


def anything(name: str, axes: str = "") -> Expr:
    return _variable((*FLOATS, *INTEGERS, bool_), name, axes)


def typed(name: str, *types: DType, axes: str = "") -> Expr:
    return _variable(types, name, axes)


def constant_number(name: str) -> Expr:
    return _variable(FLOATS + INTEGERS, name, "", constant=True)


def constant_integer(name: str) -> Expr:
    return _variable(INTEGERS, name, "", constant=True)


def constant_real(name: str) -> Expr:
    return _variable(FLOATS, name, "", constant=True)


# --- matching ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """What a pattern's variables and axes stand for."""

    nodes: Mapping[Var, Node] = field(default_factory=dict)
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def with_node(self, variable: Var, node: Node) -> Match | None:
        if variable in self.nodes:
            return self if self.nodes[variable] is node else None
        return Match({**self.nodes, variable: node}, self.axes)

    def with_axes(self, pattern: tuple[str, ...], actual: tuple[str, ...]) -> Match | None:
        """One pattern axis stands for all of `actual`; several stand for one each."""
        if len(pattern) > 1 and len(pattern) != len(actual):
            return None
        groups = [actual] if len(pattern) == 1 else [(axis,) for axis in actual]
        axes = dict(self.axes)
        for name, group in zip(pattern, groups, strict=True):
            if axes.setdefault(name, group) != group:
                return None
        return Match(self.nodes, axes)

    def is_well_formed(self) -> bool:
        """Whether every variable's node depends only on such bound axes as the variable declares."""
        for variable, node in self.nodes.items():
            forbidden = (group for name, group in self.axes.items() if name not in variable.names)
            if any(axis in node.axes for group in forbidden for axis in group):
                return False
        return True


def matches(pattern: Node, node: Node, so_far: Match | None = None) -> Iterator[Match]:
    """Every way in which `node` is an instance of `pattern`."""
    so_far = so_far or Match()
    match pattern:
        case Var():
            if node.dtype in pattern.types and (not pattern.constant or isinstance(node, Const)):
                yield from _some(so_far.with_node(pattern, node))
        case Const():
            same_kind = pattern.dtype.is_bool == node.dtype.is_bool
            if isinstance(node, Const) and same_kind and _same_number(pattern.value, node.value):
                yield so_far
        case Index() | Size():
            if isinstance(node, (Index, Size)) and type(node) is type(pattern):
                yield from _some(so_far.with_axes((pattern.axis,), (node.axis,)))
        case Cast():
            if isinstance(node, Cast) and node.type == pattern.type:
                yield from matches(pattern.arg, node.arg, so_far)
        case Reduce():
            if isinstance(node, Reduce) and node.combine == pattern.combine:
                for found in _some(so_far.with_axes(pattern.over, node.over)):
                    yield from matches(pattern.arg, node.arg, found)
        case Map():
            if isinstance(node, Map) and node.function == pattern.function:
                for operands in _orders(node):
                    yield from _all_match(pattern.operands, operands, so_far)


def _some(found: Match | None) -> tuple[Match, ...]:
    return () if found is None else (found,)


def _orders(node: Map) -> Iterator[tuple[Node, ...]]:
    yield node.operands
    if node.function in COMMUTATIVE and node.operands[0] is not node.operands[1]:
        yield node.operands[::-1]


def _all_match(patterns: Sequence[Node], nodes: Sequence[Node], so_far: Match) -> Iterator[Match]:
    if not patterns:
        yield so_far
        return
    for found in matches(patterns[0], nodes[0], so_far):
        yield from _all_match(patterns[1:], nodes[1:], found)


def _same_number(a: float, b: float) -> bool:
    if a != a or b != b:
        return a != a and b != b
    return a == b and math.copysign(1, a) == math.copysign(1, b)


# --- building ---------------------------------------------------------------------------------------------


def build(pattern: Node, match: Match, dtype: DType) -> Node:
    """The instance of `pattern`; numbers take the dtype of what they meet, or `dtype` if that is nothing."""
    match pattern:
        case Var():
            return match.nodes[pattern]
        case Const():
            return Const(pattern.value, dtype)
        case Index() | Size():
            (axis,) = match.axes[pattern.axis]
            return type(pattern)(axis)
        case Cast():
            return Cast(build(pattern.arg, match, pattern.arg.dtype), pattern.type)
        case Reduce():
            over = tuple(axis for name in pattern.over for axis in match.axes[name])
            return reduced(pattern.combine, over, build(pattern.arg, match, dtype))
        case Map():
            return _build_map(pattern, match, dtype)
        case At():
            positions = [build(p, match, int64) for p in pattern.positions]
            along = [match.axes[name] for name in pattern.along]
            return indexed(
                build(pattern.arg, match, dtype), {a: p for (a,), p in zip(along, positions, strict=True)}
            )
    raise InternalError(f"{pattern!r} cannot stand in a rule")


def _build_map(pattern: Map, match: Match, dtype: DType) -> Node:
    if pattern.function == "where":
        condition = build(pattern.operands[0], match, bool_)
        return Map("where", (condition, *_build_alike(pattern.operands[1:], match, dtype)))
    return Map(pattern.function, _build_alike(pattern.operands, match, dtype))


def _build_alike(patterns: Sequence[Node], match: Match, dtype: DType) -> tuple[Node, ...]:
    """Operands that have one dtype, which those that are no numbers decide."""
    for pattern in patterns:
        if any(isinstance(part, (Var, Index, Size)) for part in topological([pattern])):
            dtype = build(pattern, match, dtype).dtype
            break
    return tuple(build(pattern, match, dtype) for pattern in patterns)


# --- rules ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """lhs = rhs, used from left to right."""

    name: str
    left: Expr
    right: Any
    when: Callable[..., bool] | None = None

    def __post_init__(self) -> None:
        right = self.right if isinstance(self.right, Expr) else Expr(Const(self.right, self.left.dtype))
        object.__setattr__(self, "right", right)
        left, right = self.left.node, right.node
        if not _variables(right) <= _variables(left) or not set(right.axes) <= set(left.axes):
            raise InternalError(f"rule {self.name!r} has on the right what is not on the left")
        if left.dtype.is_bool != right.dtype.is_bool:
            raise InternalError(f"rule {self.name!r} changes the dtype")

    @property
    def roots(self) -> tuple[str, ...]:
        return (root_of(self.left.node),)

    def __call__(self, node: Node) -> Node | None:
        """What `node` becomes, or None where the rule does not apply."""
        for found in matches(self.left.node, node):
            if found.is_well_formed() and self._holds(found):
                return build(self.right.node, found, node.dtype)
        return None

    def _holds(self, found: Match) -> bool:
        if self.when is None:
            return True
        by_name = {
            v.name: n.value if v.constant and isinstance(n, Const) else n for v, n in found.nodes.items()
        }
        return self.when(**{name: by_name[name] for name in inspect.signature(self.when).parameters})


@dataclass(frozen=True)
class CodeRule:
    """A function from a node to what it becomes, or None; `examples` gives patterns that it rewrites."""

    name: str
    roots: tuple[str, ...]
    rewrite: Callable[[Any], Node | None]
    examples: Callable[[], Iterable[Expr]]

    def __call__(self, node: Node) -> Node | None:
        return self.rewrite(node)


AnyRule = Rule | CodeRule


def _variables(node: Node) -> set[Var]:
    return {n for n in topological([node]) if isinstance(n, Var)}


def root_of(node: Node) -> str:
    """What rules are filed under: a scalar function's name, `sum[]` for a reduction, `cast`, `at`,
    `scatter`, `order`, `scan`.
    """
    match node:
        case Map():
            return node.function
        case Reduce():
            return f"{node.combine}[]"
        case Cast():
            return "cast"
        case At():
            return "at"
        case Scatter():
            return "scatter"
        case Order():
            return "order"
        case Scan():
            return "scan"
    raise InternalError(f"no rule rewrites {node!r}")


class RuleSet:
    """A table of rules, tried in order."""

    def __init__(self, *tables: Iterable[AnyRule]):
        self.rules: tuple[AnyRule, ...] = tuple(rule for table in tables for rule in table)
        self._by_root: dict[str, list[AnyRule]] = {}
        for rule in self.rules:
            for root in rule.roots:
                self._by_root.setdefault(root, []).append(rule)

    def step(self, node: Node) -> tuple[Node, AnyRule] | None:
        """What the first rule that applies makes of `node`."""
        if not node.args:
            return None
        for rule in self._by_root.get(root_of(node), ()):
            result = rule(node)
            if result is not None and result is not node:
                _check(rule, node, result)
                return result, rule
        return None


def _check(rule: AnyRule, before: Node, after: Node) -> None:
    if after.dtype != before.dtype or not set(after.axes) <= set(before.axes):
        raise InternalError(
            f"rule {rule.name!r} turned a {before.dtype}{list(before.axes)} into a "
            f"{after.dtype}{list(after.axes)}"
        )


def rewrite(roots: Iterable[Node], rules: RuleSet) -> tuple[Node, ...]:
    """The graph under `roots`, rewritten bottom-up until no rule applies. Every node is looked at once."""
    roots = tuple(roots)
    rewriter = _Rewriter(rules)
    return tuple(rewriter.normal_form(root) for root in roots)


class _Rewriter:
    """Normal forms, remembered. Without recursion: graphs may be deep."""

    def __init__(self, rules: RuleSet):
        self.rules = rules
        self.done: dict[Node, Node] = {}
        self.becomes: dict[Node, Node] = {}

    def normal_form(self, root: Node) -> Node:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.done:
                stack.pop()
                continue
            waits_for = self._advance(node)
            stack.extend(waits_for)
        return self.done[root]

    def _advance(self, node: Node) -> list[Node]:
        """Nodes whose normal forms `node` waits for; none once it is done."""
        if node in self.becomes:
            successor = self.becomes[node]
            if successor not in self.done:
                return [successor]
            self.done[node] = self.done[successor]
            return []
        pending = [arg for arg in node.args if arg not in self.done]
        if pending:
            return pending[::-1]
        successor = self._successor(node)
        if successor is None:
            self.done[node] = node
            return []
        self.becomes[node] = successor
        return [successor]

    def _successor(self, node: Node) -> Node | None:
        operands = tuple(self.done[arg] for arg in node.args)
        rule: AnyRule | None = None
        if any(new is not old for new, old in zip(operands, node.args, strict=True)):
            successor = _with_operands(node, operands)
            if successor is node:
                return None
        else:
            found = self.rules.step(node)
            if found is None:
                return None
            successor, rule = found
        if successor in self.becomes and successor not in self.done:
            name = rule.name if rule else "rebuilding"
            raise InternalError(
                f"rewriting goes in circles at {name!r}: {node!r} becomes {successor!r} again"
            )
        return successor


def _with_operands(node: Node, operands: tuple[Node, ...]) -> Node:
    """`node` over other operands. An integer product keeps one that would lose the axis it runs over."""
    if isinstance(node, Reduce) and node.combine == "prod" and not node.dtype.is_float:
        lost = set(node.over) - set(operands[0].axes)
        return node if lost else node.with_args(operands)
    return node.with_args(operands)
