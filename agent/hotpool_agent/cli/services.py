"""`hotpool-agent start|stop|restart|reload`: commands to the running agent (requirements A2, A10)."""

from typing import Final

import typer

from hotpool_agent.cli import help_sections as m
from hotpool_agent.cli.common import NodeOption, NoWait, ServiceId, send_request
from hotpool_agent.control import protocol

_NOT_RUNNING: Final = "no agent of this node runs, or it ended before it answered"
_CODES: Final = {
    m.OK: "it is so; a repeated command is a success, too",
    m.FAILED: "it failed, or there is no such service; standard error says why",
    m.USAGE: "wrong usage",
    m.NOT_RUNNING: _NOT_RUNNING,
}
_START: Final = m.HelpSections(
    codes=_CODES,
    examples=(
        ("hotpool-agent start faster-whisper", "Start a service of this machine's node"),
        ("hotpool-agent start faster-whisper --node edge-017 --no-wait", "Do not wait until its model is loaded"),
    ),
)
_STOP: Final = m.HelpSections(
    codes=_CODES,
    examples=(("hotpool-agent stop faster-whisper --node edge-017", "Take a service out of its pools, then end it"),),
)
_RESTART: Final = m.HelpSections(
    codes=_CODES,
    examples=(("hotpool-agent restart faster-whisper --node edge-017", "Have a service read its own files again"),),
)
_RELOAD: Final = m.HelpSections(
    codes={
        m.OK: "the catalogue is in force; standard output says what changed",
        m.FAILED: "the catalogue cannot be used; the one before stays in force",
        m.USAGE: "wrong usage",
        m.NOT_RUNNING: _NOT_RUNNING,
    },
    examples=(
        ("hotpool-agent check node.yaml && hotpool-agent reload", "Look before you leap"),
        ("systemctl reload hotpool-agent", "The same, by SIGHUP: what changed is in the agent's log"),
    ),
)


app: Final = typer.Typer(rich_markup_mode=None)


@app.command(cls=m.command(_START))
def start(identifier: ServiceId, *, node: NodeOption = None, no_wait: NoWait = False) -> None:
    """Start a service and wait until it is Running.

    The wish is remembered: the service is started again after a restart of the agent or the machine. Starting
    one that runs is a success.
    """
    _say(node, protocol.Request(op="start", id=identifier, wait=not no_wait))


@app.command(cls=m.command(_STOP))
def stop(identifier: ServiceId, *, node: NodeOption = None, no_wait: NoWait = False) -> None:
    """Stop a service and wait until processes and port are gone.

    The cluster is told first, so that no new work is sent to it. The wish is remembered: the service stays
    stopped after a restart of the agent or the machine. Stopping one that is stopped is a success.
    """
    _say(node, protocol.Request(op="stop", id=identifier, wait=not no_wait))


@app.command(cls=m.command(_RESTART))
def restart(identifier: ServiceId, *, node: NodeOption = None, no_wait: NoWait = False) -> None:
    """Stop a service, start it, and wait until it is Running.

    The cluster is told first, so that no new work is sent to it meanwhile. One that is stopped is started.
    """
    _say(node, protocol.Request(op="restart", id=identifier, wait=not no_wait))


@app.command(cls=m.command(_RELOAD))
def reload(*, node: NodeOption = None) -> None:
    """Have the agent read its catalogue again.

    Services that are new in it appear, services that are gone are stopped first, and changed ones are started
    anew; all others go on untouched. A catalogue with errors changes nothing, and all errors are printed.
    """
    _say(node, protocol.Request(op="reload"))


def _say(node: str | None, request: protocol.Request) -> None:
    typer.echo(send_request(node, request))
