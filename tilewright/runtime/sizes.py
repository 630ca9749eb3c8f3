"""Numbers of bytes as people write and read them."""

from __future__ import annotations

import os
import re

from tilewright.errors import ArgumentError

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def parse_bytes(text: str, source: str) -> int:
    """``"2GiB"``, ``"512M"`` or ``"1000"`` → bytes, in powers of 1024; the error names `source`."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ArgumentError(
            f"{source}: {text!r} is not a size; write bytes or a unit, as in 500000000 or 512M or 2G"
        )
    number, unit = match.groups()
    return int(float(number) * UNITS[unit.lower()]) if "." in number else int(number) * UNITS[unit.lower()]


def bytes_from_environment(variable: str, default: int) -> int:
    """The size that an environment variable asks for, or `default` where it is unset or empty."""
    text = os.environ.get(variable, "").strip()
    return parse_bytes(text, variable) if text else default


def format_bytes(count: int) -> str:
    """``68719476736`` → ``"64.0 GiB"``."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
