"""Kernels as machine code that can be called: from the build cache, or compiled now."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping

from tilewright.compiler.nest import Kernel, indexed_reads
from tilewright.compiler.targets.cpu import loading, slice_loop, toolchain
from tilewright.compiler.targets.cpu.emit import emit, is_plain
from tilewright.compiler.targets.cpu.frame import Frame
from tilewright.compiler.targets.cpu.layout import Layout
from tilewright.compiler.targets.cpu.recipe import CompiledKernel, direct_type
from tilewright.compiler.targets.cpu.schedule import Schedule
from tilewright.compiler.targets.cpu.slice_loop import SliceLoop
from tilewright.compiler.version import code_version
from tilewright.runtime.addresses import HEAD
from tilewright.runtime.cache import shared_cache

ENTRY_NAME = "tw_kernel"  # of every compiled kernel: each is loaded apart from the others
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
RANGE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Locks:
    """One compilation at a time (LLVM's contexts are shared), one look-up with a compilation behind it."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Fresh locks: in a forked child the old ones may be held by threads that are not there."""
        self.compiler = threading.Lock()
        self.kernels = threading.RLock()


locks = Locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=locks.renew)


def compiled_kernel(
    kernel: Kernel, layout: Layout, schedule: Schedule, target: toolchain.CpuTarget, of: Mapping[str, str]
) -> CompiledKernel:
    """A kernel, ready to be called. of: the program and the place in it that a kernel's text follows from."""
    material = {
        **of,
        "single": str(kernel.single),
        "indexed": str(indexed_reads(kernel)),
        "layout": layout.text(),
        "schedule": repr(schedule),
        "head": str(HEAD),
    }

    def text(openmp: bool) -> str:
        return emit(kernel, layout, schedule, target, openmp, ENTRY_NAME)

    loaded = _loaded(material, text, target, is_plain(kernel, schedule))
    entry, part = _entry(loaded), _part(loaded)
    direct = direct_type(kernel)(loaded.address(f"{ENTRY_NAME}_direct"))
    return CompiledKernel(kernel, layout, schedule, Frame(kernel), entry, direct, part, loaded)


@functools.cache
def compiled_slice_loop(target: toolchain.CpuTarget) -> SliceLoop:
    """The loop over slices, ready to be called."""

    def text(openmp: bool) -> str:
        return slice_loop.emit(target, openmp, ENTRY_NAME)

    loaded = _loaded({"loop": "over slices"}, text, target)
    return SliceLoop(_entry(loaded), _part(loaded), loaded)


def _loaded(
    of: Mapping[str, str], text: Callable[[bool], str], target: toolchain.CpuTarget, plain: bool = False
) -> loading.Loaded:
    """The machine code of a text, which depends on the target and whether there is an OpenMP runtime, too.

    The cache knows which text follows from what, and what it was compiled to: kernels of different programs
    that do the same are compiled once.
    """
    openmp = loading.openmp() is not None
    common = {"target": repr(target), "code": code_version()}
    mlir = functools.cache(lambda: text(openmp))

    def compiled() -> dict[str, bytes]:
        with locks.compiler:
            return {"object": toolchain.compile_object(mlir(), target, plain)}

    cache = shared_cache()
    written = cache.get_or_build({**of, **common, "openmp": str(openmp)}, lambda: {"text": _digest(mlir())})
    material = {"text": written["text"].decode(), "plain": str(plain), **common}
    return loading.load(cache.get_or_build(material, compiled)["object"])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).hexdigest().encode()


def _entry(loaded: loading.Loaded) -> Callable[..., None]:
    return ENTRY(loaded.address(ENTRY_NAME))


def _part(loaded: loading.Loaded) -> Callable[..., None]:
    return RANGE(loaded.address(f"{ENTRY_NAME}_range"))
