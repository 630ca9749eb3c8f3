"""A number of threads for a while, and results that must not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import tilewright as tw


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """What runs inside runs on so many threads."""
    before = tw.get_num_threads()
    tw.set_num_threads(count)
    try:
        yield
    finally:
        tw.set_num_threads(before)


def assert_same_bits(run: Callable[[], Any], counts: Sequence[int] = (1, 2, 3)) -> None:
    """A call, with one result or several, gives the same bits for every number of threads."""
    found = []
    for count in counts:
        with on_threads(count):
            results = run()
        found.append(results if isinstance(results, (tuple, list)) else (results,))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
