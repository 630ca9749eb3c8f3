"""Whole-number expressions as sympy's, and back: how equations between positions are solved."""

from __future__ import annotations

from typing import Any

import sympy

from tilewright.dsl.affine import shortest
from tilewright.dsl.dtypes import int64
from tilewright.dsl.program import Const, Map, Node, topological


class Symbols:
    """One symbol for every node that is no sum or product: positions, sizes, values that are read."""

    def __init__(self) -> None:
        self._symbol: dict[Node, sympy.Symbol] = {}
        self._node: dict[sympy.Symbol, Node] = {}

    def of(self, root: Node) -> Any:
        """The sympy expression of an int64 node."""
        values: dict[Node, Any] = {}
        for node in topological([root]):
            values[node] = self._expression(node, values)
        return sympy.expand(values[root])

    def _expression(self, node: Node, values: dict[Node, Any]) -> Any:
        if isinstance(node, Const) and node.dtype == int64:
            return sympy.Integer(node.value)
        if isinstance(node, Map) and node.dtype == int64:
            operands = [values[a] for a in node.operands]
            match node.function, operands:
                case "add", (a, b):
                    return a + b
                case "sub", (a, b):
                    return a - b
                case "mul", (a, b):
                    return a * b
                case "neg", (a,):
                    return -a
        return self.symbol(node)

    def symbol(self, node: Node) -> sympy.Symbol:
        if node not in self._symbol:
            symbol = sympy.Symbol(f"n{len(self._symbol)}", integer=True)
            self._symbol[node], self._node[symbol] = symbol, node
        return self._symbol[node]

    def linear(self, expression: Any, unknown: Node) -> tuple[Any, Any] | None:
        """(step, rest) with expression = step · unknown + rest, step ≠ 0; None where it is not linear."""
        symbol = self.symbol(unknown)
        polynomial = sympy.Poly(expression, symbol)
        if polynomial.degree() != 1:
            return None
        step, rest = polynomial.all_coeffs()
        return step, rest

    def divided(self, expression: Any, divisor: Any) -> Any | None:
        """expression / divisor, if that is a polynomial with whole coefficients."""
        numerator, denominator = sympy.cancel(expression / divisor).as_numer_denom()
        return sympy.expand(numerator) if denominator == 1 else None

    def node(self, expression: Any) -> Node:
        """The node of an expression that was made here."""
        if expression.is_Integer:
            return Const(int(expression), int64)
        if expression.is_Symbol:
            return self._node[expression]
        if expression.is_Pow:
            base, exponent = expression.args
            return _chain("mul", [self.node(base)] * int(exponent))
        function = "add" if expression.is_Add else "mul"
        parts = [self.node(part) for part in sorted(expression.args, key=str)]
        return shortest(_chain(function, parts))


def _chain(function: str, parts: list[Node]) -> Node:
    total = parts[0]
    for part in parts[1:]:
        total = Map(function, (total, part))
    return total
