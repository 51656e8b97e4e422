"""`hotpool include`: end an exclusion by `hotpool exclude`. `cli.exclusion` writes."""

from typing import Final

import click

from hotpool.cli.exclude import CODES
from hotpool.cli.options import FleetOptions, fleet_options
from hotpool.common.cli_help import HelpSections, command

_HELP: Final = HelpSections(
    examples={
        "edge-017 may be in zh-en again": "hotpool include zh-en edge-017 -n speech",
        "Is it a member now, and why not?": "hotpool why edge-017 zh-en",
    },
    codes=CODES,
)


@command(_HELP)
@click.argument("pool")
@click.argument("node")
@fleet_options
def include(*, pool: str, node: str, fleet: FleetOptions) -> None:
    """End the exclusion of a node from a pool: remove it from spec.excludeNodes.

    The node is a member again when it meets the pool's requirements. A generated pool is refused as by `exclude`.
    """
    from hotpool.cli.exclusion import set_exclusion

    set_exclusion("include", fleet, pool, node, excluded=False)
