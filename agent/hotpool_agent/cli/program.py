"""The program `hotpool-agent`: its commands by name, each of which is imported when it runs.

Must stay quick to import: `--version` and `--help` need no more than this module.
"""

from importlib import import_module
from typing import Annotated, Any, ClassVar, Final

import typer
from typer.main import get_group

from hotpool.common.lazy_commands import LazyGroup
from hotpool_agent import __version__
from hotpool_agent.cli import help_sections as m

COMMANDS: Final = {
    "run": ("run", "Run the agent in the foreground, until SIGTERM or Ctrl-C."),
    "start": ("services", "Start a service and wait until it is Running."),
    "stop": ("services", "Stop a service and wait until processes and port are gone."),
    "restart": ("services", "Stop a service, start it, and wait until it is Running."),
    "reload": ("services", "Have the agent read its catalogue again."),
    "status": ("status", "Show the services, and whether the cluster hears the agent."),
    "report": ("status", "Print the report that the agent would send now."),
    "logs": ("logs", "Print what a service has written to its output."),
    "check": ("check", "Check a catalogue and explain every error at once."),
}
"""Name → module in `cli`, and the first sentence of the command's own help."""

_PROGRAM: Final = m.HelpSections(
    codes={
        m.OK: "success",
        m.FAILED: "the command failed; standard error says why",
        m.USAGE: "wrong usage, or a catalogue with errors",
        m.NOT_RUNNING: "no agent of this node runs",
        m.NOT_CONNECTED: "status only: the cluster does not hear the agent",
        m.SERVICE_FAILED: "status only: a service has failed",
    },
    files=(m.SOCKET, m.LOGS),
    examples=(
        ("hotpool-agent run --catalogue node.yaml --node edge-017 -n speech", "Start the agent of a node"),
        ("hotpool-agent status --node edge-017", "Ask it how its services are"),
        ("hotpool-agent start --help", "What a command does, in detail"),
    ),
)


class _Program(LazyGroup):
    """The group of all commands, with the sections below them."""

    helps: ClassVar = {name: line for name, (_, line) in COMMANDS.items()}

    @staticmethod
    def load(name: str) -> Any:
        module = import_module(f"hotpool_agent.cli.{COMMANDS[name][0]}")
        return get_group(module.app).commands[name]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        del ctx
        _PROGRAM.write(formatter)


app = typer.Typer(
    name="hotpool-agent",
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Runs or watches the services of one node and reports what the node can do right now.",
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it.
    if wanted:
        typer.echo(f"hotpool-agent {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version
