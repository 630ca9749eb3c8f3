"""`tilewright info`: what this machine has, as one table."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import tilewright
from tilewright.errors import TargetError
from tilewright.op.targets import targets_at_hand
from tilewright.runtime import threads
from tilewright.runtime.cache import default_folder, shared_cache
from tilewright.runtime.sizes import format_bytes

PARTS = (
    "numpy",
    "sympy",
    "torch-mlir",
    "mlir-python-bindings",
    "llvmlite",
    "triton",
    "ml_dtypes",
    "cuda-core",
)
NOTABLE = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512bf16",
    "avx512fp16",
    "neon",
    "sve",
)
WHAT = {
    "cpu": "vectorised MLIR for this CPU",
    "interpreter": "Triton source, interpreted on NumPy arrays",
    "cuda:0": "Triton kernels on a GPU",
}


def table() -> Any:
    """A `rich` table of facts."""
    from rich.table import Table

    result = Table(title="tilewright", title_justify="left", show_header=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in facts():
        result.add_row(name, value)
    return result


def facts() -> Iterator[tuple[str, str]]:
    yield "tilewright", tilewright.__version__
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for part in PARTS:
        yield part, _version(part)
    for name, missing in targets_at_hand():
        yield f"target {name}", f"not here: {missing}" if missing else WHAT.get(name, "")
    yield from _cpu()
    yield "threads", f"{threads.get_num_threads()} of {threads.usable_cpus()} usable CPUs"
    folder = default_folder()
    yield "build cache", f"{folder}, {format_bytes(shared_cache().size())}" if folder else "in memory only"


def _version(part: str) -> str:
    try:
        return metadata.version(part)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> Iterator[tuple[str, str]]:
    from tilewright.compiler.targets.cpu import loading, toolchain

    try:
        target = toolchain.host()
    except TargetError:
        return
    present = {f[1:] for f in target.features.split(",") if f.startswith("+")}
    caches = toolchain.caches()
    yield "CPU", f"{target.cpu}, vectors of {target.vector_bits} bits"
    yield "CPU features", " ".join(f for f in NOTABLE if f in present) or "none of note"
    yield (
        "caches",
        f"L1 {format_bytes(caches.l1d)}, L2 {format_bytes(caches.l2)}, L3 {format_bytes(caches.l3)}",
    )
    yield "OpenMP", loading.openmp() or "none: kernels run on one thread"
