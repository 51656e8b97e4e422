"""Manifests of `-f`, from files, folders or standard input. No network."""

import re
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
_SUFFIXES: Final = {".yaml", ".yml", ".json"}
_VERSION: Final = re.compile(r"([a-z0-9.-]+/)?[a-z0-9]+")


class ManifestError(Exception):
    """Manifests are invalid or cannot be read; the message has one line for each error."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Manifest of any kind of object. `source`: its file."""

    source: str
    api_version: str
    kind_name: str
    name: str
    body: Json

    @property
    def kind(self) -> Kind | None:
        """Kind of a NodePool or NodePoolGenerator, None for an object of another kind."""
        return _KINDS.get(self.kind_name) if self.api_version == API_VERSION else None

    @property
    def namespace(self) -> str | None:
        """Namespace in the manifest."""
        named: str | None = self.body["metadata"].get("namespace")
        return named

    @property
    def place(self) -> str:
        """Start of an error: file, kind and name."""
        return f"{self.source}: {self.kind_name} {self.name}"


def load(paths: Iterable[str]) -> list[Manifest]:
    """Return the manifests of all files, and of those in folders, as kubectl reads them. Raises ManifestError."""
    manifests, errors = [], []
    for source in (file for path in paths for file in _files(path)):
        for body in _bodies(source):
            try:
                manifests.append(_manifest(source, body))
            except ManifestError as error:
                errors.append(str(error))
    if errors:
        raise ManifestError("\n".join(errors))
    if not manifests:
        raise ManifestError("no manifest in the files of -f")
    return manifests


def model_errors(manifest: Manifest) -> list[str]:
    """Return the errors of the spec of a pool or generator by the models of this program; none for another kind."""
    if manifest.kind is None:
        return []
    try:
        _SPECS[manifest.kind].model_validate(
            manifest.body.get("spec") or {}, extra="forbid", by_alias=True, by_name=False
        )
    except ValidationError as error:
        return [f"{manifest.place}: {line}" for line in _lines(error)]
    return []


def _files(path: str) -> Iterable[str]:
    """Return the files of a path: those of a folder by name, without those of its folders."""
    folder = Path(path)
    try:
        if path == _STDIN or not folder.is_dir():
            return [path]
        return [str(file) for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES and not file.is_dir()]
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}; see -f") from None


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


def _manifest(source: str, body: Any) -> Manifest:
    if not isinstance(body, dict) or not isinstance(body.get("metadata") or {}, dict):
        raise ManifestError(f"{source}: not a Kubernetes object")
    version, kind, metadata = body.get("apiVersion"), body.get("kind"), body.get("metadata") or {}
    if not isinstance(kind, str) or not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ManifestError(f"{source}: not a Kubernetes object: apiVersion {version}, kind {kind}")
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise ManifestError(f"{source}: {kind}: metadata.name is missing")
    return Manifest(source, version, kind, name, {**body, "metadata": metadata})


def _lines(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        path = ".".join(["spec", *(str(part) for part in item["loc"])])
        message = "unknown field" if item["type"] == "extra_forbidden" else item["msg"]
        yield f"{path}: {message}"
