"""Commands in `spec.services` of a node that have no effect (requirement A2). Pure."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from hotpool.core.service_troubles import RefusedCommand
from hotpool.kube.json_text import string

Json = Mapping[str, Any]

_MAX_NAMED: Final = 5
_MAX_SIMILAR: Final = 3


class ServiceCommands:
    """Commands that the agent ignores: to a service that its catalogue does not have, or to an observed one.

    A minimal report (B11) has no services and says nothing about commands. One that is truncated may have left out the
    service of a command.
    """

    def __init__(self, spec: Json, status: Json) -> None:
        report = status.get("report")
        found: Json = report if isinstance(report, Mapping) else {}
        commands = list(_with_id(spec.get("services")))
        self._services = {item["id"]: item for item in _with_id(found.get("services"))} if commands else {}
        self._truncated = bool(found.get("truncated"))
        self._ignored = [item for item in commands if self._is_ignored(item["id"])] if self._services else []

    def _is_ignored(self, name: str) -> bool:
        return name not in self._services or self._services[name].get("desired") is None

    def ignored_text(self) -> str:
        """Return which commands are ignored and why; empty if there are none, or if the report is truncated."""
        if self._truncated:
            return ""
        texts = [self._text(item["id"]) for item in self._ignored[:_MAX_NAMED]]
        more = len(self._ignored) - len(texts)
        return string("; ".join([*texts, *([f"and {more} more"] if more else [])]))

    def refused(self) -> tuple[RefusedCommand, ...]:
        """Return the ignored commands. Of a truncated report, those to observed services."""
        return tuple(
            RefusedCommand(
                string(item["id"]), string(item.get("desired")), string(item.get("requestID")), self._why(item["id"])
            )
            for item in self._ignored
            if item["id"] in self._services or not self._truncated
        )

    def _why(self, name: str) -> str:
        if name in self._services:
            return "the service is observed only: another program starts and stops it"
        return "the node's catalogue has no such service"

    def _text(self, name: str) -> str:
        if name in self._services:
            return f"{name} is observed: another program runs it"
        similar = get_close_matches(name, self._services, _MAX_SIMILAR)
        return f"there is no service {name}" + (f" (similar: {', '.join(similar)})" if similar else "")


def _with_id(items: Any) -> Iterator[Json]:
    """Yield the items that have an id. Others are not of the API."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("id"), str) and item["id"]:
            yield item
