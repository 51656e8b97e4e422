"""Command group `hotpool-agent`. The module of a command is imported when the command runs.

Must stay quick to import: `--version` and `--help` need no other module of the agent than this one and `help`.
"""

from typing import Final

from hotpool.common import exit_codes
from hotpool.common.lazy_commands import LazyGroup
from hotpool_agent import __version__
from hotpool_agent.cli.help import LOGS, SOCKET, AgentHelp

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


app: Final = LazyGroup(
    "hotpool-agent",
    {
        "run": ("hotpool_agent.cli.run", "Run the agent in the foreground, until SIGTERM or Ctrl-C."),
        "start": ("hotpool_agent.cli.services", "Start a service and wait until it is Running."),
        "stop": ("hotpool_agent.cli.services", "Stop a service and wait until processes and port are gone."),
        "restart": ("hotpool_agent.cli.services", "Stop a service, start it, and wait until it is Running."),
        "reload": ("hotpool_agent.cli.services", "Reload the catalogue of the running agent."),
        "drain": ("hotpool_agent.cli.services", "Keep new work away from this machine."),
        "undrain": ("hotpool_agent.cli.services", "End the drain of this machine."),
        "status": ("hotpool_agent.cli.status", "Show the services and the connection to the cluster."),
        "report": ("hotpool_agent.cli.status", "Print the report that the agent would send now."),
        "logs": ("hotpool_agent.cli.logs", "Print the output of a service."),
        "check": ("hotpool_agent.cli.check", "Check a catalogue and print every error and warning."),
    },
    version=__version__,
    sections=_HELP,
    summary="Run or observe the services of one node, and report the types of service that are ready.",
)
