"""Environment variables and files that `--help` of several commands names. Must stay quick to import."""

from dataclasses import dataclass
from typing import Final

from hotpool.common.cli_help import HelpSections, Rows

ENVIRONMENT: Final[Rows] = (
    ("HOTPOOL_AGENT_NODE", "As --node; in a pod, spec.nodeName."),
    ("HOTPOOL_AGENT_STATE_DIR", "The folder STATE, with a state folder for each node."),
    ("XDG_STATE_HOME", "Without the above, STATE is hotpool-agent in this folder; default: ~/.local/state."),
)
SOCKET: Final = (
    "STATE/NODE/agent.sock",
    "Socket of the running agent, only for its user. If the path is too long for a socket: a file in TMPDIR.",
)
LOGS: Final = ("STATE/NODE/logs/ID.log", "Output of a service, rotated to ID.log.1 at 10 MiB.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHelp(HelpSections):
    """Sections of a command that asks the running agent."""

    environment: Rows = ENVIRONMENT
    files: Rows = (SOCKET,)
