"""Writes kernels.md: every prebuilt op with the first line of its docstring.

python docs/kernel_list.py
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from tilewright import kernels
from tilewright.op.op import Op

PAGE = Path(__file__).resolve().parent / "kernels.md"
HEAD = """# The prebuilt ops

`tilewright.kernels`, by module: each is a formula of a few lines in
[`tilewright/kernels/`](../tilewright/kernels), and its derivatives of any order are derived.
`nn.functional` and `nn` have them under torch's names. Written by `python docs/kernel_list.py`.

The CTC loss is `nn.functional.ctc_loss`: its recursion couples neighbouring labels, but one label, given the
one before it, is a scan in time. So the function goes along the labels, each of them one kernel, and the
tape has the gradient.
"""


def ops() -> dict[str, list[tuple[str, str]]]:
    """Names and first lines by the module that defines an op."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in kernels.__all__:
        op = getattr(kernels, name)
        if isinstance(op, Op):
            function = inspect.unwrap(op.signature.function)
            module = function.__module__.removeprefix("tilewright.kernels.")
            lines = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].splitlines()
            found.setdefault(module, []).append((name, " ".join(lines)))
    return found


def page() -> str:
    parts = [HEAD]
    for module, rows in sorted(ops().items()):
        title = module.replace(".", ": ").replace("_", " ")
        lines = [f"- `{name}`: {escaped(line)}" for name, line in rows]
        parts.append("\n".join([f"## {title}", "", *lines, ""]))
    return "\n".join(parts)


def escaped(line: str) -> str:
    """A formula as Markdown shows it."""
    return re.sub(r"([*_\[\]<>])", r"\\\1", line) if "`" not in line else line


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name}: {sum(map(len, ops().values()))} ops\n")
