"""The driver's functions (`cuda.bindings.driver`), found when first used, and its errors in words."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from tilewright.errors import LaunchError, MemoryLimitError, ResourceError, TargetError
from tilewright.runtime.cuda import launches

ADVICE = "or use the CPU"
INSTALL = '`pip install "tilewright[cuda]"` (cuda-core and cuda-bindings)'
OLDEST_DRIVER = 12000
"""The version of CUDA that the driver must know, as it counts: 12.0."""

_override: Any = None
"""What tests have in the place of `cuda.bindings.driver`."""


def is_available() -> bool:
    """Whether a CUDA device can be used here; never raises, and asks the driver only once."""
    return unavailable_reason() is None


def unavailable_reason() -> str | None:
    """Why no CUDA device can be used, in words, or None when one can."""
    return _probe(os.getpid())


@functools.lru_cache(maxsize=4)
def _probe(process: int) -> str | None:
    """The answer for one process: a forked child must not trust its parent's."""
    if _override is None and importlib.util.find_spec("cuda") is None:
        return f"the package cuda-bindings is not installed; install {INSTALL}"
    try:
        driver = import_bindings()
    except Exception as error:
        return f"the package cuda-bindings cannot be imported ({error}); install {INSTALL}"
    try:
        code = driver.cuInit(0)[0]
    except Exception as error:
        return f"there is no NVIDIA driver on this machine ({_first_line(error)})"
    if int(code) in _TOO_OLD:
        return f"the NVIDIA driver is too old for this library: {describe(driver, code)}; install a newer one"
    if int(code) != 0:
        return f"the NVIDIA driver does not start: {describe(driver, code)}"
    code, version = driver.cuDriverGetVersion()
    if int(code) == 0 and version < OLDEST_DRIVER:
        return (
            f"the NVIDIA driver is too old: it knows CUDA {_version(version)}, and {_version(OLDEST_DRIVER)} "
            "is needed; install a newer driver"
        )
    code, count = driver.cuDeviceGetCount()
    if int(code) != 0 or count == 0:
        return "the NVIDIA driver finds no device (CUDA_VISIBLE_DEVICES hides devices that there are)"
    return None


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def import_bindings() -> Any:
    """The module `cuda.bindings.driver`, asked nothing yet."""
    if _override is not None:
        return _override
    from cuda.bindings import driver

    return driver


def override(bindings: Any) -> None:
    """For tests: what stands in the place of `cuda.bindings.driver`; None puts it back."""
    global _override
    _override = bindings
    _probe.cache_clear()


def bindings() -> Any:
    """The module `cuda.bindings.driver`, initialised; `TargetError` where there is no device."""
    reason = unavailable_reason()
    if reason is not None:
        raise TargetError(f"no CUDA device: {reason}, {ADVICE}")
    return import_bindings()


def describe(driver: Any, code: Any) -> str:
    """A driver's error by its name and what it says of it."""
    try:
        _, name = driver.cuGetErrorName(code)
        _, text = driver.cuGetErrorString(code)
        return f"{name.decode()}: {text.decode()}"
    except Exception:
        return f"error {int(code)}"


# By the driver's numbers, which are part of its ABI.
_OUT_OF_MEMORY = 2
_TOO_OLD = {803, 804}
_WRONG_BINARY = {200, 209, 218, 222, 223}
_TOO_LARGE = {701, 720}
_KERNEL_FAILED = {700, 702, 710, 714, 715, 716, 717, 718, 719}


def check(result: Sequence[Any], doing: str) -> Any:
    """The value of a driver call's result (code, value…), or the library's exception for its error."""
    code, *values = result
    if code:
        _fail(code, doing)
    return values[0] if len(values) == 1 else None


def _fail(code: Any, doing: str) -> None:
    message = f"{doing}: {describe(import_bindings(), code)}"
    number = int(code)
    if number == _OUT_OF_MEMORY:
        raise MemoryLimitError(f"{message}; free arrays on the device or use smaller ones")
    if number in _WRONG_BINARY:
        raise TargetError(f"{message}; the kernel was compiled for another architecture than this device's")
    if number in _TOO_LARGE:
        raise ResourceError(
            f"{message}; the kernel needs more registers, threads or shared memory than there are"
        )
    if number in _KERNEL_FAILED:
        raise LaunchError(
            f"{message}; a kernel failed on the device ({launches.suspects()}), and this process cannot use "
            f"the device any more. Start it again with {launches.BLOCKING_VARIABLE}=1 to have each op waited "
            "for, and the error where it is called"
        )
    raise TargetError(message)
