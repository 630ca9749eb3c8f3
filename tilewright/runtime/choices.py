"""What a process has chosen that decides how later launches on the CPU run."""

from __future__ import annotations

from tilewright.runtime.precision import get_math_accuracy
from tilewright.runtime.threads import get_num_threads

Choices = tuple[int, str]


def choices() -> Choices:
    """(threads, accuracy of elementary functions)"""
    return get_num_threads(), get_math_accuracy()
