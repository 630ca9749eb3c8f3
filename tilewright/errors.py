"""Every error and warning of the library, under one base class.

A *user error* says what is wrong, where (the op and the user's line), why, and what to write instead. An
`InternalError` is a bug of the library and says so. Nothing else may reach a user.
"""

from __future__ import annotations


class TilewrightError(Exception):
    """Base of everything that the library raises."""


class UserError(TilewrightError):
    """A mistake in the caller's code or data; the message names the remedy."""


class LanguageError(UserError):
    """The op's body or signature says something that the language does not have."""


class AxisError(LanguageError):
    """An axis is unknown, repeated, missing, or used where it is no longer there."""


class ArgumentError(UserError, TypeError):
    """A call passes too many, too few or unknown arguments, or an object of an unusable kind."""


class ShapeError(UserError, ValueError):
    """The extents of two arguments do not fit each other, or an argument has the wrong rank."""


class DTypeError(UserError, TypeError):
    """A dtype has no meaning for the operation."""


class DerivativeError(UserError):
    """A derivative was asked for that does not exist."""


class DeviceError(UserError, RuntimeError):
    """Operands lie on different devices, or on one that something cannot be done on."""


class CaptureError(UserError, RuntimeError):
    """A function does what no graph can hold, or its graph is called with other operands."""


class OverlapError(UserError, ValueError):
    """A result would be written through memory that overlaps itself or an operand."""


class TargetError(TilewrightError, RuntimeError):
    """A target cannot be used on this machine: its compiler, driver or device is missing or too old."""


class ResourceError(TargetError):
    """A kernel needs more of a device resource (shared memory, registers, threads) than there is."""


class MemoryLimitError(TilewrightError, MemoryError):
    """An allocation failed; the message says how much was asked for and what to do."""


class LaunchError(TilewrightError, RuntimeError):
    """A kernel failed while it ran; the message names the op that launched it."""


class InternalError(TilewrightError, AssertionError):
    """A bug of the library, never of its user."""

    def __init__(self, message: str):
        super().__init__(f"{message}\nThis is a bug in tilewright; please report it with the op's source.")


class CacheWarning(UserWarning):
    """The build cache could not be used or had to be repaired; results are not affected."""
