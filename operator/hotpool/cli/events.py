"""`hotpool events`: what happened to a pool, a node or the fleet, merged from all sources by time (F8). Reads only."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import IO, TYPE_CHECKING, Any, Final

import click

from hotpool.cli.options import (
    ERROR_CODES,
    CommandError,
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    print_json,
    redis_options,
)
from hotpool.cli.query import run_query
from hotpool.cli.timeline import Entry, Source, Subject, from_events, from_log, from_redis, merge
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option
from hotpool.core.model import Kind
from hotpool.kube.reader import Reader

if TYPE_CHECKING:
    from hotpool.lookup import Lookup, Transition

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CONCURRENT: Final = 16
"""Reads of Redis at a time."""
_HELP: Final = HelpSections(
    examples={
        "What happened to the fleet in the last 12 hours": "hotpool events -n speech",
        "A node, with the operator's log": "kubectl logs deploy/hotpool-operator | hotpool events edge-017 --log -",
        "A pool since last night, with the history in Redis": (
            "hotpool events zh-en --since 18h --redis redis://127.0.0.1:6379"
        ),
        "Messages, for a script": "hotpool events zh-en -o json | jq -r '.entries[].message'",
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "shown, also if nothing happened",
        exit_codes.NOT_FOUND: "there is no such node or pool, and no source names it",
    },
)


class Duration(click.ParamType[timedelta]):
    """Duration such as 90s, 30m, 12h, 2d or 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration, or end the command."""
        if isinstance(value, timedelta):
            return value
        parts = re.findall(r"(\d{1,6})([smhd])", value)
        if not parts or "".join(number + unit for number, unit in parts) != value:
            self.fail(f"{value}: give numbers with units s, m, h or d, such as 12h or 1h30m", param, ctx)
        return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))


@command(_HELP)
@click.argument("name", metavar="[POOL|NODE]", required=False)
@click.option("--since", type=Duration(), default="12h", show_default=True, help="How far to look back.")
@click.option(
    "--log",
    type=click.File(encoding="utf-8", errors="replace"),
    help="The operator's log, JSON lines; - is standard input.",
)
@redis_options("Read the history of nodes from redis://, rediss:// or unix://, too.", required=False)
@fleet_options
@output_option(OutputFormat)
def events(
    *,
    name: str | None,
    since: timedelta,
    log: IO[str] | None,
    redis: RedisOptions | None,
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Show what happened to a pool, a node or the fleet.

    Merges, the oldest first, the Events of the API server, which it keeps for an hour by default, with the last ten
    transitions of each node in Redis (--redis) and with the operator's log (--log), which has one line for each change
    of membership and each failure of a service. The first line says how far back each source reaches. Of a pool, also
    failures of the services that it requires are shown.
    """
    begin = datetime.now(UTC) - since
    sources = run_query("events", fleet, lambda reader: _read(reader, name, begin, log, redis, fleet))
    entries = merge(sources, begin)
    if output is OutputFormat.JSON:
        print_json(_document(begin, sources, entries))
    else:
        from hotpool.cli.render.events import show_events

        show_events(begin, sources, entries)


async def _read(
    reader: Reader,
    name: str | None,
    begin: datetime,
    log: IO[str] | None,
    redis: RedisOptions | None,
    fleet: FleetOptions,
) -> list[Source]:
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


async def _redis(redis: RedisOptions, namespace: str, nodes: Iterable[str], subject: Subject) -> Source:
    """Return the histories in Redis, or the reason why they cannot be read."""
    from hotpool.lookup import LookupUnavailableError

    try:
        async with redis.lookup(namespace) as lookup:
            return from_redis(await _histories(lookup, nodes), subject)
    except (LookupUnavailableError, ValueError) as error:
        return Source("Redis", problem=str(error))


async def _histories(lookup: "Lookup", nodes: Iterable[str]) -> "dict[str, tuple[Transition, ...]]":
    limit = asyncio.Semaphore(_CONCURRENT)

    async def one(node: str) -> "tuple[str, tuple[Transition, ...]]":
        async with limit:
            return node, await lookup.transitions(node)

    return dict(await asyncio.gather(*map(one, nodes)))


async def _names(reader: Reader, kind: Kind) -> list[str]:
    return [item["metadata"]["name"] async for item in reader.each(kind)]


async def _not_found(reader: Reader, name: str, namespace: str) -> str:
    known = sorted({*await _names(reader, Kind.NODE), *await _names(reader, Kind.POOL)})
    similar = get_close_matches(name, known, 3, 0.5)
    hint = f"; similar: {', '.join(similar)}" if similar else ""
    return f"no node or pool {name} in namespace {namespace}, and no source names it{hint}"


def _document(begin: datetime, sources: Iterable[Source], entries: Iterable[Entry]) -> dict[str, Any]:
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
