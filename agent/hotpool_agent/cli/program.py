"""Command group `hotpool-agent`. The module of a command is imported when the command runs.

Must stay quick to import: `--version` and `--help` need no other module of the agent than this one and `help`.
"""

from importlib import import_module
from typing import Any, Final

import typer
from typer.main import get_group

from hotpool.common import exit_codes
from hotpool.common.lazy_commands import LazyGroup, add_version_option
from hotpool_agent import __version__
from hotpool_agent.cli.help import LOGS, SOCKET, AgentHelp

COMMANDS: Final = {
    "run": ("run", "Run the agent in the foreground, until SIGTERM or Ctrl-C."),
    "start": ("services", "Start a service and wait until it is Running."),
    "stop": ("services", "Stop a service and wait until processes and port are gone."),
    "restart": ("services", "Stop a service, start it, and wait until it is Running."),
    "reload": ("services", "Reload the catalogue of the running agent."),
    "drain": ("services", "Keep new work away from this machine."),
    "undrain": ("services", "End the drain of this machine."),
    "status": ("status", "Show the services and the connection to the cluster."),
    "report": ("status", "Print the report that the agent would send now."),
    "logs": ("logs", "Print the output of a service."),
    "check": ("check", "Check a catalogue and print every error."),
}
"""Command → module in `cli`, and the first sentence of the command's help."""

_HELP: Final = AgentHelp(
    codes={
        exit_codes.OK: "success",
        exit_codes.FAILED: "the command failed; the cause is on standard error",
        exit_codes.USAGE: "wrong usage, or a catalogue with errors",
        exit_codes.NOT_RUNNING: "no agent of this node is running, or it does not respond",
        exit_codes.NOT_CONNECTED: "status only: not connected to the cluster, or only in part",
        exit_codes.NOT_OFFERED: "status only: a service has failed, or should run and is not offered",
    },
    files=(SOCKET, LOGS),
    examples={
        "Start the agent of a node": "hotpool-agent run --catalogue node.yaml --node edge-017 -n speech",
        "Show the states of its services": "hotpool-agent status --node edge-017",
        "Explain one command": "hotpool-agent start --help",
    },
)


class _Program(LazyGroup):
    """Group of all commands, with help sections below them."""

    table = COMMANDS

    @staticmethod
    def load(name: str) -> Any:
        module = import_module(f"hotpool_agent.cli.{COMMANDS[name][0]}")
        return get_group(module.app).commands[name]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        del ctx
        _HELP.write(formatter)


app = typer.Typer(
    name="hotpool-agent",
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run or observe the services of one node, and report the types of service that are ready.",
)
add_version_option(app, f"hotpool-agent {__version__}")
