"""Where in the user's code something happened: the file and line that error messages begin with."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_LIBRARY_OF_OPS = os.path.join(_PACKAGE, "kernels", "")


def is_users(filename: str) -> bool:
    """Whether a file holds ops (a user's or the library's own), as against the machinery that runs them."""
    path = os.path.abspath(filename)
    return not path.startswith(_PACKAGE) or path.startswith(_LIBRARY_OF_OPS)


def users_line() -> str | None:
    """`file.py:12` of the innermost running frame of the user's code."""
    frame = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return _line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def raising_line(trace: TracebackType | None) -> str | None:
    """`file.py:12` of the user's innermost frame through which an exception passed."""
    frames = [f for f in traceback.extract_tb(trace) if is_users(f.filename)]
    return _line(frames[-1].filename, frames[-1].lineno) if frames else None


def _line(filename: str, number: int | None) -> str:
    return f"{os.path.basename(filename)}:{number}"
