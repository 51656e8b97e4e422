"""Sections of `--help` below the options, as in a manual page, and options of both command lines.

Must stay quick to import.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import click

E = TypeVar("E", bound=Enum)
F = TypeVar("F", bound=Callable[..., Any])

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

    def write(self, formatter: click.HelpFormatter) -> None:
        """Append the sections to the help text of a command."""
        codes = tuple((str(code), text) for code, text in sorted(self.codes.items()))
        for title, rows in (("Exit codes", codes), ("Environment", self.environment), ("Files", self.files)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Examples"):
            for purpose, line in self.examples.items():
                formatter.write(f"  # {purpose}\n  {line}\n")


def command(sections: HelpSections) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a command whose `--help` ends with the sections."""

    class Command(click.Command):
        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            del ctx
            sections.write(formatter)

    return click.command(cls=Command)


class EnumChoice(click.Choice[E]):
    """Choice of a value of an enumeration; click itself offers the names of its members."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Return the value of a member; an argument as it is."""
        del ctx
        return str(choice.value) if isinstance(choice, Enum) else str(choice)


def output_option(formats: type[Enum]) -> Callable[[F], F]:
    """Return a decorator that adds `--output`, `-o`. The first of the formats is the default."""
    first = next(iter(formats))
    text = f"Format of the output; default: {first.value}."
    return click.option("--output", "-o", type=EnumChoice(formats), default=first, help=text)
