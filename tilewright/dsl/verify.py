"""Whether a Program is well formed. Run after every pass in tests: a bad graph fails where it was made."""

from __future__ import annotations

from tilewright.dsl.axes import base
from tilewright.dsl.dtypes import DType, int64
from tilewright.dsl.extents import axis_sites, known_axes
from tilewright.dsl.program import (
    COMBINES,
    At,
    Cast,
    Const,
    Index,
    Map,
    Node,
    Program,
    Read,
    Reduce,
    Scan,
    Scatter,
    Size,
    topological,
)
from tilewright.dsl.scalars import SCALARS
from tilewright.dsl.scans import left, placeholder, right
from tilewright.errors import InternalError


def verify(program: Program, after: str = "construction") -> Program:
    """`program` itself, or an `InternalError` that names the pass and the node that is wrong."""
    params = {p.name: p for p in program.params}
    if len(params) != len(program.params):
        raise InternalError(f"after {after}: {program.name} has two params of one name")
    known = known_axes(program)
    problem = _extent_problem(program)
    if problem:
        raise InternalError(f"after {after}: in {program.name}: {problem}")
    for node in program.nodes():
        problem = _problem(node, params, known)
        if problem:
            raise InternalError(f"after {after}: in {program.name}: {problem}: {node!r}")
    for result in program.results:
        if not set(result.node.axes) <= set(result.axes):
            raise InternalError(
                f"after {after}: result {result.name} has axes {result.node.axes} but orders {result.axes}"
            )
        if len(set(result.axes)) != len(result.axes):
            raise InternalError(f"after {after}: result {result.name} repeats an axis: {result.axes}")
        if any(base(a) not in known for a in result.axes):
            raise InternalError(
                f"after {after}: result {result.name} has an axis of unknown extent: {result.axes}"
            )
    return program


def _problem(node: Node, params: dict, known: set[str]) -> str | None:
    if not isinstance(node.dtype, DType):
        return "a node without a dtype"
    if isinstance(node, Const) and node.dtype.is_integer:
        low, high = node.dtype.range
        if not low <= node.value <= high:
            return "a constant that its dtype cannot hold"
    if isinstance(node, Read):
        param = params.get(node.param)
        if param is None:
            return "reads an unknown param"
        if param.dtype != node.dtype or len(param.axes) != len(node.names):
            return "reads a param with another dtype or rank"
    if isinstance(node, (Index, Size, Scan)) and base(node.axis) not in known:
        return "an axis of unknown extent"
    if isinstance(node, (At, Scatter)) and any(base(a) not in known for a in node.along):
        return "positions along an axis of unknown extent"
    if isinstance(node, Map):
        row = SCALARS.get(node.function)
        if row is None or row.arity != len(node.operands):
            return "an unknown function or a wrong number of operands"
    if isinstance(node, Reduce):
        if node.combine not in COMBINES:
            return "an unknown combine"
        if not node.over:
            return "a reduction over no axis"
        if (node.combine in ("any", "all")) != node.arg.dtype.is_bool:
            return f"{node.combine} of something that is {'' if node.arg.dtype.is_bool else 'not '}bool"
    return _scan_problem(node) if isinstance(node, Scan) else None


def _scan_problem(node: Scan) -> str | None:
    dtypes = [value.dtype for value in node.body]
    if [o.dtype for o in node.operands] != dtypes or any(d != d.compute for d in dtypes):
        return "a scan whose values do not have the dtypes of its operands"
    if node.initial and [c.dtype for c in node.initial] != dtypes:
        return "a scan that begins with other dtypes"
    known = {side(n, dtype) for n, dtype in enumerate(dtypes) for side in (left, right)}
    for part in topological(node.body):
        if placeholder(part):
            if part not in known:
                return "a combine with a side that it does not have"
        elif not isinstance(part, (Const, Map, Cast)):
            return "a combine that is not made of its two sides alone"
    return None


def _extent_problem(program: Program) -> str | None:
    """What is wrong with an extent that is an expression, of operands' axes and of axes before it."""
    known = set(axis_sites(program))
    for declared in program.extents:
        nodes = topological([declared.size])
        if declared.size.axes or declared.size.dtype != int64:
            return f"the extent of {declared.axis} is no whole number: {declared.size!r}"
        if any(not isinstance(n, (Const, Size, Map, Cast)) for n in nodes):
            return f"the extent of {declared.axis} depends on a value: {declared.size!r}"
        unknown = [n.axis for n in nodes if isinstance(n, Size) and base(n.axis) not in known]
        if unknown:
            return f"the extent of {declared.axis} is written with {unknown[0]}, which is not known before it"
        known.add(declared.axis)
    return None
