"""Command group that imports only the command that runs."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from hotpool.common.cli_help import HelpSections


class LazyGroup(click.Group):
    """Group that lists its commands without importing them."""

    def __init__(
        self,
        name: str,
        table: Mapping[str, tuple[str, str]],
        *,
        version: str,
        sections: HelpSections | None,
        summary: str,
    ) -> None:
        """`table`: command → its module, which has an attribute of that name, and the first paragraph of its help."""
        super().__init__(name, help=summary, no_args_is_help=True)
        click.version_option(version, message=f"{name} {version}")(self)
        self.commands = {command: click.Command(command, help=line) for command, (_, line) in table.items()}
        self.table = table
        self._sections = sections

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        del ctx
        return list(self.table)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Load the command that the first argument names."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.load(str(name)), rest

    def load(self, name: str) -> click.Command:
        """Import a command."""
        command: click.Command = getattr(import_module(self.table[name][0]), name)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Append the sections of the group."""
        del ctx
        if self._sections:
            self._sections.write(formatter)
