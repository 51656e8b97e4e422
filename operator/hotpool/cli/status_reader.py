"""Reads for `hotpool status`: every part of a fleet, as far as this account may read it."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.health import FleetHealth, RedisHealth, judge
from hotpool.cli.leader import read_leader
from hotpool.cli.options import CommandError, FleetOptions, RedisOptions
from hotpool.cli.query import error_message, no_fleet
from hotpool.common import exit_codes
from hotpool.core.model import CUSTOM_KINDS, Kind
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import Reader

T = TypeVar("T")

_FORBIDDEN: Final = 403
_LEASES: Final = "leases"
_DEFINITIONS: Final = "customresourcedefinitions"


async def read_health(reader: Reader, fleet: FleetOptions, redis: RedisOptions | None) -> FleetHealth:
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
        raise CommandError(await no_fleet(reader, fleet.namespace), exit_codes.NOT_FOUND)
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
