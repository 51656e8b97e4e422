"""Nodes that a pool excludes by hand (`spec.excludeNodes`): changes by `hotpool exclude` and `include`."""

from collections.abc import Mapping
from typing import Any, Final

import click

from hotpool.cli.options import CommandError, FleetOptions
from hotpool.cli.query import find, run_connected
from hotpool.cli.spec_writer import update_spec
from hotpool.common import exit_codes
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Kind
from hotpool.kube.client import Connection
from hotpool.kube.decode import is_paused
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]

_ROLE: Final = "hotpool-maintainer"


def set_exclusion(command: str, fleet: FleetOptions, pool: str, node: str, *, excluded: bool) -> None:
    """Exclude a node from a pool, or end that, and print the result. End the command with a message if it cannot be.

    A node to exclude must exist. One that is excluded may be gone.
    """

    async def task(connection: Connection) -> tuple[bool, bool]:
        if excluded:
            await find(Reader(connection.api, fleet.namespace), Kind.NODE, node, fleet.namespace)
        paused = False

        def change(body: Json) -> Json | None:
            nonlocal paused
            paused = is_paused(body)
            return exclude_nodes(body, node, excluded=excluded)

        return await update_spec(connection, fleet.namespace, Kind.POOL, pool, change), paused

    changed, paused = run_connected(command, fleet, task, role=_ROLE)
    state = "excluded" if excluded else "not excluded"
    click.echo(f"{node}: {'' if changed else 'already '}{state} from pool {pool}")
    if paused:
        click.echo(f"warning: pool {pool} is paused, so its members stay until it is resumed", err=True)


def exclude_nodes(pool: Json, node: str, *, excluded: bool) -> Json | None:
    """Return the changed field of the spec of a pool, or None if it is so already.

    Raises CommandError for a generated pool, whose generator would undo the change, and for a node that is not excluded
    while one with a similar name is.
    """
    spec, name = pool.get("spec") or {}, pool["metadata"]["name"]
    if generated := spec.get("generated"):
        raise CommandError(
            f"pool {name} is generated: nodepoolgenerator {generated['by']} would undo the change; "
            f"change spec.template.spec.excludeNodes there: kubectl edit nodepoolgenerator {generated['by']}",
            exit_codes.REFUSED,
        )
    nodes = list(spec.get("excludeNodes") or [])
    if (node in nodes) is not excluded:
        return {"excludeNodes": [*nodes, node] if excluded else [item for item in nodes if item != node]}
    if not excluded and (hint := similar_hint(node, nodes)):
        raise CommandError(f"{node} is not excluded from pool {name}{hint}", exit_codes.NOT_FOUND)
    return None
