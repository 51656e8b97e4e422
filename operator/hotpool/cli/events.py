"""`hotpool events`: what happened to a pool, a node or the fleet, merged from all sources by time (F8).

`cli.event_sources` reads.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final

import click

from hotpool.cli.options import (
    ERROR_CODES,
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    print_json,
    redis_options,
)
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
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
    from hotpool.cli.event_sources import document, read_sources
    from hotpool.cli.query import run_query
    from hotpool.cli.timeline import merge

    begin = datetime.now(UTC) - since
    sources = run_query("events", fleet, lambda reader: read_sources(reader, name, begin, log, redis, fleet))
    entries = merge(sources, begin)
    if output is OutputFormat.JSON:
        print_json(document(begin, sources, entries))
    else:
        from hotpool.cli.render.events import show_events

        show_events(begin, sources, entries)
