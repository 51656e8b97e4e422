"""Commands to services of a node through `spec.services`, and the wait for their result: `hotpool start` and `stop`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import uuid4

import click

from hotpool.cli.node_wait import condition_of, wait_for_node
from hotpool.cli.options import CommandError, FleetOptions
from hotpool.cli.query import run_connected
from hotpool.cli.spec_writer import update_spec
from hotpool.common import exit_codes
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Kind
from hotpool.kube.client import Connection
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]
Desired = Literal["Running", "Stopped"]

_ROLE: Final = "hotpool-maintainer"
_ID_BYTES: Final = 8
_LEAST_SIMILARITY: Final = 0.6


@dataclass(frozen=True, slots=True)
class ServiceCommand:
    """A command to one service. `identity`: its requestID."""

    node: str
    service: str
    desired: Desired
    identity: str


def send(name: str, fleet: FleetOptions, node: str, service: str, desired: Desired, seconds: float | None) -> None:
    """Write a command, wait for its result, and print it. `seconds`: longest wait; None: no limit.

    End the command with a message if the service does not exist, is not of the agent, or does not get there.
    """
    order = ServiceCommand(node, service, desired, f"cli-{uuid4().hex[:_ID_BYTES]}")

    async def task(connection: Connection) -> None:
        await update_spec(connection, fleet.namespace, Kind.NODE, node, lambda body: with_command(body, order))
        await _wait(Reader(connection.api, fleet.namespace), fleet.namespace, order, seconds)

    run_connected(name, fleet, task, role=_ROLE)
    click.echo(f"{node}: {service} is {desired}")


def with_command(node: Json, order: ServiceCommand) -> Json:
    """Return the changed field of the spec of a node. Raises CommandError for a service that takes no commands."""
    _require_supervised(node, order)
    others = [item for item in (node.get("spec") or {}).get("services") or [] if item.get("id") != order.service]
    return {"services": [*others, {"id": order.service, "desired": order.desired, "requestID": order.identity}]}


def _require_supervised(node: Json, order: ServiceCommand) -> None:
    services = _services(node)
    found = services.get(order.service)
    if found is None:
        others = f"; it has {', '.join(sorted(services))}" if services else "; it reports none"
        hint = similar_hint(order.service, services, _LEAST_SIMILARITY) or others
        raise CommandError(f"{order.node} has no service {order.service}{hint}", exit_codes.NOT_FOUND)
    if found.get("desired") is None:
        text = f"{order.service} on {order.node} is observed: another program runs it, so start and stop it there"
        raise CommandError(text, exit_codes.REFUSED)


def _services(node: Json) -> dict[str, Json]:
    report = (node.get("status") or {}).get("report") or {}
    return {item["id"]: item for item in report.get("services") or []}


async def _wait(reader: Reader, namespace: str, order: ServiceCommand, seconds: float | None) -> None:
    """Return when the service is in its desired state. Raises CommandError after the time, and if it cannot be."""

    def late(shown: str) -> str:
        reason = shown or "waiting for the agent"
        return f"{order.service} is not {order.desired} in {seconds:g} s: {reason}; the command stays in spec.services"

    await wait_for_node(reader, namespace, order.node, lambda node: progress(node, order), seconds, late)


def progress(node: Json, order: ServiceCommand) -> str:
    """Return what the command waits for, as text; empty when it is done. Raises CommandError if it cannot be done."""
    intents = (node.get("spec") or {}).get("services") or []
    if not any((item.get("id"), item.get("requestID")) == (order.service, order.identity) for item in intents):
        raise CommandError(f"{order.node}: another command for {order.service} replaced this one", exit_codes.NOT_YET)
    found = _services(node).get(order.service)
    if found is None:
        raise CommandError(f"{order.node}: {order.service} has left the catalogue", exit_codes.NOT_YET)
    if found.get("requestID") != order.identity:
        return f"waiting for the agent{_absence(node)}"
    if found.get("state") == order.desired:
        return ""
    if found.get("state") == "Failed" and order.desired == "Running":
        error = found.get("lastError") or "no reason is reported"
        text = f"{order.service} failed: {error}; the agent tries again"
        raise CommandError(f"{order.node}: {text}", exit_codes.NOT_YET)
    return f"{order.service} is {found.get('state')}"


def _absence(node: Json) -> str:
    """Return why the agent may not carry out a command now; empty if it reports and beats."""
    ready = condition_of(node, "Ready")
    away = ready.get("status") == "Unknown"
    return f", which does it when it is back: {ready.get('reason')}, {ready.get('message')}" if away else ""
