"""Writes the table of scalar functions in language.md from the table that the library computes with.

python docs/scalar_table.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tilewright.compiler.targets.cpu.vector_math import EXPANDED_ULP, FAST_ULP, MEASURED_ULP
from tilewright.dsl import language
from tilewright.dsl.scalars import SCALARS, ScalarFunction

PAGE = Path(__file__).resolve().parent / "language.md"
BEGIN, END = "<!-- scalars: written by docs/scalar_table.py -->", "<!-- end of scalars -->"


def rows() -> Iterator[tuple[str, ScalarFunction]]:
    """Every function that the language has by name, each with its row."""
    for name in sorted(language.__all__):
        row = getattr(language, name)
        if isinstance(row, ScalarFunction):
            yield name, row


def table() -> str:
    """The functions in Markdown: operands, errors on the CPU, and where the derivative comes from."""
    lines = [
        "| function | operands | error, f32 | fast, f32 | error, f64 | derivative |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, row in rows():
        measured = (MEASURED_ULP | EXPANDED_ULP).get(row.name)
        f32, f64 = (_ulp(measured.f32), _ulp(measured.f64)) if measured else ("exact", "exact")
        fast = FAST_ULP.get(row.name)
        quick = f"{_ulp(fast.f32)} {fast.note}".replace("|", "\\|").strip() if fast else ""
        note = f" ({measured.note})".replace("|", "\\|") if measured and measured.note else ""
        stated = "stated" if row.grad is not None else "by sympy" if row.sympy is not None else "none"
        lines.append(f"| `{name}`{note} | {row.arity} | {f32} | {quick} | {f64} | {stated} |")
    operators = " ".join(f"`{r.infix}`" for r in SCALARS.values() if r.infix and r.name != "pow")
    return "\n".join([*lines, "", f"And the operators {operators} `**`, unary `-` and `~`."])


def _ulp(error: float) -> str:
    return f"{error} ulp" if error else "exact"


def page_with_table(text: str) -> str:
    """The page with its table replaced."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", text)


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
