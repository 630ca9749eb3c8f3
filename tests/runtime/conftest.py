"""Fixtures for the runtime's tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

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
