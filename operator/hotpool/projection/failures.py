"""Ejected services as Redis stores them (lua/failures.lua), and the rights that failure reports need.

Pure: must not do I/O. A dispatcher imports it, too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hotpool.projection.keys import FleetKeys

EJECTED_FIELD: Final = ".ejected"
"""Field of the hash of failures with the records of all ejected services, a line each."""
NODE_ITSELF: Final = "-"
"""Replaces the service in a report about a node without endpoints."""
_RECORD: Final = re.compile(
    r"(?P<node>\S+) (?P<service>\S+) (?P<word>\S+) (?P<pool>\S+) \d+ (?P<since>\d+) \d+ (?P<until>\d+) \d+ \d+"
    r" (?P<sources>\S+) \S+"
)


@dataclass(frozen=True, slots=True)
class Ejection:
    """A service that dispatchers pick after all others, because requests to it failed.

    `service`, `type`: None for the node as a whole. `pool`: pool of the last report. `sources`: at most 16 dispatchers.
    `since`, `until`: Unix seconds by the clock of Redis; from `until` on it is tried once a second.
    """

    node: str
    service: str | None
    type: str | None
    pool: str
    sources: tuple[str, ...]
    since: float
    until: float


def parse_ejections(text: str) -> tuple[Ejection, ...]:
    """Parse the records of ejected services. Lines that no function wrote are left out."""
    return tuple(_parse(text))


def _parse(text: str) -> Iterator[Ejection]:
    for line in text.splitlines():
        if found := _RECORD.fullmatch(line):
            whole = found["service"] == NODE_ITSELF
            yield Ejection(
                node=found["node"],
                service=None if whole else found["service"],
                type=None if whole else found["word"].partition("|")[0],
                pool=found["pool"],
                sources=tuple(found["sources"].split(",")),
                since=int(found["since"]) / 1000,
                until=int(found["until"]) / 1000,
            )


def pick_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of a pick on the keys of failures, for the function `denied_commands`."""
    return (f"HGET {keys.failures[0]} 1",)


def report_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of a report."""
    failures, sources = keys.failures
    writes = (f"HSET {failures} 1 1", f"HDEL {failures} 1", f"ZADD {sources} 1 1", f"ZSCORE {sources} 1")
    return (*pick_commands(keys), *writes)


def operator_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of the operator, which ends ejections and deletes old records."""
    failures, sources = keys.failures
    both = (f"TYPE {failures}", f"UNLINK {failures}", f"TYPE {sources}", f"UNLINK {sources}")
    hash_commands = (f"HGET {failures} 1", f"HSET {failures} 1 1", f"HDEL {failures} 1", f"HGETALL {failures}")
    return (*both, *hash_commands, f"ZRANGEBYSCORE {sources} 0 1", f"ZREM {sources} 1")
