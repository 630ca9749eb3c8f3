"""Warnings of the build cache: one for each cause in a process, however often it occurs."""

from __future__ import annotations

import errno
import warnings

from tilewright.errors import CacheWarning

_given: set[str] = set()


def warn_once(cause: str, message: str) -> None:
    """Warn, unless this process has already warned about `cause`."""
    if cause in _given:
        return
    _given.add(cause)
    warnings.warn(message, CacheWarning, stacklevel=3)


def warn_of_system(error: OSError, message: str) -> None:
    """Warn of an error of the operating system; the cause is its code (disk full, no permission, …)."""
    code = errno.errorcode.get(error.errno or 0, type(error).__name__)
    warn_once(code, f"{message}: {error.strerror or error} ({code})")


def forget_warnings() -> None:
    """Let every cause warn again (for tests)."""
    _given.clear()
