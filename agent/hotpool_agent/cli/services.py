"""`hotpool-agent start|stop|restart|reload|drain|undrain`: commands to the running agent (requirements A2, A10, C5)."""

from typing import Final

import click

from hotpool.common import exit_codes
from hotpool.common.cli_help import command
from hotpool_agent.cli.common import exit_with_error, no_wait_option, node_option, send_request, service_argument
from hotpool_agent.cli.help import AgentHelp
from hotpool_agent.control import protocol

_NOT_RUNNING: Final = "no agent of this node is running, or it does not respond"
_CODES: Final = {
    exit_codes.OK: "success, also if the service is already in that state",
    exit_codes.FAILED: "the command failed, or there is no such service; the cause is on standard error",
    exit_codes.USAGE: "wrong usage",
    exit_codes.NOT_RUNNING: _NOT_RUNNING,
}
_START: Final = AgentHelp(
    codes=_CODES,
    examples={
        "Start a service of the node with this machine's name": "hotpool-agent start faster-whisper",
        "Return before its model is loaded": "hotpool-agent start faster-whisper --node edge-017 --no-wait",
    },
)
_STOP: Final = AgentHelp(
    codes=_CODES,
    examples={
        "Withdraw a service from its pools, then stop it": "hotpool-agent stop faster-whisper --node edge-017",
        "Stop every service that the agent runs": "hotpool-agent stop --all --node edge-017",
    },
)
_RESTART: Final = AgentHelp(
    codes=_CODES,
    examples={"Make a service read its own files again": "hotpool-agent restart faster-whisper --node edge-017"},
)
_RELOAD: Final = AgentHelp(
    codes={
        exit_codes.OK: "the catalogue was loaded; the changes are on standard output",
        exit_codes.FAILED: "the catalogue has errors; the former one stays in use",
        exit_codes.USAGE: "wrong usage",
        exit_codes.NOT_RUNNING: _NOT_RUNNING,
    },
    examples={
        "Check first": "hotpool-agent check node.yaml && hotpool-agent reload",
        "The same by SIGHUP; the changes are in the agent's log": "systemctl reload hotpool-agent",
    },
)
_DRAIN_CODES: Final = {
    exit_codes.OK: "success, also if nothing changes; the output says so if it could not be reported yet",
    exit_codes.FAILED: "it could not be stored; the cause is on standard error",
    exit_codes.USAGE: "wrong usage",
    exit_codes.NOT_RUNNING: _NOT_RUNNING,
}
_DRAIN: Final = AgentHelp(
    codes=_DRAIN_CODES,
    examples={
        "Keep new work away from this machine": "hotpool-agent drain",
        "The same, and free its memory": "hotpool-agent drain && hotpool-agent stop --all",
    },
)
_UNDRAIN: Final = AgentHelp(
    codes=_DRAIN_CODES, examples={"Offer this machine again": "hotpool-agent undrain --node edge-017"}
)


@command(_START)
@service_argument
@node_option
@no_wait_option
def start(*, identifier: str, node: str | None, no_wait: bool) -> None:
    """Start a service and wait until it is Running.

    The desired state is stored: the service is started again after a restart of the agent or the machine. No effect
    on a running service.
    """
    _print_result(node, protocol.Request(op="start", id=identifier, wait=not no_wait))


@command(_STOP)
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--all", "every", is_flag=True, help="Stop all services that the agent runs, at once.")
@node_option
@no_wait_option
def stop(*, identifier: str | None, every: bool, node: str | None, no_wait: bool) -> None:
    """Stop a service and wait until processes and port are gone.

    The withdrawal is reported first, so that no new work is sent to the service. The desired state is stored: the
    service stays stopped after a restart of the agent or the machine. No effect on a stopped service.
    """
    if every == (identifier is not None):
        exit_with_error("give the ID of one service, or --all", exit_codes.USAGE)
    _print_result(node, protocol.Request(op="stop-all" if every else "stop", id=identifier, wait=not no_wait))


@command(_RESTART)
@service_argument
@node_option
@no_wait_option
def restart(*, identifier: str, node: str | None, no_wait: bool) -> None:
    """Stop a service, start it, and wait until it is Running.

    The withdrawal is reported first, so that no new work is sent to the service. A stopped service is started.
    """
    _print_result(node, protocol.Request(op="restart", id=identifier, wait=not no_wait))


@command(_RELOAD)
@node_option
def reload(*, node: str | None) -> None:
    """Reload the catalogue of the running agent.

    Removed services are stopped first, new ones are added, and changed ones are restarted. Other services are not
    affected. If the catalogue has errors, all of them are printed and nothing changes.
    """
    _print_result(node, protocol.Request(op="reload"))


@command(_DRAIN)
@node_option
def drain(*, node: str | None) -> None:
    """Keep new work away from this machine.

    The node stays in its pools as Draining and is offered no new work. Its services continue to run. The drain lasts
    until `undrain`, also after a restart of the agent or the machine.
    """
    _print_result(node, protocol.Request(op="drain"))


@command(_UNDRAIN)
@node_option
def undrain(*, node: str | None) -> None:
    """End the drain of this machine.

    The node is offered again. No effect on a drain by other means, such as spec.drain of its NodeCapability.
    """
    _print_result(node, protocol.Request(op="undrain"))


def _print_result(node: str | None, request: protocol.Request) -> None:
    click.echo(send_request(node, request))
