"""`hotpool start`: start a service of a node. `cli.service_command` writes and waits."""

from typing import Final

import click

from hotpool.cli.options import ERROR_CODES, FleetOptions, fleet_options
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command

CODES: Final = {
    **ERROR_CODES,
    exit_codes.OK: "the agent reports the state that was asked for",
    exit_codes.NOT_YET: "not done in time or failed, or an observed service; the message says why",
    exit_codes.NOT_FOUND: "no such node or service; the message has similar names",
}
_HELP: Final = HelpSections(
    examples={
        "Start qwen on edge-017, and wait until it runs": "hotpool start edge-017 qwen -n speech",
        "At most two minutes": "hotpool start edge-017 qwen --timeout 120",
        "The same on the machine, without the cluster": "hotpool-agent start qwen",
    },
    codes=CODES,
)


@command(_HELP)
@click.argument("node")
@click.argument("service")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0), help="Longest wait. Default: no limit.")
@fleet_options
def start(*, node: str, service: str, timeout: float | None, fleet: FleetOptions) -> None:
    """Start a service of a node through the cluster.

    The command is written to spec.services of the node, and the agent carries it out, also after it was away. The last
    command wins, whether from here or on the machine. This returns when the agent reports the service as Running. When
    the time is over or Ctrl-C was pressed, the command stays.
    """
    from hotpool.cli.service_command import send

    send("start", fleet, node, service, "Running", timeout)
