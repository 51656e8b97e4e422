"""`hotpool drain`: begin the drain of a node, and wait for its end (requirement C5). `cli.draining` writes."""

from typing import Final

import click

from hotpool.cli.options import ERROR_CODES, FleetOptions, fleet_options
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command

CODES: Final = {**ERROR_CODES, exit_codes.OK: "done", exit_codes.NOT_FOUND: "no such node"}
_DRAIN_HELP: Final = HelpSections(
    examples={
        "No new work for edge-017; what runs continues": "hotpool drain edge-017 -n speech",
        "Wait up to ten minutes for its work to end, then stop it": (
            "hotpool drain edge-017 --wait --timeout 600 && ssh edge-017 systemctl stop hotpool-agent"
        ),
        "The same with kubectl": "kubectl wait nodecapability/edge-017 --for=condition=Drained --timeout=600s",
    },
    codes={**CODES, exit_codes.NOT_YET: "--wait: not drained in time, or not known to be; the message says why"},
)


@command(_DRAIN_HELP)
@click.argument("node")
@click.option("--wait", is_flag=True, help="Return when condition Drained is True.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0), help="Longest wait. Default: no limit.")
@fleet_options
def drain(*, node: str, wait: bool, timeout: float | None, fleet: FleetOptions) -> None:
    """Offer no new work to a node: set its spec.drain.

    With --wait, the command returns when nothing on the node is in use. It never returns because of a guess: without
    reservations, or services that count their own requests, it waits until --timeout, and says what is missing.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    from hotpool.cli.draining import ROLE, set_drain, wait_for_drain
    from hotpool.cli.query import run_connected

    run_connected("drain", fleet, lambda connection: set_drain(connection, fleet, node, drain=True), role=ROLE)
    click.echo(f"{node}: draining")
    if wait:
        run_connected("drain", fleet, lambda connection: wait_for_drain(connection, fleet, node, timeout), role=ROLE)
        click.echo(f"{node}: drained")
