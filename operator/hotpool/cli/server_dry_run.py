"""Manifests as the API server would store them: discovery, then a dry run of each write (requirement F2)."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hotpool.api.meta import API_VERSION, GROUP
from hotpool.cli.manifests import Manifest, model_errors
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Kind
from hotpool.kube.client import Connection
from hotpool.kube.dry_run import SERVER_SET, Refusal, dry_run_write, served_kinds
from hotpool.kube.reader import Reader

Json = dict[str, Any]
_Right = tuple[str, str]
"""Verb and resource."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """Objects as they would be stored, in the order of their manifests. `warning`: why the server was not asked."""

    bodies: Sequence[tuple[Manifest, Json]]
    warning: str = ""


async def check_served(connection: Connection, manifests: Sequence[Manifest]) -> None:
    """Raise CommandError with a line for each manifest of a kind that the API server does not serve.

    Raises ApiUnavailable.
    """
    versions = dict.fromkeys(item.api_version for item in manifests)
    served = {version: await served_kinds(connection.api, version) for version in versions}
    lines = [
        f"{item.place}: the API server does not serve {item.api_version} {item.kind_name}"
        f"{_other_kinds(item, served[item.api_version])}"
        for item in manifests
        if item.kind_name not in served[item.api_version]
    ]
    if lines:
        raise CommandError("\n".join(lines), exit_codes.USAGE)


def _other_kinds(manifest: Manifest, kinds: frozenset[str]) -> str:
    if kinds:
        return similar_hint(manifest.kind_name, sorted(kinds))
    if manifest.api_version == API_VERSION:
        return "; hotpool's definitions are not installed: kubectl apply --server-side -f crds/"
    group = manifest.api_version.partition("/")[0]
    return f"; this program knows {API_VERSION}" if group == GROUP else similar_hint(group, [GROUP], 0.8)


async def dry_run(
    connection: Connection,
    namespace: str,
    manifests: Sequence[Manifest],
    stored: Mapping[tuple[Kind, str], Mapping[str, Any]],
) -> DryRun:
    """Return the objects that the API server would store for manifests of pools and generators. Nothing is written.

    Raises CommandError with a line for each error of an object that it refuses, and ApiUnavailable. An account that may
    not write gets the objects as the models of this program read them, and a warning.
    """
    writes = [_Write(item, item.kind, stored.get((item.kind, item.name))) for item in manifests if item.kind]
    results = await asyncio.gather(*(write.send(connection, namespace) for write in writes))
    answers = list(zip(writes, results, strict=True))
    missing = await _missing_rights(Reader(connection.api, namespace), answers)
    lines = [
        line
        for write, result in answers
        if isinstance(result, Refusal)
        for line in (model_errors(write.manifest) if write.right in missing else _lines(write.manifest, result))
    ]
    if lines:
        raise CommandError("\n".join(lines), exit_codes.USAGE)
    bodies = [(write.manifest, write.body if isinstance(result, Refusal) else result) for write, result in answers]
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

    async def send(self, connection: Connection, namespace: str) -> Json | Refusal:
        """Ask for a dry run. Return the object that would be stored, or the refusal. Raises ApiUnavailable."""
        exists = self.stored is not None
        return await dry_run_write(connection.api, namespace, self.kind, self.manifest.name, self.body, exists=exists)


def _merged(manifest: Manifest, stored: Mapping[str, Any] | None) -> Json:
    """Return the stored object with the fields of the manifest."""
    given = {key: value for key, value in manifest.body["metadata"].items() if key not in SERVER_SET}
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


async def _missing_rights(reader: Reader, answers: Iterable[tuple[_Write, Json | Refusal]]) -> list[_Right]:
    """Return the rights that the account lacks. An admission policy refuses with the same status."""
    forbidden = [write.right for write, result in answers if isinstance(result, Refusal) and result.forbidden]
    return [right for right in dict.fromkeys(forbidden) if not await reader.may(right[0], GROUP, right[1])]


def _warning(missing: Iterable[_Right], namespace: str) -> str:
    rights = ", ".join(f"{verb} {resource}" for verb, resource in missing)
    reason = f"not allowed to {rights} in namespace {namespace}"
    text = f"{reason}: the API server did not check the manifests, and may refuse them"
    return text if rights else ""


def _lines(manifest: Manifest, refusal: Refusal) -> list[str]:
    return [f"{manifest.place}: {error}" for error in refusal.errors]
