"""What every test of the suite shares: one private build cache, and threads that do not crowd each other out.

Kernels are compiled once for all workers of pytest-xdist, and once for all runs of the suite except in CI
(where `CI` is set), which starts from nothing and leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = "TILEWRIGHT_CACHE_DIR"
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # workers inherit what the controller has chosen
IN_CI = bool(os.environ.get("CI"))


def _private_folder() -> str:
    if IN_CI:
        return tempfile.mkdtemp(prefix="tilewright-tests-")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"tilewright-tests-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


# Before anything imports the library, and before NumPy's and torch's thread pools start.
if not IS_WORKER:
    os.environ[CACHE] = os.environ.get("TILEWRIGHT_TEST_CACHE_DIR") or _private_folder()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # workers share the machine: threads that wait sleep


GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files anew instead of comparing"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`everyday(n)`: n of a test's cases, drawn by their names, run every day, and the others are exhaustive.

    Every second case, or every third, would be the same one of two layouts each time.
    """
    cases = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        if item.get_closest_marker("everyday") and not item.get_closest_marker("exhaustive"):
            cases[item.nodeid.split("[")[0]].append(item)
    for found in cases.values():
        (count,) = found[0].get_closest_marker("everyday").args
        drawn = sorted(found, key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())
        for item in drawn[count:]:
            item.add_marker(pytest.mark.exhaustive)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: the text is what `tests/golden/<name>` holds; `--update-golden` writes it."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"tests/golden/{name} is missing; write it with --update-golden and review it"
        expected = path.read_text()
        assert text == expected, f"tests/golden/{name} differs; if that is meant, run with --update-golden"

    return compare


def pytest_unconfigure(config: pytest.Config) -> None:
    if IN_CI and not IS_WORKER:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)
