"""Devices for tests: fake ones in the everyday suite, real ones with `-m gpu`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fake_cuda import FakeCuda, installed
from tilewright.runtime import cuda


@pytest.fixture
def fake() -> Iterator[FakeCuda]:
    """Two devices made of host memory."""
    with installed(FakeCuda(devices=2)) as made:
        yield made


@pytest.fixture(params=["fake", pytest.param("card", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device that Tensors can lie on: what holds on the fake one must hold on a card."""
    if request.param == "fake":
        request.getfixturevalue("fake")
        yield "cuda:0"
        return
    if not cuda.is_available():
        pytest.skip(str(cuda.unavailable_reason()))
    yield "cuda:0"
    cuda.synchronize()
