"""From a launch's text to a binary for one architecture, through the build cache.

for step, artefact in compile_plan(plan, "cuda:90", {"x": (4096, 4096)}):
    artefact.shared_bytes, artefact.texts["ptx"]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tilewright.compiler.nest import Kernel, Plan
from tilewright.compiler.targets.triton.launch import Recipes, Shapes, Step, contiguous_strides
from tilewright.compiler.targets.triton.schedule import Schedule, default_schedule
from tilewright.compiler.targets.triton.toolchain import Artefact, Target, compile_source
from tilewright.compiler.version import code_version
from tilewright.dsl.jumps import chooses, jumps
from tilewright.dsl.program import Const, Map, Node, Scan, topological
from tilewright.dsl.scalars import SCALARS
from tilewright.runtime.cache import shared_cache


def compile_step(step: Step, target: Target, aligned: frozenset[str]) -> Artefact:
    """A launch's kernel as a binary, built once for all processes.

    `aligned` operands lie at multiples of 16 bytes. Raises `ResourceError` where the architecture lacks what
    the schedule asks for, `TargetError` where Triton does.
    """
    options: dict[str, Any] = {
        "num_warps": step.schedule.num_warps,
        "num_stages": step.schedule.num_stages,
        "enable_fp_fusion": may_contract(step.kernel),
    }
    emitted = step.emitted
    divisible = step.divisible_by_16(aligned)
    material = {
        "source": emitted.text,
        "kernel": emitted.name,
        "signature": json.dumps(step.signature),
        "constexprs": json.dumps(dict(emitted.constexprs)),
        "divisible": " ".join(divisible),
        "options": json.dumps(options),
        "target": str(target),
        "code": code_version(),
    }

    def build() -> dict[str, bytes]:
        artefact = compile_source(
            emitted.text, emitted.name, signature=step.signature, target=target,
            constexprs=emitted.constexprs, divisible_by_16=divisible, options=options,
        )  # fmt: skip
        return artefact.sections()

    return Artefact.from_sections(shared_cache().get_or_build(material, build))


def may_contract(kernel: Kernel) -> bool:
    """Whether a product and a sum may become one rounding. Stated because Triton's default changes.

    Not where a value is compared with another kernel's version of it, which may have been rounded otherwise:
    in the kernel that chooses a maximum, and in those that look for it; in scans that compare, whose chunks
    several kernels walk.
    """
    return not any(_needs_every_rounding(node) for node in kernel.nodes())


def _needs_every_rounding(node: Node) -> bool:
    if isinstance(node, Map) and SCALARS[node.function].same_bits:
        return True
    if isinstance(node, Scan):
        return any(map(_needs_every_rounding, topological(node.body)))
    return chooses(node) or (jumps(node) and len([a for a in node.args if not isinstance(a, Const)]) > 1)


def compile_plan(
    plan: Plan, target: str | Target, shapes: Shapes, strides: Mapping[str, tuple[int, ...]] | None = None,
    choose: Callable[..., Schedule] = default_schedule,
) -> tuple[tuple[Step, Artefact], ...]:  # fmt: skip
    """The binaries of a Plan's kernels for operands of these shapes and strides (in elements, or C order).

    No GPU is needed. Operands are taken to lie at multiples of 16 bytes.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    given = strides or {name: contiguous_strides(shape) for name, shape in shapes.items()}
    recipe = Recipes(plan, target, choose).recipe(shapes, given)
    return tuple((step, compile_step(step, target, step.operands)) for step in recipe.steps)
