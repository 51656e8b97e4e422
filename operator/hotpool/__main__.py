"""The program `hotpool`: its commands put together. Their words are in `hotpool.cli`."""

import sys
from typing import Annotated

import typer

from hotpool import __version__
from hotpool.cli import diff, enroll, operator, pick, top, why

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="hotpool keeps every node in exactly the pools it qualifies for right now.",
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it.
    if wanted:
        typer.echo(f"hotpool {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


for part in (operator, why, top, diff, pick, enroll):
    part.register(app)


def main() -> None:
    """The console script `hotpool`."""
    sys.exit(app())


if __name__ == "__main__":
    main()
