"""Commands to services in `spec.services` of the NodeCapability (requirement A2): pure.

An entry is a command if its (desired, requestID) differs from the last one carried out. So the last command wins,
whether it came through the cluster or the local socket.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from hotpool.api.capability import ServiceIntent
from hotpool_agent.json_access import mapping

CommandKey = tuple[str, str]
"""(desired, requestID) of a command that was carried out."""


def parse_intents(capability: Mapping[str, Any] | None) -> tuple[ServiceIntent, ...] | None:
    """Return the valid entries of `spec.services`, or None without an object. Invalid entries are left out."""
    if capability is None:
        return None
    entries = mapping(capability.get("spec")).get("services")
    return tuple(intent for entry in entries if (intent := _parse_intent(entry))) if isinstance(entries, list) else ()


def new_commands(intents: Iterable[ServiceIntent], acted: Mapping[str, CommandKey | None]) -> list[ServiceIntent]:
    """Return the entries that are new commands. `acted`: the last command of each service that accepts commands."""
    return [entry for entry in intents if entry.id in acted and (entry.desired, entry.request_id) != acted[entry.id]]


def is_carried_out(intents: Iterable[ServiceIntent], identifier: str, acted: CommandKey | None) -> bool:
    """Return True if `acted`, the last command of the service, is still among the entries."""
    return any(entry.id == identifier and (entry.desired, entry.request_id) == acted for entry in intents)


def _parse_intent(entry: Any) -> ServiceIntent | None:
    try:
        return ServiceIntent.model_validate(entry)
    except ValidationError:
        return None
