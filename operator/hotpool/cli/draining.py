"""The drain of a node: its begin, its end, and the wait until nothing is in use (requirement C5)."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import click

from hotpool.api.meta import API_VERSION
from hotpool.cli.options import CommandError, FleetOptions
from hotpool.cli.query import find
from hotpool.common import exit_codes
from hotpool.core.drain import DRAINED
from hotpool.core.model import Kind
from hotpool.kube.client import Connection, asked
from hotpool.kube.reader import READ_TIMEOUT, Reader
from hotpool.kube.rest import MERGE, path, request

Json = Mapping[str, Any]

_POLL_SECONDS: Final = 0.5
ROLE: Final = "that may get, list and patch nodecapabilities"


async def set_drain(connection: Connection, fleet: FleetOptions, node: str, *, drain: bool) -> None:
    """Write `spec.drain` unless it is that already. Raises CommandError without the node."""
    body = await find(Reader(connection.api, fleet.namespace), Kind.NODE, node, fleet.namespace)
    if (body.get("spec") or {}).get("drain", False) is drain:
        return
    url_path = path(API_VERSION, "namespaces", fleet.namespace, Kind.NODE.value, node)
    patch = {"metadata": {"uid": body["metadata"]["uid"]}, "spec": {"drain": drain}}
    pending = request(connection.api, "PATCH", url_path, body=patch, content_type=MERGE, seconds=READ_TIMEOUT)
    await asked(pending, "patch", f"{Kind.NODE.value}/{node}")


async def wait_for_drain(connection: Connection, fleet: FleetOptions, node: str, seconds: float | None) -> None:
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
