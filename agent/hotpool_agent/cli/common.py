"""Parts that commands share: options, the question to the running agent, and how a command fails.

Must stay quick to import, and hold no rule of its own.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hotpool_agent.cli.help_sections import FAILED, NOT_RUNNING, USAGE
from hotpool_agent.control import protocol
from hotpool_agent.node_name import NodeNameError, node_name
from hotpool_agent.paths import PathError, socket_path, state_folder

NodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NAME",
        envvar="HOTPOOL_AGENT_NODE",
        show_envvar=False,
        help="Name of the node. Default: the host name, in lower case.",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once, not when the state is reached.")]
ServiceId = Annotated[str, typer.Argument(metavar="ID", help="Service id in the catalogue.")]


class OutputFormat(StrEnum):
    """How `status` and `check` print."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="For people (table) or programs (json).")]


def send_request(node: str | None, request: protocol.Request) -> Any:
    """The running agent's answer; ends the command if there is none."""
    try:
        return protocol.ask(socket_path(folder_of(node)), request)
    except protocol.AgentDownError as error:
        exit_with_error(str(error), NOT_RUNNING)
    except protocol.RequestError as error:
        exit_with_error(str(error), FAILED)
    except PathError as error:
        exit_with_error(str(error), USAGE)


def folder_of(node: str | None) -> Path:
    """The node's state folder; ends the command if the node's name is none."""
    try:
        return state_folder(node_name(node))
    except NodeNameError as error:
        exit_with_error(str(error), USAGE)


def exit_with_error(message: str, code: int) -> NoReturn:
    """End the command with words on standard error."""
    typer.echo(message, err=True)
    raise typer.Exit(code)
