"""Reads for `hotpool events`: what each source knows of a pool, a node or the fleet (F8)."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import IO, Any

from hotpool.cli.options import CommandError, FleetOptions, RedisOptions
from hotpool.cli.timeline import Entry, Source, Subject, from_events, from_log, from_redis
from hotpool.common import exit_codes
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Kind
from hotpool.kube.reader import Reader


async def read_sources(
    reader: Reader,
    name: str | None,
    begin: datetime,
    log: IO[str] | None,
    redis: RedisOptions | None,
    fleet: FleetOptions,
) -> list[Source]:
    """Return what each source knows of a pool or node; without a name, of all. Raises CommandError for an unknown."""
    node, pool = [await reader.get(kind, name) if name else None for kind in (Kind.NODE, Kind.POOL)]
    if not (node or pool):
        await _names(reader, Kind.POOL)  # fails if the definitions are not installed
    subject = Subject(name, _required_types(pool) if pool else frozenset())
    sources = [from_events(await reader.events(), subject)]
    if redis:
        names = [name] if name and node else [] if name and not pool else await _names(reader, Kind.NODE)
        sources.append(await _redis(redis, fleet.namespace, names, subject))
    if log:
        sources.append(await asyncio.to_thread(from_log, log, subject, begin))
    if name and not (node or pool) and not any(source.entries for source in sources):
        raise CommandError(await _not_found(reader, name, fleet.namespace), exit_codes.NOT_FOUND)
    return sources


def _required_types(pool: Mapping[str, Any]) -> frozenset[str]:
    required = ((pool.get("spec") or {}).get("requires") or {}).get("types") or []
    return frozenset(str(item.get("type")) for item in required)


async def _redis(redis: RedisOptions, namespace: str, nodes: Sequence[str], subject: Subject) -> Source:
    """Return the histories in Redis, or the reason why they cannot be read."""
    from hotpool.lookup import LookupUnavailableError

    try:
        async with redis.lookup(namespace) as lookup:
            return from_redis(await lookup.histories(nodes), subject)
    except (LookupUnavailableError, ValueError) as error:
        return Source("Redis", problem=str(error))


async def _names(reader: Reader, kind: Kind) -> list[str]:
    return [item["metadata"]["name"] async for item in reader.each(kind)]


async def _not_found(reader: Reader, name: str, namespace: str) -> str:
    known = sorted({*await _names(reader, Kind.NODE), *await _names(reader, Kind.POOL)})
    return f"no node or pool {name} in namespace {namespace}, and no source names it{similar_hint(name, known)}"


def document(begin: datetime, sources: Iterable[Source], entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the answer as the JSON of `hotpool events`."""
    return {
        "since": begin.isoformat(),
        "sources": [
            {
                "source": source.origin,
                "reachesBackTo": source.reaches.isoformat() if source.reaches else None,
                "problem": source.problem or None,
            }
            for source in sources
        ],
        "entries": [
            {
                "time": entry.time.isoformat(),
                "source": entry.origin,
                "kind": entry.kind,
                "name": entry.name or None,
                "reason": entry.reason,
                "message": entry.message,
                "count": entry.count,
            }
            for entry in entries
        ],
    }
