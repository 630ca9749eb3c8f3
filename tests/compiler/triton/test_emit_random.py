"""Random Programs, and their derivatives, in Triton's interpreter against the float64 reference."""

from __future__ import annotations

import pytest

from tests.support.campaigns import EVERY_DAY, KINDS, campaign, derivatives, on
from tilewright.compiler.targets.triton.executable import InterpreterExecutable

check = on(InterpreterExecutable)


@pytest.mark.parametrize("kind", EVERY_DAY)
def test_random_programs(kind: str):
    campaign(check, 25, **KINDS[kind])()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_programs(kind: str):
    campaign(check, 400, **KINDS[kind])()


@pytest.mark.parametrize("indexing", (False, True))
def test_random_derivatives(indexing: bool):
    derivatives(check, 15, indexing=indexing)()


@pytest.mark.exhaustive
@pytest.mark.parametrize("indexing", (False, True))
def test_many_random_derivatives(indexing: bool):
    derivatives(check, 400, indexing=indexing)()
