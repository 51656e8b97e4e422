"""Sources of `hotpool events` (requirement F8): Events of the API, history in Redis, the operator's log. Pure.

Each source becomes entries with one shape, so that they can be merged by time.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from hotpool.api.meta import ELECTION_LEASE, GROUP
from hotpool.cli.node_events import of_event, of_redis
from hotpool.common.durations import parse
from hotpool.core.node_history import Transition
from hotpool.core.service_incidents import INCIDENT_LINES

Origin = Literal["Event", "Redis", "Log"]
_ENVELOPE: Final = frozenset({"event", "timestamp", "level"})
_INCIDENTS: Final = frozenset(INCIDENT_LINES.values())
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to a node, a pool, a generator or the operator."""

    time: datetime
    origin: Origin
    kind: str
    """node, pool, generator or operator."""
    name: str
    """Empty for the operator."""
    reason: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """Entries of one source. `reaches`: time of the oldest one that it holds, also of other objects."""

    origin: Origin
    entries: list[Entry] = field(default_factory=list)
    reaches: datetime | None = None
    problem: str = ""
    """Reason why it was not read, or not all of it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Object that was asked for. `name` None: the whole fleet. `types`: those that the pool of that name requires."""

    name: str | None = None
    types: frozenset[str] = frozenset()

    def is_named_in(self, text: str) -> bool:
        """Return True if a list such as `1 left [edge-1]` has the name."""
        return self.name is not None and re.search(rf"[\[ ]{re.escape(self.name)}[\],:]", text) is not None

    def requires(self, types: Iterable[str]) -> bool:
        """Return True if the pool of the name requires one of the types."""
        return not self.types.isdisjoint(types)


def merge(sources: Iterable[Source], since: datetime) -> list[Entry]:
    """Return all entries since a time, the oldest first."""
    found = (entry for source in sources for entry in source.entries if entry.time >= since)
    return sorted(found, key=lambda entry: entry.time)


def from_events(bodies: Iterable[Mapping[str, Any]], subject: Subject) -> Source:
    """Return the Events about the subject. `bodies`: all of the namespace, in the form of events.k8s.io."""
    entries: list[Entry] = []
    oldest = _LATEST
    for body in bodies:
        item, regarding = of_event(body), body.get("regarding") or {}
        if (time := parse(item.time)) is None:
            continue
        oldest = min(oldest, time)
        kind, name = _kind(regarding), str(regarding.get("name"))
        if kind and (subject.name in {None, name} or subject.is_named_in(item.message)):
            shown = "" if kind == "operator" else name
            entries.append(Entry(time, "Event", kind, shown, item.reason, item.message, item.count))
    return Source("Event", entries, None if oldest is _LATEST else oldest)


def _kind(regarding: Mapping[str, Any]) -> str:
    """Return the kind of an Event's object as people write it; empty if it is not one of hotpool."""
    if str(regarding.get("apiVersion", GROUP)).partition("/")[0] == GROUP:
        kinds = {"NodeCapability": "node", "NodePool": "pool", "NodePoolGenerator": "generator"}
        return kinds.get(str(regarding.get("kind")), "")
    return "operator" if (regarding.get("kind"), regarding.get("name")) == ("Lease", ELECTION_LEASE) else ""


def from_redis(histories: Mapping[str, Iterable[Transition]], subject: Subject) -> Source:
    """Return the transitions of nodes. Of a pool, those that gained or lost a type that the pool requires."""
    entries: list[Entry] = []
    oldest = _LATEST
    for node, transitions in histories.items():
        for transition in transitions:
            if (time := parse(transition.at)) is None:
                continue
            oldest = min(oldest, time)
            if subject.name in {None, node} or subject.requires((*transition.gained, *transition.lost)):
                item = of_redis(transition)
                entries.append(Entry(time, "Redis", "node", node, item.reason, item.message))
    return Source("Redis", entries, None if oldest is _LATEST else oldest)


def from_log(lines: Iterable[str], subject: Subject, since: datetime) -> Source:
    """Return the operator's log lines about the subject. Lines that are no JSON are skipped, and counted."""
    entries: list[Entry] = []
    oldest, invalid = _LATEST, 0
    for line in lines:
        fields = _fields(line)
        time = parse(fields["timestamp"]) if fields else None
        if fields is None or time is None:
            invalid += bool(line.strip())
            continue
        oldest = min(oldest, time)
        if time >= since and _is_about(fields, subject):
            entries.append(_of_line(time, fields))
    problem = f"{invalid} lines are not of the operator's JSON log" if invalid else ""
    return Source("Log", entries, None if oldest is _LATEST else oldest, problem)


def _fields(line: str) -> dict[str, Any] | None:
    """Return the fields of one line, which may have a prefix, as of `kubectl logs --prefix`."""
    try:
        fields = _DECODE(line[line.index("{") :])
    except (ValueError, msgspec.DecodeError):
        return None
    valid = isinstance(fields.get("event"), str) and isinstance(fields.get("timestamp"), str)
    return fields if valid else None


def _is_about(fields: Mapping[str, Any], subject: Subject) -> bool:
    if fields.get("level") == "debug":
        return False
    about = subject.name in {None, *(str(fields.get(key)) for key in ("node", "pool", "name"))}
    return about or (fields["event"] in _INCIDENTS and subject.requires((str(fields.get("type")),)))


def _of_line(time: datetime, fields: Mapping[str, Any]) -> Entry:
    get = {key: str(value) for key, value in fields.items() if value is not None}.get
    event, node, pool, reason = (get(key, "") for key in ("event", "node", "pool", "reason"))
    match event:
        case "joined":
            return Entry(time, "Log", "pool", pool, event, f"{node} as {get('state')}")
        case "left":
            text = f"{node}: {reason}; was {get('former')}, in since {get('since', '')[:19]}"
            return Entry(time, "Log", "pool", pool, event, text)
        case "changed":
            return Entry(time, "Log", "pool", pool, event, f"{node}: {get('former')} -> {get('state')} ({reason})")
        case _ if event in _INCIDENTS:
            restarts = f" ({get('restarts')} restarts)" if get("restarts", "0") != "0" else ""
            return Entry(time, "Log", "node", node, reason, f"{get('service')}: {get('message')}{restarts}")
    rest = ", ".join(f"{key} {value}" for key, value in fields.items() if key not in _ENVELOPE and value is not None)
    kind, name = ("pool", pool) if pool else ("node", node) if node else ("operator", "")
    return Entry(time, "Log", kind, name, event, rest)
