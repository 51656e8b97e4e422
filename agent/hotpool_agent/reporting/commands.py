"""What people want of the node's services through the cluster (requirement A2): pure.

`node` acts on it. An entry is a command when its (desired, requestID) differs from the one last acted on, so that the
last command wins wherever it came from.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from hotpool.api.capability import ServiceIntent

Acted = tuple[str, str]
"""(desired, requestID)"""


def intents_in(capability: Mapping[str, Any] | None) -> tuple[ServiceIntent, ...] | None:
    """The entries of `spec.services`; None when there is no object. Entries that cannot be read are left out."""
    if capability is None:
        return None
    spec = capability.get("spec")
    entries = spec.get("services") if isinstance(spec, dict) else None
    return tuple(found for entry in entries if (found := _entry(entry))) if isinstance(entries, list) else ()


def commands(intents: Iterable[ServiceIntent], acted: Mapping[str, Acted | None]) -> list[ServiceIntent]:
    """The entries that are commands; `acted`: what was acted on last, of each service that takes commands."""
    return [entry for entry in intents if entry.id in acted and (entry.desired, entry.request_id) != acted[entry.id]]


def _entry(plain: Any) -> ServiceIntent | None:
    try:
        return ServiceIntent.model_validate(plain)
    except ValidationError:
        return None
