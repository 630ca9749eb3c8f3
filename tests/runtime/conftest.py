"""Fixtures for the runtime's tests."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tilewright.runtime.warn import forget_warnings


@pytest.fixture(autouse=True)
def fresh_warnings() -> Iterator[None]:
    """Every test may see each warning once."""
    forget_warnings()
    yield
    forget_warnings()


@pytest.fixture
def seen() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings given in the test so far; they are not errors then."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        yield messages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a build cache, not made yet."""
    return tmp_path / "cache"


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Gives a file or folder to user 12345: for real if we may, else in the eyes of ``os.stat``."""
    if os.geteuid() == 0:
        return lambda path: os.chown(path, 12345, 12345)
    return lambda path: _pretend(monkeypatch, path)


def _pretend(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    given = os.stat(path)

    def disguised(original: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def stat(*arguments: Any, **options: Any) -> os.stat_result:
            status = original(*arguments, **options)
            if not os.path.samestat(status, given):
                return status
            return os.stat_result([*status[:4], 12345, *status[5:]])

        return stat

    for name in ("stat", "fstat", "lstat"):
        monkeypatch.setattr(os, name, disguised(getattr(os, name)))
