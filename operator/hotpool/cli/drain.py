"""`hotpool drain`: begin the drain of a node, and wait for its end (requirement C5)."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import click

from hotpool.api.meta import API_VERSION
from hotpool.cli.options import CommandError, FleetOptions, fleet_options
from hotpool.cli.query import ERROR_CODES, find, run_connected
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command
from hotpool.core.drain import DRAINED
from hotpool.core.model import Kind
from hotpool.kube.client import Connection, asked
from hotpool.kube.reader import READ_TIMEOUT, Reader
from hotpool.kube.rest import MERGE, path, request

Json = Mapping[str, Any]

_POLL_SECONDS: Final = 0.5
ROLE: Final = "that may get, list and patch nodecapabilities"

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
    run_connected("drain", fleet, lambda connection: _drain(connection, fleet, node), role=ROLE)
    click.echo(f"{node}: draining")
    if wait:
        run_connected("drain", fleet, lambda connection: _wait(connection, fleet, node, timeout), role=ROLE)
        click.echo(f"{node}: drained")


async def _drain(connection: Connection, fleet: FleetOptions, node: str) -> None:
    await set_drain(connection, fleet, node, drain=True)


async def set_drain(connection: Connection, fleet: FleetOptions, node: str, *, drain: bool) -> None:
    """Write `spec.drain` unless it is that already. Raises CommandError without the node."""
    body = await find(Reader(connection.api, fleet.namespace), Kind.NODE, node, fleet.namespace)
    if (body.get("spec") or {}).get("drain", False) is drain:
        return
    url_path = path(API_VERSION, "namespaces", fleet.namespace, Kind.NODE.value, node)
    patch = {"metadata": {"uid": body["metadata"]["uid"]}, "spec": {"drain": drain}}
    pending = request(connection.api, "PATCH", url_path, body=patch, content_type=MERGE, seconds=READ_TIMEOUT)
    await asked(pending, "patch", f"{Kind.NODE.value}/{node}")


async def _wait(connection: Connection, fleet: FleetOptions, node: str, seconds: float | None) -> None:
    """Return when the node is drained. Raises CommandError after the time, or if the drain ends."""
    shown = ""
    reader = Reader(connection.api, fleet.namespace)
    try:
        async with asyncio.timeout(seconds):
            while not is_drained(body := await find(reader, Kind.NODE, node, fleet.namespace)):
                if (body.get("spec") or {}).get("drain") is not True:
                    raise CommandError(f"{node}: another client ended the drain", exit_codes.NOT_YET)
                if (text := progress(body)) != shown:
                    shown = text
                    click.echo(f"{node}: {text}", err=True)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        reason = shown or "waiting for the operator"
        raise CommandError(f"{node}: not drained in {seconds:g} s: {reason}", exit_codes.NOT_YET) from None


def is_drained(body: Json) -> bool:
    """Return True if the operator confirms that the draining node is not in use."""
    return _condition(body, "Draining").get("status") == "True" and _condition(body, DRAINED).get("status") == "True"


def progress(body: Json) -> str:
    """Return what the drain waits for, as text."""
    drain, condition = (body.get("status") or {}).get("drain") or {}, _condition(body, DRAINED)
    if in_use := drain.get("inFlight"):
        expiry = f", the last reservation expires at {drain['lastExpiry']}" if drain.get("lastExpiry") else ""
        return f"{in_use} in use{expiry}"
    if not condition:
        return "waiting for the operator"
    return f"{condition.get('reason')}: {condition.get('message')}"


def _condition(body: Json, type_: str) -> Json:
    conditions = (body.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item.get("type") == type_), {})
