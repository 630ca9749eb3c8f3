"""Under pytest the benchmarks run when they are asked for: `pytest benchmarks --benchmark-only`."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("benchmark_only", False):
        config.option.benchmark_disable = False  # which the everyday suite's options set
