"""What compiled Triton kernels may move: each operand is loaded once, however often the formula names it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tilewright.compiler.nest import Kernel, evaluated
from tilewright.compiler.targets.triton.launch import POINTER, Step
from tilewright.compiler.targets.triton.toolchain import Artefact
from tilewright.compiler.targets.triton.traffic import STORE, traffic_of
from tilewright.dsl.program import At, Node, Read


def check_loads_once(step: Step, artefact: Artefact) -> None:
    """A place of the text for each way in which an operand is read; as many more as a long row has walks. A
    scatter looks at positions for what falls into its tile, and reads them again if values depend on them.
    The sides of a product are two tiles: what both are made of is read for each.
    """
    kernel, traffic = step.kernel, traffic_of(artefact, (step.grid,), step.integers)
    walks = max(1, len(kernel.phases)) if step.schedule.looped and kernel.row else 1
    walks = 2 if kernel.scatter else walks
    ways = _ways(kernel)
    outputs = {output.buffer.name for output in kernel.outputs}
    for parameter in step.parameters:
        if parameter.kind == POINTER and parameter.of not in outputs:
            sites, expected = traffic.sites(parameter.name), ways[parameter.of] * walks
            assert sites <= expected, (
                f"{kernel.name}: {parameter.of} is loaded in {sites} places, not {expected}"
            )
        elif parameter.kind == POINTER:
            assert traffic.sites(parameter.name, STORE) >= 1, f"{kernel.name}: {parameter.of} is not written"


def _ways(kernel: Kernel) -> Counter[str]:
    """In how many ways each operand is read."""
    c = kernel.contraction
    tiles = ((c.left,), (c.right,), kernel.roots) if c else (kernel.leading,)
    return sum((_read_by(roots) for roots in tiles), Counter())


def _read_by(roots: Iterable[Node]) -> Counter[str]:
    nodes = list(evaluated(roots))
    direct = [node.param for node in nodes if isinstance(node, Read)]
    indexed = [node.arg.param for node in nodes if isinstance(node, At) and isinstance(node.arg, Read)]
    return Counter([*direct, *indexed])
