"""The GPU table: for the terminal, a JSON file for each card, and its section of README.md."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.measure import COMPILED, EAGER, Measured
from benchmarks.report import RESULTS, commit, ratio, versions
from tilewright.op.bench import duration

COLUMNS = ("", "time", "TB/s", "TFLOP/s", "of the limit", "× torch", "× torch.compile", "aim")
KIND = "gpu"


def cells(row: Measured) -> tuple[str, ...]:
    """One row as texts."""
    if not row.right or row.seconds is None:
        wrong = f"FAILED: {row.failure}" if row.failure else f"WRONG, error {row.error:.1e}"
        return (row.name, wrong, "", "", "", "", "", row.aim)
    return (
        row.name,
        duration(row.seconds),
        f"{row.gigabytes / 1e3:.2f}" if row.gigabytes else "",
        f"{row.gigaflops / 1e3:.0f}" if row.gigaflops else "",
        f"{row.fraction:.0%}" if row.fraction else "",
        ratio(row.peers.get(EAGER)),
        ratio(row.peers.get(COMPILED)),
        row.aim,
    )


def table(rows: Sequence[Measured], title: str) -> Any:
    """A `rich` table."""
    return report.table(rows, title, COLUMNS, cells)


def machine(properties: Any) -> dict[str, Any]:
    """The card, without anything that names the machine."""
    driver = properties.driver_version
    return {
        "gpu": properties.name,
        "target": properties.target,
        "multiprocessors": properties.multiprocessors,
        "memory_gigabytes": round(properties.memory_bytes / 1e9),
        "driver": f"CUDA {driver // 1000}.{driver % 1000 // 10}",
    }


def save(rows: Sequence[Measured], properties: Any, folder: Path = RESULTS) -> Path:
    """Write the results of this card; a later run replaces them."""
    facts = machine(properties)
    folder.mkdir(exist_ok=True)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', facts['gpu'].lower()).strip('-')}.json"
    document = {
        "kind": KIND,
        "machine": facts,
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def section(document: Mapping[str, Any], rows: Sequence[Measured]) -> Iterator[str]:
    """The part of README.md that a card's results make."""
    facts = document["machine"]
    yield (
        f"### {facts['gpu']}, {facts['memory_gigabytes']} GB, {facts['multiprocessors']} multiprocessors "
        f"({facts['driver']})"
    )
    yield ""
    told = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    yield f"{document['date']}, commit {document['commit']}; {told}."
    limits = [(row.copy, row.peak) for row in rows if row.copy and row.peak]
    if limits:
        copies, peaks = zip(*limits, strict=True)
        yield ""
        yield (
            "Limits, measured beside the rows: copies "
            f"{min(copies) / 1e12:.2f}–{max(copies) / 1e12:.2f} TB/s, "
            f"cuBLAS 8192³ in bfloat16 {min(peaks) / 1e12:.0f}–{max(peaks) / 1e12:.0f} TFLOP/s."
        )
    yield ""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "|".join([" --- "] + [" ---: "] * (len(COLUMNS) - 1)) + "|"
    for row in rows:
        yield "| " + " | ".join(cells(row)) + " |"
