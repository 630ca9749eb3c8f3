"""What compiled code depends on besides its Program: a digest of this library's code generator and its
tools.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

_TOOLS = ("numpy", "torch-mlir", "mlir-python-bindings", "llvmlite", "triton")


@cache
def code_version() -> str:
    """A digest of the code generator's sources and of the versions of its tools."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in ("dsl", "autograd", "compiler"):
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    for tool in _TOOLS:
        digest.update(f"{tool}={_version(tool)};".encode())
    return digest.hexdigest()


def _version(tool: str) -> str:
    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return "absent"
