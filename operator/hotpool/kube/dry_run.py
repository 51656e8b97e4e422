"""Dry runs of writes: what the API server would store, and what it refuses. Nothing is written."""

import json
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import API_VERSION
from hotpool.core.model import Kind
from hotpool.kube.client import asked, asked_if_present
from hotpool.kube.reader import READ_TIMEOUT
from hotpool.kube.rest import JSON_PATCH, path, request

Json = dict[str, Any]

_QUERY: Final = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "hotpool-diff"}
_REFUSALS: Final = {400, 403, 404, 409, 413, 415, 422}
"""Statuses by which the API server, or an admission policy, refuses an object."""
_FORBIDDEN: Final = 403
_NO_FIELD: Final = "<nil>"
"""Field of the note that rules were left out because of the other errors."""
_IDENTITY: Final = {"apiVersion", "kind", "metadata", "status"}
SERVER_SET: Final = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "deletionTimestamp",
}
"""Fields of metadata that the API server sets."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusal of a write. `errors`: the message of the API server, a line for each field if it names fields."""

    errors: tuple[str, ...]
    forbidden: bool
    """True if the account lacks a right, or an admission policy refuses the object."""


async def served_kinds(api: ApiClient, version: str) -> frozenset[str]:
    """Return the kinds of an apiVersion that the API server serves. Raises ApiUnavailable."""
    pending = request(api, "GET", path(version), seconds=READ_TIMEOUT)
    found = await asked_if_present(pending, "get", f"the kinds of {version}", "")
    return frozenset(item["kind"] for item in (found or {}).get("resources") or [])


async def dry_run_write(
    api: ApiClient, namespace: str, kind: Kind, name: str, body: Mapping[str, Any], *, exists: bool
) -> Json | Refusal:
    """Return the object that the API server would store, or its refusal. Raises ApiUnavailable."""
    parts = ("namespaces", namespace, kind.value)
    send = partial(request, api, query=_QUERY, seconds=READ_TIMEOUT)
    if exists:
        patch = _operations(body)
        pending = send("PATCH", path(API_VERSION, *parts, name), body=patch, content_type=JSON_PATCH)
    else:
        pending = send("POST", path(API_VERSION, *parts), body=body)
    verb = "patch" if exists else "create"
    result: Json | Refusal = await asked(_or_refusal(pending), verb, f"{kind.value}/{name}")
    return result


async def _or_refusal(pending: Awaitable[Json]) -> Json | Refusal:
    try:
        return await pending
    except ApiException as error:
        if error.status not in _REFUSALS:
            raise
        return Refusal(tuple(_errors(error)), error.status == _FORBIDDEN)


def _operations(body: Mapping[str, Any]) -> list[Json]:
    """Return the JSON patch that makes the stored object this one."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in {*SERVER_SET, "namespace"}}
    fields = {f"/{_escaped(key)}": value for key, value in body.items() if key not in _IDENTITY}
    fields |= {f"/metadata/{_escaped(key)}": value for key, value in metadata.items()}
    return [{"op": "add", "path": pointer, "value": value} for pointer, value in fields.items()]


def _escaped(key: Any) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _errors(error: ApiException) -> list[str]:
    status: Any = {}
    with suppress(ValueError, TypeError):
        status = json.loads(error.body or "")
    details = status.get("details") if isinstance(status, dict) else None
    causes = [item for item in (details or {}).get("causes") or [] if item.get("field", _NO_FIELD) != _NO_FIELD]
    if causes:
        return list(dict.fromkeys(f"{item['field']}: {_one_line(item.get('message', ''))}" for item in causes))
    message = status.get("message") if isinstance(status, dict) else None
    return [_one_line(message or f"{error.status} {error.reason}")]


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())
