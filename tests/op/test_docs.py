"""What the documents show is what the library does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from docs import kernel_list, scalar_table

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]


def test_the_table_of_functions_is_current():
    text = scalar_table.PAGE.read_text()
    assert text == scalar_table.page_with_table(text), "run `python docs/scalar_table.py`"


def test_the_list_of_prebuilt_ops_names_ops():
    known = {name for rows in kernel_list.ops().values() for name, _ in rows}
    listed = set(re.findall(r"^- `(\w+)`: \S", kernel_list.PAGE.read_text(), re.MULTILINE))
    assert len(listed) > 100 and listed <= known, "run `python docs/kernel_list.py`"


def test_the_readmes_example_prints_what_it_shows(capsys):
    text = (ROOT / "README.md").read_text()
    code, shown = re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL)[:2]
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert shown.strip("\n") in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_readme_has_exactly_one_command_for_each_purpose():
    text = (ROOT / "README.md").read_text()
    for purpose in ("demo", "test"):
        (block,) = re.findall(rf"<!-- {purpose} command -->\n```bash\n(.*?)\n```", text, re.DOTALL)
        assert len(block.splitlines()) == 1
    done = subprocess.run(
        ["bash", "-n", str(ROOT / ".ci" / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
