"""What compiled Triton kernels may move: each operand is loaded once, however often the formula names it."""

from __future__ import annotations

from tilewright.compiler.nest import indexed_reads, reads_of
from tilewright.compiler.targets.triton.launch import POINTER, Step
from tilewright.compiler.targets.triton.toolchain import Artefact
from tilewright.compiler.targets.triton.traffic import STORE, traffic_of
from tilewright.dsl.program import Read


def check_loads_once(step: Step, artefact: Artefact) -> None:
    """A place of the text for each way in which an operand is read; as many more as a long row has walks. A
    scatter looks at positions for what falls into its tile, and reads them again if values depend on them.
    """
    kernel, traffic = step.kernel, traffic_of(artefact, (step.grid,), step.integers)
    walks = max(1, len(kernel.phases)) if step.schedule.looped and kernel.row else 1
    walks = 2 if kernel.scatter else walks
    direct = {(node.param, node) for node in reads_of(kernel)}
    indexed = {(node.arg.param, node) for node in indexed_reads(kernel) if isinstance(node.arg, Read)}
    outputs = {output.buffer.name for output in kernel.outputs}
    for parameter in step.parameters:
        if parameter.kind == POINTER and parameter.of not in outputs:
            ways = len([1 for name, _ in (*direct, *indexed) if name == parameter.of])
            sites = traffic.sites(parameter.name)
            assert sites <= ways * walks, (
                f"{kernel.name}: {parameter.of} is loaded in {sites} places, not {ways}"
            )
        elif parameter.kind == POINTER:
            assert traffic.sites(parameter.name, STORE) >= 1, f"{kernel.name}: {parameter.of} is not written"
