"""A missing compiler or device is one clear error that names the op, the user's line and the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import numpy as np
import tilewright as tw

@tw.op
def double(x: tw.Tile["..."]):
    return x * 2.125

try:
    {call}
except tw.errors.TilewrightError as error:
    print(type(error).__name__, error)
"""


def message(tmp_path: Path, blocked: list[str], call: str) -> str:
    """What the user reads: the error of a fresh process with an empty build cache."""
    script = tmp_path / "users_script.py"
    script.write_text(SCRIPT.format(blocked=blocked, call=call))
    environment = {
        **os.environ,
        "TILEWRIGHT_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=600
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_no_mlir_bindings(tmp_path: Path):
    text = message(tmp_path, ["torch_mlir", "mlir"], "double(np.ones(3, np.float32))")
    assert text.startswith("TargetError")
    assert "users_script.py:13" in text and "'double'" in text and "pip install" in text


@pytest.mark.parametrize("target", ["vulkan", "gpu"])
def test_unknown_target(target: str):
    from tilewright.compiler.pipeline import compile_program
    from tilewright.dsl.text import from_text
    from tilewright.errors import TargetError

    program = from_text("program p\nparam x f32 [i]\n%0 = read x [i]\nresult y [i] %0\n")
    with pytest.raises(TargetError, match="there is no target"):
        compile_program(program, target)
