"""`hotpool stop`: stop a service of a node. `cli.service_command` writes and waits."""

from typing import Final

import click

from hotpool.cli.options import FleetOptions, fleet_options
from hotpool.cli.start import CODES
from hotpool.common.cli_help import HelpSections, command

_HELP: Final = HelpSections(
    examples={
        "Stop qwen on edge-017, and wait until it has stopped": "hotpool stop edge-017 qwen -n speech",
        "At most two minutes": "hotpool stop edge-017 qwen --timeout 120",
        "No new work for the whole node, without a stop": "hotpool drain edge-017",
    },
    codes=CODES,
)


@command(_HELP)
@click.argument("node")
@click.argument("service")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0), help="Longest wait. Default: no limit.")
@fleet_options
def stop(*, node: str, service: str, timeout: float | None, fleet: FleetOptions) -> None:
    """Stop a service of a node through the cluster.

    Written and waited for as by `start`. The service is out of its pools at once. It then drains for as long as the
    catalogue says, and stays stopped until a person starts it.
    """
    from hotpool.cli.service_command import send

    send("stop", fleet, node, service, "Stopped", timeout)
