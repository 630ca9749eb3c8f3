"""Fake builds for the build cache's tests: what comes out is known from the material."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tilewright.runtime.cache import BuildCache, digest

MATERIAL = {"program": "y = exp(x)", "target": "cpu"}


def material_of(number: int) -> dict[str, str]:
    """The material of a numbered kernel."""
    return {"program": f"y = x + {number}", "target": "cpu", "compiler": "1.0"}


def sections_of(material: dict[str, str], size: int = 64) -> dict[str, bytes]:
    """What building this material gives."""
    seed = hashlib.sha256(repr(sorted(material.items())).encode()).digest()
    return {"object": seed * (size // 32), "text": material["program"].encode(), "nothing": b""}


class Builder:
    """A build that counts its calls."""

    def __init__(self, material: dict[str, str] = MATERIAL, size: int = 64):
        self.material = material
        self.size = size
        self.calls = 0

    def __call__(self) -> dict[str, bytes]:
        self.calls += 1
        return sections_of(self.material, self.size)


def ask(cache: BuildCache, material: dict[str, str] = MATERIAL, size: int = 64) -> int:
    """Ask for a kernel, check every byte of it, and say how often it was built for that (0 or 1)."""
    build = Builder(material, size)
    sections = cache.get_or_build(material, build)
    assert dict(sections) == sections_of(material, size)
    return build.calls


def entry_path(folder: Path, material: dict[str, str] = MATERIAL) -> Path:
    """The file of a kernel's entry."""
    path = BuildCache(folder).path_of(digest(material))
    assert path is not None
    return path


def leftovers(folder: Path) -> list[str]:
    """Names of lock files and temporary files."""
    return sorted(path.name for path in (folder / "v1" / "work").iterdir())


def never() -> dict[str, bytes]:
    """A build that must not be needed."""
    raise AssertionError("this kernel was in the cache and is built nevertheless")


Build = Callable[[], dict[str, bytes]]
