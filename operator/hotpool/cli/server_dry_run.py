"""Manifests as the API server would store them: discovery, then a dry run of each write (requirement F2)."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hotpool.api.meta import API_VERSION, GROUP
from hotpool.cli.manifests import Manifest, model_errors
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Kind
from hotpool.kube.dry_run import DryRunWriter, Refusal
from hotpool.kube.reader import Reader

Json = dict[str, Any]
_Right = tuple[str, str]
"""Verb and resource."""

_SERVER_SET: Final = {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp"}
_IDENTITY: Final = {"apiVersion", "kind", "metadata", "status"}


@dataclass(frozen=True, slots=True)
class DryRun:
    """Objects as they would be stored, in the order of their manifests. `warning`: why the server was not asked."""

    bodies: Sequence[tuple[Manifest, Json]]
    warning: str = ""


async def check_served(writer: DryRunWriter, manifests: Iterable[Manifest]) -> None:
    """Raise CommandError with a line for each manifest of a kind that the API server does not serve.

    Raises ApiUnavailable.
    """
    wanted = list(manifests)
    served = {version: await writer.kinds(version) for version in dict.fromkeys(item.api_version for item in wanted)}
    lines = [
        f"{item.place}: the API server does not serve {item.api_version} {item.kind_name}"
        f"{_other_kinds(item, served[item.api_version])}"
        for item in wanted
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
    writer: DryRunWriter,
    reader: Reader,
    manifests: Sequence[Manifest],
    stored: Mapping[tuple[Kind, str], Mapping[str, Any]],
) -> DryRun:
    """Return the objects that the API server would store for manifests of pools and generators. Nothing is written.

    Raises CommandError with a line for each error of an object that it refuses, and ApiUnavailable. An account that may
    not write gets the objects as the models of this program read them, and a warning.
    """
    writes = [_Write(item, item.kind, stored.get((item.kind, item.name))) for item in manifests if item.kind]
    results = await asyncio.gather(*(_dry_run_one(writer, write) for write in writes))
    answers = list(zip(writes, results, strict=True))
    missing = await _missing_rights(reader, answers)
    lines = [
        line
        for write, result in answers
        if isinstance(result, Refusal)
        for line in (model_errors(write.manifest) if write.right in missing else _lines(write.manifest, result))
    ]
    if lines:
        raise CommandError("\n".join(lines), exit_codes.USAGE)
    bodies = [(write.manifest, result if isinstance(result, dict) else write.body) for write, result in answers]
    return DryRun(bodies, _warning(missing, writer.namespace))


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


async def _dry_run_one(writer: DryRunWriter, write: _Write) -> Json | Refusal:
    """Return the object that would be stored, or the refusal. Raises ApiUnavailable."""
    if write.stored is None:
        return await writer.create(write.kind, write.body)
    return await writer.patch(write.kind, write.manifest.name, _operations(write.body))


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


async def _missing_rights(reader: Reader, answers: Iterable[tuple[_Write, Json | Refusal]]) -> list[_Right]:
    """Return the rights that the account lacks. An admission policy refuses with the same status."""
    forbidden = [write.right for write, found in answers if isinstance(found, Refusal) and found.forbidden]
    return [right for right in dict.fromkeys(forbidden) if not await reader.may(right[0], GROUP, right[1])]


def _warning(missing: Iterable[_Right], namespace: str) -> str:
    rights = ", ".join(f"{verb} {resource}" for verb, resource in missing)
    text = (
        f"not allowed to {rights} in namespace {namespace}: the API server, which may refuse them, did not check them"
    )
    return text if rights else ""


def _lines(manifest: Manifest, refusal: Refusal) -> list[str]:
    return [f"{manifest.place}: {line}" for line in refusal.lines]
