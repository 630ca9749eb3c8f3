"""`python -m benchmarks cpu [--quick]` and `python -m benchmarks gpu`: see README.md."""

from __future__ import annotations

import os
import time

import typer

app = typer.Typer(help="Generated kernels beside torch's.", no_args_is_help=True, add_completion=False)

COMPILING = 60.0  # seconds that --quick may spend in torch.compile


@app.command()
def cpu(
    quick: bool = typer.Option(False, "--quick", help="A selection, in three minutes."),
    only: str = typer.Option("", help="Rows whose name holds this text; nothing is saved."),
) -> None:
    """Against torch, eager and compiled, on one thread and on all; writes results/ and README.md's tables."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # for both libraries, before either starts its threads
    from rich.console import Console

    from benchmarks import report
    from benchmarks.families import BENCHES
    from benchmarks.measure import measure
    from tilewright.runtime.threads import usable_cpus

    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    chosen = [b for b in BENCHES if only in b.name and (b.quick or not quick)]
    plan = [(b, threads) for threads in dict.fromkeys((1, usable_cpus())) for b in chosen]
    if quick:
        plan = [(b, threads) for b, threads in plan if threads == 1 or b.compiled_in_quick]
    rows = []
    compiling = 0.0
    with console.status("") as status:
        for number, (bench, threads) in enumerate(plan):
            status.update(f"{number + 1} of {len(plan)}: {bench.name}, {threads} threads")
            wanted = not quick or (bench.compiled_in_quick and threads == 1 and compiling < COMPILING)
            began = time.perf_counter()
            row = measure(bench, threads, 0.5 if quick else 2.0, wanted, "" if wanted else "–")
            compiling += time.perf_counter() - began if wanted else 0.0
            rows.append(row)
    console.print(report.table(rows, "tilewright on the CPU: ratios above 1 are in its favour"))
    if not only:
        console.print(f"written to results/{report.save(rows, quick).name} and README.md")
        report.regenerate()
    raise typer.Exit(0 if all(row.right for row in rows) else 1)


@app.command()
def gpu(
    only: str = typer.Option("", help="Rows whose name holds this text; nothing is saved."),
    seconds: float = typer.Option(300.0, help="After so long no further row is begun."),
) -> None:
    """Against torch on a CUDA device; writes results/ and README.md's tables."""
    import torch

    from tilewright.op.targets import targets_at_hand

    missing = dict(targets_at_hand())["cuda:0"]
    if missing:
        typer.echo(f"There is no GPU to measure on: {missing}. Nothing was run.")
        raise typer.Exit(0)
    if not torch.cuda.is_available():
        typer.echo("There is a GPU, but this torch cannot use it, and torch is what rows are compared with.")
        raise typer.Exit(1)
    from benchmarks.gpu.run import run

    raise typer.Exit(0 if run(only, seconds) else 1)


if __name__ == "__main__":
    app()
