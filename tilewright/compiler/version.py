"""What is kept on disk depends on besides its Program: digests of this library's sources and of its tools."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path


@cache
def code_version() -> str:
    """What compiled code depends on: the code generator and the tools that it feeds."""
    tools = ("numpy", "torch-mlir", "mlir-python-bindings", "llvmlite", "triton")
    return _digest(("dsl", "autograd", "compiler"), tools)


@cache
def derivative_version() -> str:
    """What derived Programs depend on: the language, the derivative generator and its algebra."""
    return _digest(("dsl", "autograd"), ("sympy", "mpmath"))


def _digest(folders: Iterable[str], tools: Iterable[str]) -> str:
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    for tool in tools:
        digest.update(f"{tool}={_version(tool)};".encode())
    return digest.hexdigest()


def _version(tool: str) -> str:
    from importlib import metadata  # a tenth of the time that importing the library takes, and seldom needed

    try:
        return metadata.version(tool)
    except metadata.PackageNotFoundError:
        return "absent"
