"""The drain of a node: its begin, its end, and the wait until nothing is in use (requirement C5)."""

from collections.abc import Mapping
from typing import Any, Final

from hotpool.cli.node_wait import condition_of, wait_for_node
from hotpool.cli.options import CommandError, FleetOptions
from hotpool.cli.query import find
from hotpool.cli.spec_writer import patch_spec
from hotpool.common import exit_codes
from hotpool.core.drain import DRAINED
from hotpool.core.model import Kind
from hotpool.kube.client import Connection
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]

ROLE: Final = "hotpool-maintainer"


async def set_drain(connection: Connection, fleet: FleetOptions, node: str, *, drain: bool) -> None:
    """Write `spec.drain` unless it is that already. Raises CommandError without the node."""
    body = await find(Reader(connection.api, fleet.namespace), Kind.NODE, node, fleet.namespace)
    if (body.get("spec") or {}).get("drain", False) is drain:
        return
    await patch_spec(connection, fleet.namespace, Kind.NODE, node, {"uid": body["metadata"]["uid"]}, {"drain": drain})


async def wait_for_drain(connection: Connection, fleet: FleetOptions, node: str, seconds: float | None) -> None:
    """Return when the node is drained. Raises CommandError after the time, or if the drain ends."""

    def late(shown: str) -> str:
        return f"not drained in {seconds:g} s: {shown or 'waiting for the operator'}"

    def pending(body: Json) -> str:
        if is_drained(body):
            return ""
        if (body.get("spec") or {}).get("drain") is not True:
            raise CommandError(f"{node}: another client ended the drain", exit_codes.NOT_YET)
        return progress(body)

    reader = Reader(connection.api, fleet.namespace)
    await wait_for_node(reader, fleet.namespace, node, pending, seconds, late)


def is_drained(body: Json) -> bool:
    """Return True if the operator confirms that the draining node is not in use."""
    return (
        condition_of(body, "Draining").get("status") == "True" and condition_of(body, DRAINED).get("status") == "True"
    )


def progress(body: Json) -> str:
    """Return what the drain waits for, as text."""
    drain, condition = (body.get("status") or {}).get("drain") or {}, condition_of(body, DRAINED)
    if in_use := drain.get("inFlight"):
        expiry = f", the last reservation expires at {drain['lastExpiry']}" if drain.get("lastExpiry") else ""
        return f"{in_use} in use{expiry}"
    if not condition:
        return "waiting for the operator"
    return f"{condition.get('reason')}: {condition.get('message')}"
