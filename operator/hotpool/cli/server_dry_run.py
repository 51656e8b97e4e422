"""Manifests as the API server would store them: discovery, then a dry run of each write (requirement F2)."""

import asyncio
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import API_VERSION, GROUP
from hotpool.cli.manifests import Manifest, model_errors
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Kind
from hotpool.kube.client import asked, asked_if_present
from hotpool.kube.reader import READ_TIMEOUT, Reader
from hotpool.kube.rest import JSON_PATCH, path, request

Json = dict[str, Any]
_Right = tuple[str, str]
"""Verb and resource."""

_QUERY: Final = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "hotpool-diff"}
_REFUSALS: Final = {400, 403, 404, 409, 413, 415, 422}
"""Statuses by which the API server, or an admission policy, refuses an object."""
_FORBIDDEN: Final = 403
_NO_FIELD: Final = "<nil>"
"""Field of the note that rules were left out because of the other errors."""
_SERVER_SET: Final = {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp"}
_IDENTITY: Final = {"apiVersion", "kind", "metadata", "status"}


@dataclass(frozen=True, slots=True)
class DryRun:
    """Objects as they would be stored, in the order of their manifests. `warning`: why the server was not asked."""

    bodies: Sequence[tuple[Manifest, Json]]
    warning: str = ""


async def check_served(api: ApiClient, manifests: Iterable[Manifest]) -> None:
    """Raise CommandError with a line for each manifest of a kind that the API server does not serve.

    Raises ApiUnavailable.
    """
    wanted = list(manifests)
    served = {version: await _kinds(api, version) for version in dict.fromkeys(item.api_version for item in wanted)}
    lines = [
        f"{item.place}: the API server does not serve {item.api_version} {item.kind_name}"
        f"{_other_kinds(item, served[item.api_version])}"
        for item in wanted
        if item.kind_name not in served[item.api_version]
    ]
    if lines:
        raise CommandError("\n".join(lines), exit_codes.USAGE)


async def _kinds(api: ApiClient, version: str) -> frozenset[str]:
    """Return the kinds of an apiVersion that the API server serves. Raises ApiUnavailable."""
    pending = request(api, "GET", path(version), seconds=READ_TIMEOUT)
    found = await asked_if_present(pending, "get", f"the kinds of {version}", "")
    return frozenset(item["kind"] for item in (found or {}).get("resources") or [])


def _other_kinds(manifest: Manifest, kinds: frozenset[str]) -> str:
    if kinds:
        return similar_hint(manifest.kind_name, sorted(kinds))
    if manifest.api_version == API_VERSION:
        return "; hotpool's definitions are not installed: kubectl apply --server-side -f crds/"
    group = manifest.api_version.partition("/")[0]
    return f"; this program knows {API_VERSION}" if group == GROUP else similar_hint(group, [GROUP], 0.8)


async def dry_run(
    api: ApiClient, namespace: str, manifests: Sequence[Manifest], stored: Mapping[tuple[Kind, str], Mapping[str, Any]]
) -> DryRun:
    """Return the objects that the API server would store for manifests of pools and generators. Nothing is written.

    Raises CommandError with a line for each error of an object that it refuses, and ApiUnavailable. An account that may
    not write gets the objects as the models of this program read them, and a warning.
    """
    writes = [_Write(item, item.kind, stored.get((item.kind, item.name))) for item in manifests if item.kind]
    results = await asyncio.gather(*(_dry_run_one(api, namespace, write) for write in writes))
    answers = list(zip(writes, results, strict=True))
    missing = await _missing_rights(Reader(api, namespace), answers)
    lines = [
        line
        for write, result in answers
        if isinstance(result, ApiException)
        for line in (model_errors(write.manifest) if write.right in missing else _lines(write.manifest, result))
    ]
    if lines:
        raise CommandError("\n".join(lines), exit_codes.USAGE)
    bodies = [(write.manifest, result if isinstance(result, dict) else write.body) for write, result in answers]
    return DryRun(bodies, _warning(missing, namespace))


@dataclass(frozen=True, slots=True)
class _Write:
    """Write of one manifest. `stored`: the object that it would change."""

    manifest: Manifest
    kind: Kind
    stored: Mapping[str, Any] | None

    @property
    def right(self) -> _Right:
        """Verb and resource."""
        return "create" if self.stored is None else "patch", self.kind.value

    @property
    def body(self) -> Json:
        """The stored object with the fields of the manifest, whose spec is the whole new one."""
        return _merged(self.manifest, self.stored)


async def _dry_run_one(api: ApiClient, namespace: str, write: _Write) -> Json | ApiException:
    """Return the object that would be stored, or the refusal. Raises ApiUnavailable."""
    url, name = path(API_VERSION, "namespaces", namespace, write.kind.value), write.manifest.name
    send = partial(request, api, query=_QUERY, seconds=READ_TIMEOUT)
    if write.stored is None:
        pending = send("POST", url, body=write.body)
    else:
        pending = send("PATCH", f"{url}/{quote(name, safe='')}", body=_operations(write.body), content_type=JSON_PATCH)
    verb, resource = write.right
    result: Json | ApiException = await asked(_or_refusal(pending), verb, f"{resource}/{name}")
    return result


async def _or_refusal(pending: Awaitable[Json]) -> Json | ApiException:
    try:
        return await pending
    except ApiException as error:
        if error.status not in _REFUSALS:
            raise
        return error


def _merged(manifest: Manifest, stored: Mapping[str, Any] | None) -> Json:
    """Return the stored object with the fields of the manifest."""
    given = {key: value for key, value in manifest.body["metadata"].items() if key not in _SERVER_SET}
    old = (stored or {}).get("metadata") or {}
    maps = {
        key: {**(old.get(key) or {}), **(given.get(key) or {})}
        for key in ("annotations", "labels")
        if old.get(key) or given.get(key)
    }
    fields = {key: value for key, value in manifest.body.items() if key not in {"status", "metadata"}}
    return {
        **(stored or {}),
        **fields,
        "metadata": {**old, **given, **maps},
        "spec": _spec(stored, manifest),
    }


def _spec(stored: Mapping[str, Any] | None, manifest: Manifest) -> Any:
    """Return the spec of the manifest with the stored `generated`, which belongs to the generator of the pool."""
    spec = manifest.body.get("spec") or {}
    generated = ((stored or {}).get("spec") or {}).get("generated")
    return {"generated": generated, **spec} if generated and isinstance(spec, dict) else spec


def _operations(body: Json) -> list[Json]:
    """Return the JSON patch that makes the stored object this one."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in {*_SERVER_SET, "namespace"}}
    fields = {f"/{_escaped(key)}": value for key, value in body.items() if key not in _IDENTITY}
    fields |= {f"/metadata/{_escaped(key)}": value for key, value in metadata.items()}
    return [{"op": "add", "path": pointer, "value": value} for pointer, value in fields.items()]


def _escaped(key: Any) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


async def _missing_rights(reader: Reader, answers: Iterable[tuple[_Write, Json | ApiException]]) -> list[_Right]:
    """Return the rights that the account lacks. An admission policy refuses with the same status."""
    forbidden = [
        write.right for write, found in answers if isinstance(found, ApiException) and found.status == _FORBIDDEN
    ]
    return [right for right in dict.fromkeys(forbidden) if not await reader.may(right[0], GROUP, right[1])]


def _warning(missing: Iterable[_Right], namespace: str) -> str:
    rights = ", ".join(f"{verb} {resource}" for verb, resource in missing)
    text = (
        f"not allowed to {rights} in namespace {namespace}: the API server, which may refuse them, did not check them"
    )
    return text if rights else ""


def _lines(manifest: Manifest, error: ApiException) -> list[str]:
    return [f"{manifest.place}: {line}" for line in _causes(error)]


def _causes(error: ApiException) -> list[str]:
    """Return the message of the API server, one line for each field if it names fields."""
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
