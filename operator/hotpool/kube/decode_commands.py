"""Commands in `spec.services` of a node that have no effect, as text for people (requirement A2). Pure."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

Json = Mapping[str, Any]

_MAX_NAMED: Final = 5
_MAX_SIMILAR: Final = 3


def ignored_commands(spec: Json, status: Json) -> str:
    """Return which commands the agent ignores and why; empty if there are none, or if the report may lack services.

    It ignores those to a service that the catalogue does not have, and to an observed one, which another program runs.
    """
    entries, report = spec.get("services"), status.get("report")
    if not entries or not isinstance(entries, list) or not isinstance(report, Mapping):
        return ""
    services = {item["id"]: item for item in _mappings(report.get("services")) if isinstance(item.get("id"), str)}
    if not services or report.get("truncated"):
        return ""
    ids = [item["id"] for item in _mappings(entries) if isinstance(item.get("id"), str)]
    ignored = [id_ for id_ in ids if id_ not in services or services[id_].get("desired") is None]
    texts = [_reason(id_, services) for id_ in ignored[:_MAX_NAMED]]
    more = len(ignored) - len(texts)
    return "; ".join([*texts, *([f"and {more} more"] if more else [])])


def _mappings(items: Any) -> Iterator[Json]:
    return (item for item in (items if isinstance(items, list) else ()) if isinstance(item, Mapping))


def _reason(identifier: str, services: Mapping[str, Json]) -> str:
    if identifier in services:
        return f"{identifier} is observed: another program runs it"
    similar = get_close_matches(identifier, services, _MAX_SIMILAR)
    return f"there is no service {identifier}" + (f" (similar: {', '.join(similar)})" if similar else "")
