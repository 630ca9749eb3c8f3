"""The MLIR Python bindings, chosen when a kernel really has to be compiled and never before.

Two distributions hold the same bindings: `mlir` (upstream, hosted outside PyPI) and `torch_mlir` (inside the
PyPI wheel torch-mlir; it needs no torch). The first that offers `ir` wins: an empty placeholder does not.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from tilewright.errors import TargetError

CANDIDATES = ("mlir", "torch_mlir")


@dataclass(frozen=True)
class Bindings:
    """The modules of one set of bindings."""

    name: str
    ir: ModuleType
    passmanager: ModuleType
    execution_engine: ModuleType
    llvm: ModuleType  # the `llvm` dialect; has `translate_module_to_llvmir` unless the bindings are old


@cache
def bindings() -> Bindings:
    """The bindings of this process; TargetError with the remedy where there are none."""
    failures = []
    for name in CANDIDATES:
        if importlib.util.find_spec(name) is None:
            failures.append(f"{name}: not installed")
            continue
        try:
            return _load(name)
        except ImportError as error:
            failures.append(f"{name}: {error}")
    raise TargetError(
        "the CPU target needs the MLIR Python bindings to compile a kernel, and found none "
        f"({'; '.join(failures)}). Install them with `pip install torch-mlir` (no torch needed), or install "
        "the upstream distribution `mlir-python-bindings`."
    )


def _load(name: str) -> Bindings:
    return Bindings(
        name=name,
        ir=importlib.import_module(f"{name}.ir"),
        passmanager=importlib.import_module(f"{name}.passmanager"),
        execution_engine=importlib.import_module(f"{name}.execution_engine"),
        llvm=importlib.import_module(f"{name}.dialects.llvm"),
    )
