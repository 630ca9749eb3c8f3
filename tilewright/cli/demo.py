"""`tilewright demo`: one definition becomes a gradient and kernels, and kernels train a network."""

from __future__ import annotations

import inspect
import time
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax

from tilewright.autograd.derive import vjp
from tilewright.cli import digits
from tilewright.cli.showcase import gated_norm
from tilewright.dsl.formula import formula
from tilewright.errors import TargetError
from tilewright.op.explain import stand_ins

CHECKED = ((3, 5, 200), (3, 5, 200), (200,))
TIMED = ((4, 1024, 1024), (4, 1024, 1024), (1024,))
ARCHITECTURE = "cuda:90"


def run() -> bool:
    """The whole demonstration; whether every check passed and the accuracy was reached."""
    console = Console(highlight=False)
    began = time.perf_counter()
    definition(console)
    agreed = kernels(console)
    speed(console)
    trained = training(console)
    seconds = time.perf_counter() - began
    if agreed and trained:
        console.print(f"\n[bold green]All of it held, in {seconds:.0f} s.[/]")
    else:
        failed = [w for w, ok in (("the checks", agreed), ("the training", trained)) if not ok]
        console.print(f"\n[bold red]{' and '.join(failed)} failed[/], in {seconds:.0f} s.")
    return agreed and trained


def heading(console: Console, number: int, text: str) -> None:
    console.print()
    console.rule(f"[bold]{number}. {text}", align="left")


def definition(console: Console) -> None:
    """The op's source, and the gradient that follows from it."""
    heading(console, 1, "An op is written once, as mathematics over named axes")
    source = inspect.getsource(inspect.unwrap(gated_norm))
    console.print(Padding(Syntax(source.strip(), "python", background_color="default"), (1, 2)))
    heading(console, 2, "Its gradient is derived")
    program = gated_norm.bind(stand_ins(gated_norm.arguments(CHECKED, {}))).program
    _formulas(console, formula(vjp(program).backward))


def _formulas(console: Console, text: str) -> None:
    console.print(Padding(text, (1, 2)), markup=False)


def kernels(console: Console) -> bool:
    """Kernels for every target at hand, each checked against the float64 meaning; a cubin where Triton is."""
    heading(console, 3, "Its kernels are generated, and checked on every target at hand")
    page = gated_norm.explain(*CHECKED)
    page = page[page.index("Backward:") :]
    _formulas(console, "The backward, as op.explain tells it:\n\n" + page.rstrip())
    with console.status("generating and checking kernels"):
        report = gated_norm.check(*CHECKED)
    console.print(Padding(report.table(), (0, 2)))
    _ahead_of_time(console)
    return report.ok


def _ahead_of_time(console: Console) -> None:
    from tilewright.op.code import ahead_of_time

    try:
        with console.status(f"compiling for {ARCHITECTURE}, without a GPU"):
            artefacts = [
                a
                for grad in (False, True)
                for a in ahead_of_time(gated_norm, CHECKED, {}, ARCHITECTURE, grad)
            ]
    except TargetError as reason:
        console.print(f"  No GPU code: {reason}", markup=False)
        return
    for artefact in artefacts:
        console.print(f"  {ARCHITECTURE}: {_told(artefact)}", markup=False)


def _told(artefact: Any) -> str:
    size = f"{len(artefact.binary) / 1000:.0f} kB of {artefact.binary_kind}"
    registers = f", {artefact.registers} registers a thread" if artefact.registers else ""
    return f"{artefact.entry}: {size}, {artefact.num_warps} warps{registers}"


def speed(console: Console) -> None:
    """Times against NumPy and against what the machine can do at all."""
    heading(console, 4, "They are timed against NumPy and against the machine's own limits")
    with console.status("timing"):
        report = gated_norm.bench(*TIMED)
    console.print(Padding(report.table(), (1, 2, 0, 2)))


def training(console: Console) -> bool:
    """A network trained with generated kernels alone; whether it reads digits that it has not seen."""
    heading(console, 5, "A network is trained with generated kernels alone")
    data = digits.load()
    if data is None:
        console.print(Padding(digits.REMEDY, (1, 2)), style="bold red", markup=False)
        return False
    console.print(
        f"\n  {len(data.train_labels)} handwritten digits of 8 × 8 pixels to learn from, "
        f"{len(data.test_labels)} held out; {digits.DESCRIPTION}.\n"
    )
    outcome = digits.train(data, console)
    style = "bold green" if outcome.reached else "bold red"
    console.print(
        f"\n  [{style}]{outcome.accuracy:.1%}[/] of the held-out digits are read right "
        f"({digits.WANTED:.0%} wanted), after {outcome.steps} steps in {outcome.seconds:.1f} s."
    )
    return outcome.reached
