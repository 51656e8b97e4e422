"""Command group that imports only the command that runs."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """Group that lists its commands without importing them. A subclass defines `table` and `load`."""

    table: ClassVar[Mapping[str, tuple[str, str]]]
    """Command → its module, and the first paragraph of its help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, (_, line) in self.table.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that the first argument names."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.load(str(name)), rest

    @staticmethod
    def load(name: str) -> Any:
        """Import a command and return its TyperCommand."""
        raise NotImplementedError


def add_version_option(app: typer.Typer, text: str) -> None:
    """Add `--version`, which prints the text."""

    def show(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it.
        if wanted:
            typer.echo(text)
            raise typer.Exit

    @app.callback()
    def group(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=show, is_eager=True, help="Show the version and exit.")
        ] = False,
    ) -> None:
        del version
