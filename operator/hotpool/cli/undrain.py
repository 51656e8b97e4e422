"""`hotpool undrain`: end the drain that `hotpool drain` began (requirement C5)."""

from typing import Final

import click

from hotpool.cli.drain import CODES
from hotpool.cli.options import FleetOptions, fleet_options
from hotpool.common.cli_help import HelpSections, command

_HELP: Final = HelpSections(examples={"Offer edge-017 again": "hotpool undrain edge-017 -n speech"}, codes=CODES)


@command(_HELP)
@click.argument("node")
@fleet_options
def undrain(*, node: str, fleet: FleetOptions) -> None:
    """Offer a drained node again: unset its spec.drain.

    A drain by the owner of the machine, or by a cordon, stays.
    """
    from hotpool.cli.draining import ROLE, set_drain
    from hotpool.cli.query import run_connected

    run_connected("undrain", fleet, lambda connection: set_drain(connection, fleet, node, drain=False), role=ROLE)
    click.echo(f"{node}: not draining")
