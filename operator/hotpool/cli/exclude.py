"""`hotpool exclude`: keep a node out of a pool. `cli.exclusion` writes."""

from typing import Final

import click

from hotpool.cli.options import ERROR_CODES, FleetOptions, fleet_options
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command

CODES: Final = {
    **ERROR_CODES,
    exit_codes.OK: "done, or so already",
    exit_codes.REFUSED: "the pool is generated: the message names the template to change",
    exit_codes.NOT_FOUND: "no such pool or node; the message has similar names",
}
_HELP: Final = HelpSections(
    examples={
        "No work of zh-en for edge-017": "hotpool exclude zh-en edge-017 -n speech",
        "The nodes that a pool excludes": "kubectl get nodepool zh-en -o jsonpath='{.spec.excludeNodes}'",
    },
    codes=CODES,
)


@command(_HELP)
@click.argument("pool")
@click.argument("node")
@fleet_options
def exclude(*, pool: str, node: str, fleet: FleetOptions) -> None:
    """Keep a node out of a pool: add it to spec.excludeNodes.

    The node leaves this pool at once and stays in the others. A generated pool is refused, because its generator has
    the list in its template, for all of its pools. A pool whose manifest is applied again by a GitOps tool needs the
    change there.
    """
    from hotpool.cli.exclusion import set_exclusion

    set_exclusion("exclude", fleet, pool, node, excluded=True)
