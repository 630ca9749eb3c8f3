"""The command `tilewright`: each subcommand, and what the demo does when something is missing or wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tilewright.cli import demo, digits
from tilewright.cli.main import app
from tilewright.op.check import CheckReport, Line
from tilewright.runtime import cache as build_cache

runner = CliRunner()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "kernels"))
    build_cache.shared_cache.cache_clear()
    yield tmp_path / "kernels"
    build_cache.shared_cache.cache_clear()


def test_info_names_versions_targets_and_the_cache(own_cache: Path):
    outcome = runner.invoke(app, ["info"])
    assert outcome.exit_code == 0
    for word in ("tilewright", "numpy", "target cpu", "target cuda:0", "threads", "build cache"):
        assert word in outcome.output


def test_cache_path_size_and_clear(own_cache: Path):
    build_cache.shared_cache().get_or_build({"a": "b"}, lambda: {"object": b"x" * 5000})
    assert runner.invoke(app, ["cache", "path"]).output.strip() == str(own_cache)
    assert runner.invoke(app, ["cache", "size"]).output.startswith(("4.9", "5."))
    assert runner.invoke(app, ["cache", "clear"]).output.startswith("removed ")
    assert runner.invoke(app, ["cache", "size"]).output.strip() == "0 bytes"


def test_without_a_command_there_is_help():
    assert "demo" in runner.invoke(app, []).output


def quiet() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=110, highlight=False), text


def test_the_demo_shows_the_source_and_the_gradient():
    console, text = quiet()
    demo.definition(console)
    assert "def gated_norm(" in text.getvalue()
    assert "d_weight = sum(" in text.getvalue()


def test_without_scikit_learn_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digits, "load", lambda: None)
    console, text = quiet()
    assert not demo.training(console)
    assert "pip install" in text.getvalue()


@pytest.mark.parametrize(("agreed", "trained", "code"), [(True, True, 0), (False, True, 1), (True, False, 1)])
def test_the_demo_fails_if_a_check_or_the_training_fails(
    agreed: bool, trained: bool, code: int, monkeypatch: pytest.MonkeyPatch
):
    line = Line("y", "cpu", 0.0, 1e-6, "ok" if agreed else "WRONG: 1 instead of 2")
    for part in ("definition", "speed"):
        monkeypatch.setattr(demo, part, lambda console: None)
    monkeypatch.setattr(demo, "kernels", lambda console: CheckReport("op", (line,)).ok)
    monkeypatch.setattr(demo, "training", lambda console: trained)
    assert runner.invoke(app, ["demo"]).exit_code == code


def test_held_out_digits_are_not_learned_from():
    data = digits.load()
    assert data is not None
    seen = {image.tobytes() for image in data.train_images}
    again = sum(image.tobytes() in seen for image in data.test_images)
    assert len(data.train_labels) + len(data.test_labels) == 1797
    assert again == 0
    assert abs(np.mean(data.train_images)) < 0.1
