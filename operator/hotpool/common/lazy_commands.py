"""Command group that imports only the command that runs."""

from collections.abc import Mapping
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """Group that lists its commands without importing them. A subclass defines `helps` and `load`."""

    helps: ClassVar[Mapping[str, str]]
    """Name → first paragraph of the command's help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, line in self.helps.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Load the command that the first argument names."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.load(str(name)), rest

    @staticmethod
    def load(name: str) -> Any:
        """Import a command and return its TyperCommand."""
        raise NotImplementedError
