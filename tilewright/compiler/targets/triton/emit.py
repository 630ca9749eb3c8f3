"""A kernel of a Plan as one readable `@triton.jit` function.

    softmax_0(x_ptr, y_ptr, size_batch0, size_d, …, BLOCK_D: tl.constexpr)

The text depends on the kernel, the layout (stride classes) and the schedule; extents and strides are
arguments.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tilewright.compiler.nest import ACCUMULATOR, Kernel, indexed_reads
from tilewright.compiler.targets.triton import spelling
from tilewright.compiler.targets.triton.dots import Dots, described
from tilewright.compiler.targets.triton.facts import flat_place, scattered_inside, written_inside
from tilewright.compiler.targets.triton.parameters import Parameter, Parameters
from tilewright.compiler.targets.triton.places import Writer, group_name
from tilewright.compiler.targets.triton.rows import Rows
from tilewright.compiler.targets.triton.scans import Scans
from tilewright.compiler.targets.triton.scatters import Scatters
from tilewright.compiler.targets.triton.schedule import Layout, Schedule
from tilewright.compiler.targets.triton.scope import conjunction
from tilewright.compiler.targets.triton.writer import WIDTH, Block, Names, axis_name, identifier
from tilewright.dsl.formula import formula
from tilewright.dsl.program import Cast, Map, Node, Program, Read, Result, topological
from tilewright.errors import TargetError

LONGEST_FORMULA = 400
_WRITERS = {"pointwise": Rows, "row": Rows, "scan": Scans, "contraction": Dots, "scatter": Scatters}
HEADER = "import triton\nimport triton.language as tl\n"


@dataclass(frozen=True)
class Emitted:
    """The text of one kernel, its parameters in order, and its constexprs."""

    text: str
    name: str
    parameters: tuple[Parameter, ...]
    constexprs: Mapping[str, int]
    described: Mapping[str, int] = field(default_factory=dict)
    """The operands that are read by descriptors, which must lie at multiples of 16 bytes; and the dimension
    whose stride, from row to row, must be one as well.
    """


def emit(kernel: Kernel, layout: Layout, schedule: Schedule) -> Emitted:
    """The module text of a kernel: imports, the helpers that it calls, and its function."""
    name = identifier(kernel.name)
    names = Names([name, *spelling.RESERVED])
    parameters = Parameters(kernel, layout, names)
    uses = _uses(kernel)
    widened = {n.arg: uses[n.arg] == 1 for n in kernel.nodes() if isinstance(n, Cast)}
    inside = [node.inside() for node in indexed_reads(kernel)]
    if kernel.scatter:
        inside.append(scattered_inside(kernel.scatter))
    inside += [written_inside(output) for output in kernel.outputs if output.places]
    tests = frozenset(test for whole in inside for test in conjunction(whole))
    writer = Writer(kernel, layout, names, parameters, uses, widened, Block(), set(layout.facts.small), tests)
    writer.wishes.update(_position_names(kernel))
    write = _WRITERS.get(kernel.kind)
    if write is None:
        raise TargetError(
            f"the Triton target has no {kernel.kind} kernels yet, which {kernel.name} needs; run it on the "
            f'target "cpu"'
        )
    write(writer, schedule).write()
    ordered = parameters.ordered()
    arguments = [p.name for p in ordered] + [f"{b}: tl.constexpr" for b in parameters.blocks]
    body = "\n".join(writer.top.render(1))
    function = "\n".join([*_comments(kernel), "@triton.jit", *_signature(name, arguments), body, ""])
    helpers = spelling.helpers_for("\n".join((*writer.functions, body)))
    text = "\n\n".join(part for part in (HEADER, helpers, *writer.functions, function) if part)
    found = described(kernel, layout) if schedule.descriptors and kernel.contraction else {}
    rows = {read.param: read.names.index(axes[0]) for read, axes in found.items()}
    return Emitted(text, name, ordered, dict(parameters.blocks), rows)


def _position_names(kernel: Kernel) -> dict[Node, str]:
    """Computed positions have the name of the axis that they run along; that all are inside has one, too."""
    names: dict[Node, str] = {}
    for node in indexed_reads(kernel):
        names[node.inside()] = "inside"
        names |= {p: axis_name(a) for a, p in zip(node.along, node.positions, strict=True)}
    if kernel.scatter:
        pairs = zip(kernel.scatter.along, kernel.scatter.positions, strict=True)
        names |= {p: f"to_{axis_name(a)}" for a, p in pairs}
        names.setdefault(flat_place(kernel.scatter), "to_" + group_name(kernel.scatter.along))
    return {node: name for node, name in names.items() if isinstance(node, Map)}


def _uses(kernel: Kernel) -> Counter[Node]:
    """How often each node is an operand, or a result."""
    uses: Counter[Node] = Counter(kernel.leading)
    places = (flat_place(kernel.scatter),) if kernel.scatter else ()
    for node in topological((*kernel.leading, *places)):
        uses.update(node.args)
    return uses


def _signature(name: str, arguments: list[str]) -> list[str]:
    """`def name(…):`, broken where it would be too long."""
    one = f"def {name}({', '.join(arguments)}):"
    if len(one) <= WIDTH:
        return [one]
    lines, line = [], "   "
    for argument in arguments:
        if len(line) + len(argument) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {argument},"
    return [f"def {name}(", *lines, line, "):"]


def _comments(kernel: Kernel) -> list[str]:
    """The mathematics of the kernel's outputs."""
    names: dict[Node, str] = {}
    lines = []
    if kernel.contraction:
        product = formula(kernel.contraction.root, longest=LONGEST_FORMULA)
        lines.append(f"# acc = {product}")
        names = {n: "acc" for n in kernel.nodes() if isinstance(n, Read) and n.param == ACCUMULATOR}
    results = tuple(Result(o.buffer.name, kernel.own or o.node, o.axes) for o in kernel.outputs)
    program = Program(kernel.name, kernel.inputs, results)
    lines.extend(f"# {line}" for line in formula(program, names, longest=LONGEST_FORMULA).split("\n"))
    for output in kernel.outputs:
        if output.accumulate:
            lines.append(f"# {output.buffer.name} is the {output.accumulate} over this part's rows")
        if any(output in phase.finals and output.node in phase.ends for phase in kernel.phases):
            lines.append(f"# {output.buffer.name} is what this part ends with")
    return [part for line in lines for part in _comment(line)]


def _comment(line: str) -> list[str]:
    return textwrap.wrap(
        line, WIDTH, subsequent_indent="#     ", break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
