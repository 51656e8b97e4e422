"""Writes that the API server checks as any other, but does not store (dry runs)."""

import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

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


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer to a write that is refused. `lines`: the message, one line for each field if it names fields."""

    forbidden: bool
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class DryRunWriter:
    """Dry runs of the writes of pools and generators in one namespace. Each raises ApiUnavailable."""

    _api: ApiClient
    namespace: str

    async def kinds(self, version: str) -> frozenset[str]:
        """Return the kinds of an apiVersion that the API server serves."""
        pending = request(self._api, "GET", path(version), seconds=READ_TIMEOUT)
        found = await asked_if_present(pending, "get", f"the kinds of {version}", "")
        return frozenset(item["kind"] for item in (found or {}).get("resources") or [])

    async def create(self, kind: Kind, body: Json) -> Json | Refusal:
        """Return the object that a POST would store."""
        pending = request(self._api, "POST", self._path(kind), query=_QUERY, seconds=READ_TIMEOUT, body=body)
        return await _answer(pending, "create", f"{kind.value}/{body['metadata']['name']}")

    async def patch(self, kind: Kind, name: str, operations: Sequence[Json]) -> Json | Refusal:
        """Return the object that a JSON patch would store."""
        pending = request(
            self._api,
            "PATCH",
            f"{self._path(kind)}/{quote(name, safe='')}",
            query=_QUERY,
            seconds=READ_TIMEOUT,
            body=operations,
            content_type=JSON_PATCH,
        )
        return await _answer(pending, "patch", f"{kind.value}/{name}")

    def _path(self, kind: Kind) -> str:
        return path(API_VERSION, "namespaces", self.namespace, kind.value)


async def _answer(pending: Awaitable[Json], verb: str, resource: str) -> Json | Refusal:
    result: Json | Refusal = await asked(_or_refusal(pending), verb, resource)
    return result


async def _or_refusal(pending: Awaitable[Json]) -> Json | Refusal:
    try:
        return await pending
    except ApiException as error:
        if error.status not in _REFUSALS:
            raise
        return Refusal(error.status == _FORBIDDEN, _lines(error))


def _lines(error: ApiException) -> list[str]:
    status: Any = {}
    with suppress(ValueError, TypeError):
        status = json.loads(error.body or "")
    details = status.get("details") if isinstance(status, dict) else None
    causes = [item for item in (details or {}).get("causes") or [] if item.get("field") and item.get("message")]
    if causes:
        return list(dict.fromkeys(f"{item['field']}: {_one_line(item['message'])}" for item in causes))
    message = status.get("message") if isinstance(status, dict) else None
    return [_one_line(message or f"{error.status} {error.reason}")]


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())
