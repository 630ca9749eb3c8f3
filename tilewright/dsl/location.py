"""Where in the user's code something happened: the file and line that error messages begin with."""

from __future__ import annotations

import os
import sys
import traceback
from types import FrameType, TracebackType

_PACKAGE = __name__.partition(".")[0]
_MACHINERY = (_PACKAGE, "numpy")
_LIBRARY_OF_OPS = f"{_PACKAGE}.kernels"


def is_users(frame: FrameType) -> bool:
    """Whether a frame runs an op's body (a user's or of the library of ops) or its caller."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] not in _MACHINERY or is_of_the_library(module)


def is_of_the_library(module: str) -> bool:
    """Whether a module holds prebuilt ops: what goes wrong in those is told at the line that calls them."""
    return f"{module}.".startswith(f"{_LIBRARY_OF_OPS}.")


def is_prebuilt(module: str) -> bool:
    """Whether the ops of a module are not the user's: the library's, or those that Tensors' operators run."""
    return is_of_the_library(module) or f"{module}.".startswith(f"{_PACKAGE}.tensor.")


def users_line(beyond_the_library: bool = False) -> str | None:
    """`file.py:12` of the innermost running frame of the user's code (or of the library of ops)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        library = is_of_the_library(str(frame.f_globals.get("__name__", "")))
        if is_users(frame) and not (library and beyond_the_library):
            return _line(frame, frame.f_lineno)
        frame = frame.f_back
    return None


def raising_line(trace: TracebackType | None) -> str | None:
    """`file.py:12` of the user's innermost frame through which an exception passed."""
    lines = [_line(frame, number) for frame, number in traceback.walk_tb(trace) if is_users(frame)]
    return lines[-1] if lines else None


def _line(frame: FrameType, number: int | None) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)}:{number}"
