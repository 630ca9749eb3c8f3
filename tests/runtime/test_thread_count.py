"""How many threads kernels may use."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tilewright.errors import ArgumentError
from tilewright.runtime import threads
from tilewright.runtime.guard import run_forked
from tilewright.runtime.threads import get_num_threads, set_num_threads, usable_cpus


@pytest.fixture(autouse=True)
def default(monkeypatch):
    monkeypatch.delenv("TILEWRIGHT_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_chosen", None)


def test_the_default_is_the_usable_cpus():
    assert get_num_threads() == usable_cpus() >= 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_the_default_respects_the_affinity():
    def work():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert get_num_threads() == 1

    outcome = run_forked(work)
    assert outcome.kind == "returned", outcome.report


def test_without_affinity_all_cpus_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert get_num_threads() == 1


@pytest.mark.parametrize(
    ("text", "number"), [("3", 3), (" 12 ", 12), ("4096", 4096), ("", None), ("  ", None)]
)
def test_the_environment_chooses(monkeypatch, text, number):
    monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", text)
    assert get_num_threads() == (number or usable_cpus())


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "4097", "1,2", "²", "٣"])
def test_an_environment_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", text)
    with pytest.raises(ArgumentError, match=r"TILEWRIGHT_NUM_THREADS=.*write a whole number from 1 to 4096"):
        get_num_threads()


@pytest.mark.parametrize("number", [1, 7, np.int64(3)])
def test_set(monkeypatch, number):
    monkeypatch.setenv("TILEWRIGHT_NUM_THREADS", "5")
    set_num_threads(number)
    assert get_num_threads() == number
    assert type(get_num_threads()) is int
    set_num_threads(None)
    assert get_num_threads() == 5


@pytest.mark.parametrize("number", [0, -2, 4097, 10**30, True, 2.0, "2", [1]])
def test_set_refuses_what_is_no_number_of_threads(number):
    set_num_threads(2)
    with pytest.raises(ArgumentError, match=r"set_num_threads\(.*pass a whole number from 1 to 4096"):
        set_num_threads(number)
    assert get_num_threads() == 2
