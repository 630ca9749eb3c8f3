"""Random Programs, and their derivatives, on the CPU target against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.campaigns import EVERY_DAY, KINDS, campaign, derivatives, on
from tilewright.compiler.targets.cpu import layout
from tilewright.compiler.targets.cpu.executable import CpuExecutable


def check_in_place(
    executable: CpuExecutable,
    tiles: dict[str, np.ndarray],
    scalars: dict[str, float],
    expected: tuple[np.ndarray, ...],
) -> None:
    """Every result once more over every operand that it fits: the same bits."""
    for position, right in enumerate(expected):
        for name, operand in tiles.items():
            if (operand.shape, operand.dtype) != (right.shape, right.dtype):
                continue
            given = {n: a.copy() for n, a in tiles.items()}
            out = [given[name] if n == position else None for n in range(len(expected))]
            for mine, wanted in zip(executable.run(given, scalars, out), expected, strict=True):
                np.testing.assert_array_equal(_plain(mine), _plain(wanted), f"result {position} over {name}")


def _plain(array: np.ndarray) -> np.ndarray:
    """Floats of a dtype whose NaN NumPy knows."""
    return array if array.dtype.kind in "iub" else array.astype(np.float64)


check = on(CpuExecutable, check_in_place)


@pytest.mark.parametrize("kind", EVERY_DAY)
def test_random_programs(kind: str):
    campaign(check, 14, **KINDS[kind])()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_programs(kind: str):
    campaign(check, 600, **KINDS[kind])()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ("mixed", "special floats", "halves", "scans"))
def test_many_random_programs_of_short_rows(kind: str, monkeypatch: pytest.MonkeyPatch):
    """However few there are, short rows that lie one after the other have a lane each."""
    monkeypatch.setattr(layout, "FEWEST_SHORT", 1)
    campaign(check, 400, **KINDS[kind])()


@pytest.mark.parametrize("indexing", (False, True))
def test_random_derivatives(indexing: bool):
    derivatives(check, 15, indexing=indexing)()


@pytest.mark.exhaustive
@pytest.mark.parametrize("indexing", (False, True))
def test_many_random_derivatives(indexing: bool):
    derivatives(check, 400, indexing=indexing)()
