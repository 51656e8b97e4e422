"""`hotpool status`: is the fleet healthy? Reads only."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from hotpool.cli import json_output
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.health import FleetHealth, RedisHealth, judge
from hotpool.cli.leader import read_leader
from hotpool.cli.options import (
    CommandError,
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    print_json,
    redis_options,
)
from hotpool.cli.query import ERROR_CODES, error_message, no_fleet, run_query
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option
from hotpool.core.model import CUSTOM_KINDS, Kind
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import Reader

T = TypeVar("T")

_FORBIDDEN: Final = 403
_LEASES: Final = "leases"
_DEFINITIONS: Final = "customresourcedefinitions"
_HELP: Final = HelpSections(
    examples={
        "Is everything well?": "hotpool status -n speech",
        "Redis, too": "hotpool status --redis redis://127.0.0.1:6379",
        "The pools that are not ready, for a script": (
            "hotpool status -o json | jq -r '.problems[] | [.subject, .reason] | @tsv'"
        ),
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "healthy",
        exit_codes.UNHEALTHY: "not healthy: the output names each problem",
        exit_codes.FORBIDDEN: "no problem was found, but not everything may be read; the output names it",
        exit_codes.NOT_FOUND: "there is no fleet in this namespace",
    },
)


@command(_HELP)
@redis_options("Read the age of the projection from redis://, rediss:// or unix://, too.", required=False)
@fleet_options
@output_option(OutputFormat)
def status(*, redis: RedisOptions | None, fleet: FleetOptions, output: OutputFormat) -> None:
    """Show whether the fleet is healthy: operator, watches, Redis, nodes, pools and versions.

    Not healthy: no operator leads or its probe Lease is late, Redis is away, old or incomplete, a pool or generator is
    not ready, or the definitions are older than the operator needs. A node that is away is shown, and is a problem only
    where a pool misses it. A part that this account may not read is named, and the rest is shown.
    """
    health = run_query("status", fleet, lambda reader: _read(reader, fleet, redis))
    if output is OutputFormat.JSON:
        print_json(json_output.status(health))
    else:
        from hotpool.cli.render.status import show_status

        show_status(health)
    if not health.healthy:
        sys.exit(exit_codes.UNHEALTHY if health.problems else exit_codes.FORBIDDEN)


async def _read(reader: Reader, fleet: FleetOptions, redis: RedisOptions | None) -> FleetHealth:
    """Read all parts. Raises CommandError without a fleet or any right, and ApiUnavailable for other failures."""
    snapshot = FleetSnapshot()
    refused: dict[str, str] = {}

    async def unless_refused(resource: str, read: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await read()
        except ApiUnavailable as error:
            if error.status != _FORBIDDEN:
                raise
            refused[resource] = error_message(error, fleet.namespace)[0]
            return None

    async def add(kind: Kind) -> None:
        async for body in reader.each(kind):
            snapshot.add(kind, body)

    for kind in (Kind.NODE, Kind.POOL, Kind.GENERATOR):
        await unless_refused(kind, lambda kind=kind: add(kind))  # type: ignore[misc]
    leader = await unless_refused(_LEASES, lambda: read_leader(reader))
    definitions = await unless_refused(_DEFINITIONS, lambda: _definitions(reader))
    refused.pop(_DEFINITIONS, None)  # few may read them, and the leader states what it needs
    if {Kind.NODE, Kind.POOL, _LEASES} <= refused.keys():
        raise CommandError(refused[Kind.NODE], exit_codes.FORBIDDEN)
    if not (snapshot.bodies or snapshot.unreadable or refused) and leader and leader.never_ran:
        raise CommandError(no_fleet(fleet.namespace), exit_codes.NOT_FOUND)
    return judge(
        fleet.namespace,
        snapshot,
        leader=leader,
        redis=await _redis(redis, fleet.namespace) if redis else None,
        definitions=definitions,
        refused=refused,
    )


async def _definitions(reader: Reader) -> dict[str, int | None]:
    return {kind.value: await reader.schema_revision(kind) for kind in CUSTOM_KINDS}


async def _redis(redis: RedisOptions, namespace: str) -> RedisHealth:
    """Return the state of the projection, which each look-up states, also that of a pool that does not exist."""
    from hotpool.lookup import LookupUnavailableError

    try:
        async with redis.lookup(namespace) as lookup:
            found: Any = await lookup.members("")
    except (LookupUnavailableError, ValueError) as error:
        return RedisHealth(error=str(error))
    return RedisHealth(found.age_seconds, found.complete)
