"""Which targets this machine has, found without starting any of them twice."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec

from tilewright.errors import TargetError


@cache
def targets_at_hand() -> tuple[tuple[str, str], ...]:
    """Every target, with why it is not there: ("cpu", ""), ("cuda:0", "no NVIDIA driver")."""
    return (("cpu", _without_cpu()), ("interpreter", _without_triton()), ("cuda:0", _without_device()))


def usable() -> tuple[str, ...]:
    """The targets that kernels can run on here."""
    return tuple(name for name, missing in targets_at_hand() if not missing)


def _without_cpu() -> str:
    from tilewright.compiler.targets.cpu import bindings, toolchain

    try:
        toolchain.host()
        bindings.bindings()
    except TargetError as reason:
        return str(reason)
    return ""


def _without_triton() -> str:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if find_spec("tilewright.compiler.targets.triton.executable") is None:
        return "this version of tilewright does not run Triton kernels"
    return ""


def _without_device() -> str:
    """Asks the driver's own library how many devices there are."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count.value:
        return "the driver has no usable device"
    return _without_triton()
