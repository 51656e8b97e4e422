"""Sections of `--help` below the options, exit codes and examples, in one form for every command.

Must stay quick to import.
"""

from collections.abc import Mapping
from typing import Any, Final

from typer.core import TyperCommand

OK: Final = 0
FAILED: Final = 1
DIFFERENT: Final = 1
NO_MEMBER: Final = 1
NOT_YET: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
FORBIDDEN: Final = 4
NOT_FOUND: Final = 5
NOT_INSTALLED: Final = 6

_CODES: Final[Mapping[int, str]] = {
    USAGE: "wrong usage",
    UNAVAILABLE: "the API server cannot be reached or returns an error",
    FORBIDDEN: "not allowed: the message names verb and resource",
    NOT_INSTALLED: "hotpool's definitions are not installed in the cluster",
}


def command(examples: Mapping[str, str], codes: Mapping[int, str]) -> type[TyperCommand]:
    """Return the class of a command that reads the cluster. `examples`: purpose → command. `codes`: additional ones."""
    return plain(examples, {**_CODES, **codes})


def plain(examples: Mapping[str, str], codes: Mapping[int, str]) -> type[TyperCommand]:
    """Return the class of a command with exactly these exit codes."""

    class Command(TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            del ctx
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(code), words) for code, words in sorted(codes.items())])
            with formatter.section("Examples"):
                for purpose, line in examples.items():
                    formatter.write(f"  # {purpose}\n  {line}\n")

    return Command
