"""Options of several commands, requests to the running agent, and exits with an error.

Must stay quick to import.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from hotpool.common import exit_codes
from hotpool_agent.control import protocol
from hotpool_agent.node_name import NodeNameError, node_name
from hotpool_agent.paths import PathError, socket_path, state_folder

node_option: Final = click.option(
    "--node",
    metavar="NAME",
    envvar="HOTPOOL_AGENT_NODE",
    help="Name of the node. Default: the host name, in lower case.",
)
no_wait_option: Final = click.option("--no-wait", is_flag=True, help="Return at once, before the state is reached.")
service_argument: Final = click.argument("identifier", metavar="ID")


class OutputFormat(StrEnum):
    """Output format of `status` and `check`."""

    TABLE = "table"
    JSON = "json"


def send_request(node: str | None, request: protocol.Request) -> Any:
    """Return the response of the running agent; end the command if the request fails."""
    folder = node_folder(node)
    try:
        return protocol.send(socket_path(folder), request)
    except protocol.AgentUnreachableError as error:
        exit_with_error(f"{error}{_advice(error, folder)}", exit_codes.NOT_RUNNING)
    except protocol.RequestError as error:
        exit_with_error(str(error), exit_codes.FAILED)
    except PathError as error:
        exit_with_error(str(error), exit_codes.USAGE)


def _advice(error: protocol.AgentUnreachableError, folder: Path) -> str:
    """Return what to do if no agent of the node runs, with the nodes of this machine that have a socket; else none."""
    if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
        return ""
    others = sorted(path.parent.name for path in folder.parent.glob("*/agent.sock") if path.parent != folder)
    return (
        f"; other nodes of this machine: {', '.join(others)}; see --node" if others else "; start it: hotpool-agent run"
    )


def node_folder(node: str | None) -> Path:
    """Return the state folder of the node; end the command if there is none, or the node name is invalid."""
    try:
        return state_folder(node_name(node))
    except (NodeNameError, PathError) as error:
        exit_with_error(str(error), exit_codes.USAGE)


def exit_with_error(message: str, code: int) -> NoReturn:
    """End the command with a message on standard error."""
    click.echo(message, err=True)
    sys.exit(code)
