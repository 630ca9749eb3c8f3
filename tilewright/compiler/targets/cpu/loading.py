"""Machine code made callable: an object becomes addresses of functions in this process.

LLVM's JIT linker lays the sections of an object out in one stretch of addresses, whatever else the process
has mapped: code reaches its constants by 32 bits of distance, and CUDA's libraries alone take gigabytes.
Nothing of MLIR is imported here.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
import platform
from functools import cache
from typing import Any

from tilewright.compiler.targets.cpu.toolchain import llvm_bindings
from tilewright.errors import InternalError

OPENMP_SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

# ELF, Mach-O (64 bits), COFF for x86-64 and for Arm.
_OBJECT_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x64\x86", b"\x64\xaa")


class Loaded:
    """Machine code in memory; the addresses live as long as this object."""

    def __init__(self, linker: Any, library: Any):
        self._linker = linker
        self._libraries = [library]  # each reference to it frees it when it goes: they go together

    def address(self, symbol: str) -> int:
        """The address of a function; `InternalError` where the object has none of this name."""
        try:
            found = self._linker.lookup(self._libraries[0].name, symbol)
        except RuntimeError as error:
            raise InternalError(f"a compiled object has no function {symbol!r} to call ({error})") from error
        self._libraries.append(found)
        return found[symbol]


def load(object_bytes: bytes) -> Loaded:
    """Loads an object that was compiled for this machine.

    `InternalError` where the bytes are no object, or where a function that it calls is not in the process.
    """
    from llvmlite.binding.orcjit import JITLibraryBuilder

    if not object_bytes.startswith(_OBJECT_MAGIC):
        raise InternalError(f"{len(object_bytes)} bytes that are no object file were to be loaded")
    linker = _linker(os.getpid())
    library = JITLibraryBuilder().add_object_img(object_bytes).add_current_process()
    for name, address in _openmp_addresses().items():
        library.import_symbol(name, address)
    try:
        return Loaded(linker, library.link(linker, f"kernel_{next(_NUMBERS)}"))
    except RuntimeError as error:
        raise InternalError(f"a compiled object does not load: {error}") from error


_NUMBERS = itertools.count()  # the linker wants a name for each object


@cache
def _linker(process: int) -> Any:
    """The linker of a process: a forked child has its own, as its parent's may have been at work."""
    from llvmlite.binding.orcjit import create_lljit_compiler

    llvm_bindings()
    name = ctypes.util.find_library("m") if os.name == "posix" else None
    if name:
        _KEPT.append(ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL))
    in_one_stretch = platform.system() != "Windows"  # whose objects the JIT linker does not know
    return create_lljit_compiler(use_jit_link=in_one_stretch, suppress_errors=True)


_KEPT: list[ctypes.CDLL] = []


def openmp() -> str | None:
    """The path of an OpenMP runtime that has GOMP_parallel; None where there is none.

    The caller then runs its threads from Python. Candidates: GNU's own, then LLVM's, with the same entry.
    """
    found = _openmp()
    return found and found[0]


def _openmp_addresses() -> dict[str, int]:
    found = _openmp()
    return found[1] if found else {}


@cache
def _openmp() -> tuple[str, dict[str, int]] | None:
    for path in _openmp_candidates():
        try:
            library = ctypes.CDLL(path)
            functions = [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in OPENMP_SYMBOLS]
        except (OSError, AttributeError):
            continue
        _KEPT.append(library)
        return path, {
            name: function.value or 0 for name, function in zip(OPENMP_SYMBOLS, functions, strict=True)
        }
    return None


def _openmp_candidates() -> list[str]:
    if platform.system() == "Darwin":
        return [
            "libomp.dylib",
            "/opt/homebrew/opt/libomp/lib/libomp.dylib",
            "/usr/local/opt/libomp/lib/libomp.dylib",
        ]
    if platform.system() == "Windows":
        return ["libomp140.x86_64.dll", "libiomp5md.dll", "libgomp-1.dll"]
    return ["libgomp.so.1", "libomp.so.5", "libomp.so", "libiomp5.so"]
