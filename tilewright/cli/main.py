"""The command `tilewright`: each subcommand imports what it needs when it runs."""

from __future__ import annotations

import os

import typer

# Threads that wait sleep: where the machine is shared, spinning would take the time of others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

app = typer.Typer(
    name="tilewright",
    help="Write a tensor op once, as mathematics over named axes; kernels and gradients are generated.",
    no_args_is_help=True,
    add_completion=False,
)
cache = typer.Typer(help="The build cache: compiled kernels on disk.", no_args_is_help=True)
app.add_typer(cache, name="cache")


@app.command()
def demo() -> None:
    """Define an op, derive its gradient, generate, check and time its kernels, and train a network."""
    from tilewright.cli.demo import run

    raise typer.Exit(0 if run() else 1)


@app.command()
def info() -> None:
    """Versions, targets, the CPU, threads and the build cache."""
    from rich.console import Console

    from tilewright.cli.info import table

    Console().print(table())


@cache.command("path")
def cache_path() -> None:
    """Print the folder."""
    from tilewright.runtime.cache import default_folder

    typer.echo(default_folder() or "there is no home folder: kernels are kept in memory only")


@cache.command("size")
def cache_size() -> None:
    """Print how much the compiled kernels take."""
    from tilewright.runtime.cache import shared_cache
    from tilewright.runtime.sizes import format_bytes

    typer.echo(format_bytes(shared_cache().size()))


@cache.command("clear")
def cache_clear() -> None:
    """Remove every compiled kernel; they are built again when they are needed."""
    from tilewright.runtime.cache import shared_cache
    from tilewright.runtime.sizes import format_bytes

    before = shared_cache().size()
    shared_cache().clear()
    typer.echo(f"removed {format_bytes(before - shared_cache().size())}")


if __name__ == "__main__":
    app()
