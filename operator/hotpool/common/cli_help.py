"""Sections of `--help` below the options, as in a manual page: exit codes, environment, files, examples.

Must stay quick to import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typer.core import TyperCommand

Rows = tuple[tuple[str, str], ...]
"""(term, definition)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpSections:
    """Sections of one command; an empty one is left out."""

    codes: Mapping[int, str]
    environment: Rows = ()
    files: Rows = ()
    examples: Mapping[str, str]
    """Purpose → command line."""

    def write(self, formatter: Any) -> None:
        """Append the sections to the help text of a click formatter."""
        codes = tuple((str(code), text) for code, text in sorted(self.codes.items()))
        for title, rows in (("Exit codes", codes), ("Environment", self.environment), ("Files", self.files)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Examples"):
            for purpose, line in self.examples.items():
                formatter.write(f"  # {purpose}\n  {line}\n")


def command(sections: HelpSections) -> type[TyperCommand]:
    """Return a command class whose `--help` ends with the sections."""

    class Command(TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            del ctx
            sections.write(formatter)

    return Command
