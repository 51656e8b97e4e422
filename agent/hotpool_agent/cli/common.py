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
        exit_with_error(str(error), exit_codes.NOT_RUNNING)
    except protocol.RequestError as error:
        exit_with_error(str(error), exit_codes.FAILED)
    except PathError as error:
        exit_with_error(str(error), exit_codes.USAGE)


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
