"""Manifests for `diff -f`, from files or standard input, validated by the models of the API. No network."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from hotpool.api.generator import GeneratorSpec
from hotpool.api.meta import API_VERSION, ApiModel
from hotpool.api.pool import PoolSpec
from hotpool.core.model import Kind

Json = dict[str, Any]

_KINDS: Final = {"NodePool": Kind.POOL, "NodePoolGenerator": Kind.GENERATOR}
_SPECS: Final[dict[Kind, type[ApiModel]]] = {Kind.POOL: PoolSpec, Kind.GENERATOR: GeneratorSpec}
_STDIN: Final = "-"


class ManifestError(Exception):
    """A manifest is invalid; the message has one line for each error."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Manifest of a NodePool or NodePoolGenerator."""

    kind: Kind
    name: str
    namespace: str | None
    body: Json


def load(paths: Iterable[str]) -> list[Manifest | str]:
    """Return the manifests of all files. Raises ManifestError. One of another kind, which affects no pool, is text."""
    manifests = [_manifest(source, body) for source in paths for body in _bodies(source)]
    if not manifests:
        raise ManifestError("no manifest in the files of -f")
    return manifests


def _bodies(source: str) -> Iterator[Any]:
    """Return the objects of one file; those in a List one by one."""
    try:
        text = sys.stdin.read() if source == _STDIN else Path(source).read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except OSError as error:
        raise ManifestError(f"{source} cannot be read: {error.strerror}; see -f") from None
    except (UnicodeError, yaml.YAMLError) as error:
        raise ManifestError(f"{source}: {' '.join(str(error).split())}") from None
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
            yield from document.get("items") or []
        elif document is not None:
            yield document


def _manifest(source: str, body: Any) -> Manifest | str:
    if not isinstance(body, dict) or not isinstance(body.get("metadata") or {}, dict):
        raise ManifestError(f"{source}: not a Kubernetes object")
    metadata = body.get("metadata") or {}
    name, prefix = metadata.get("name"), f"{source}: {body.get('kind')} {metadata.get('name')}"
    kind = _KINDS.get(str(body.get("kind"))) if body.get("apiVersion") == API_VERSION else None
    if kind is None:
        return f"{body.get('apiVersion')} {body.get('kind')} {name}"
    if not isinstance(name, str) or not name:
        raise ManifestError(f"{prefix}: metadata.name is missing")
    try:
        _SPECS[kind].model_validate(body.get("spec") or {}, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        raise ManifestError("\n".join(f"{prefix}: {line}" for line in _lines(error))) from None
    return Manifest(kind, name, metadata.get("namespace"), body)


def _lines(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        path = ".".join(["spec", *(str(part) for part in item["loc"])])
        message = "unknown field" if item["type"] == "extra_forbidden" else item["msg"]
        yield f"{path}: {message}"
