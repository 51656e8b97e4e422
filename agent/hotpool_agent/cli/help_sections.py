"""The sections of `--help` below the options, as in a manual page: exit codes, environment, files, examples.

Knows the words that commands share; must stay quick to import.
"""

from dataclasses import dataclass
from typing import Any, Final

from typer.core import TyperCommand

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
NOT_CONNECTED: Final = 4
SERVICE_FAILED: Final = 5
INTERRUPTED: Final = 130

Rows = tuple[tuple[str, str], ...]

STATE_DIR: Final = ("HOTPOOL_AGENT_STATE_DIR", "The folder STATE, with a state folder for each node.")
STATE_HOME: Final = (
    "XDG_STATE_HOME",
    "Without the above, STATE is hotpool-agent in this folder; default: ~/.local/state.",
)
NODE: Final = ("HOTPOOL_AGENT_NODE", "As --node; in a pod, spec.nodeName.")
WHERE: Final[Rows] = (NODE, STATE_DIR, STATE_HOME)
SOCKET: Final = (
    "STATE/NODE/agent.sock",
    "Where the running agent is asked; its owner's alone. If the path is too long for a socket: a file in TMPDIR.",
)
LOGS: Final = ("STATE/NODE/logs/ID.log", "What a service has printed; ID.log.1 holds what was before the last 10 MiB.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HelpSections:
    """What one command's `--help` adds to its options."""

    codes: dict[int, str]
    examples: Rows
    """(command, what it is for)."""
    environment: Rows = WHERE
    files: Rows = (SOCKET,)

    def write(self, formatter: Any) -> None:
        """Append the sections."""
        self._rows(formatter, "Exit codes", tuple((str(code), words) for code, words in self.codes.items()))
        self._rows(formatter, "Environment", self.environment)
        self._rows(formatter, "Files", self.files)
        with formatter.section("Examples"):
            for command, purpose in self.examples:
                formatter.write(f"  # {purpose}\n  {command}\n")

    @staticmethod
    def _rows(formatter: Any, title: str, rows: Rows) -> None:
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def command(manual: HelpSections) -> type[TyperCommand]:
    """The class of a command with this manual."""

    class Command(TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            del ctx
            manual.write(formatter)

    return Command
