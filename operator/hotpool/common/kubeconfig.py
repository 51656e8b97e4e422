"""Kubeconfigs, found, merged and selected from as kubectl does (requirement F5). I/O: files and environment.

Several files in KUBECONFIG: the first to have a name, or a current-context, wins, and missing files are skipped.
Credentials are read in `kube_login`.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOME_CONFIG: Final = "~/.kube/config"
_FIELDS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}
_NAMES_SHOWN: Final = 5
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Json = Mapping[str, Any]
FileDigests = tuple[tuple[Path, bytes | None], ...]


class TargetError(Exception):
    """No usable cluster configuration; the message is one line that names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """Cluster to connect to. None: $KUBECONFIG, else ~/.kube/config, else in a pod its service account."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A named cluster, user or context. `folder`: that of its file, to which its paths are relative."""

    name: str
    fields: Json
    folder: Path

    def text(self, key: str) -> str:
        """Return text, empty if it is absent or null. Raises TypeError for a number: kubectl refuses it, too."""
        value = self.fields.get(key)
        if value is None or isinstance(value, str):
            return value or ""
        raise TypeError(f"{key} of {self.name} is not text; quote it")

    def flag(self, key: str) -> bool:
        """Return a boolean, False if it is absent."""
        return self.fields.get(key) is True

    def path(self, key: str) -> Path | None:
        """Return the path of a file, or None if the key is absent."""
        text = self.text(key)
        return self.folder / text if text else None

    def mapping(self, key: str) -> Json:
        """Return a mapping, empty if it is absent or null."""
        value = self.fields.get(key) or {}
        if not isinstance(value, dict):
            raise TypeError(f"{key} of {self.name} is not a mapping")
        return value


@dataclass(slots=True)
class Kubeconfig:
    """Merged files. `digests`: of each file that was looked for, None for a missing one."""

    source: str
    current: str = ""
    clusters: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)
    contexts: dict[str, Entry] = field(default_factory=dict)
    digests: FileDigests = ()

    @property
    def found(self) -> bool:
        """True if one of the files exists."""
        return any(digest for _, digest in self.digests)

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to select from."""
        return not (self.current or self.clusters or self.contexts)


@dataclass(frozen=True, slots=True)
class Selection:
    """The context in use, with its cluster and user. `user`: None for an anonymous one."""

    context: str
    namespace: str
    cluster: Entry
    user: Entry | None


@contextmanager
def usable(source: str) -> Iterator[None]:
    """Turn an error of the content of a kubeconfig, or of a file that it names, into a TargetError."""
    try:
        yield
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise TargetError(f"no usable kubeconfig ({source}): {' '.join(reason.split())}") from error


def load(target: Target) -> Kubeconfig:
    """Read and merge the files. Raises TargetError for a file that is malformed, or named explicitly and missing."""
    paths, source = _paths(target)
    merged = Kubeconfig(source)
    for path in paths:
        with usable(str(path)):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                merged.digests += ((path, None),)
                continue
            merged.digests += ((path, digest_of(content)),)
            _merge(merged, path, _parse(content))
    if target.kubeconfig and not merged.found:
        raise TargetError(f"no kubeconfig: {target.kubeconfig} does not exist; see --kubeconfig")
    return merged


def select(config: Kubeconfig, context: str | None) -> Selection:
    """Return the named or current context with its cluster and user. Raises TargetError."""
    name = context or config.current
    chosen = _context(config, name)
    with usable(config.source):
        cluster, user = config.clusters.get(chosen.text("cluster")), config.users.get(chosen.text("user"))
        if cluster is None:
            raise LookupError(f"context {name} has no cluster in the file")
        if not cluster.text("server"):
            raise LookupError(f"cluster {cluster.name} has no server")
        return Selection(name, chosen.text("namespace") or "default", cluster, user)


def _context(config: Kubeconfig, name: str) -> Entry:
    if not config.found:
        raise TargetError(f"no kubeconfig: {config.source} does not exist; see --kubeconfig{_pod_problem()}")
    if not name:
        problem = "is empty" if config.is_empty else "has no current-context"
        raise TargetError(f"no cluster chosen: {config.source} {problem}; see --kubeconfig and --context")
    if name not in config.contexts:
        names = ", ".join(list(config.contexts)[:_NAMES_SHOWN]) or "none"
        raise TargetError(f"no context {name} in {config.source}; it has: {names}")
    return config.contexts[name]


def service_account_used(target: Target, config: Kubeconfig) -> bool:
    """Return True if kubectl would use the service account of this pod: without any other configuration."""
    return not target.context and config.is_empty and not target.kubeconfig and _in_pod()


def namespace_of(target: Target) -> str:
    """Return the namespace that kubectl would use without -n. Raises TargetError for a file that is not usable."""
    config = load(target)
    if service_account_used(target, config):
        return service_account_namespace()
    if not target.context and not config.current:
        return "default"
    with usable(config.source):
        return _context(config, target.context or config.current).text("namespace") or "default"


def service_account_namespace() -> str:
    """Return the namespace of this pod."""
    if namespace := os.environ.get("POD_NAMESPACE"):
        return namespace
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def digest_of(content: bytes) -> bytes:
    """Return the digest by which a change of a file is detected."""
    return hashlib.sha256(content).digest()


def _in_pod() -> bool:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    return bool(host and port) and (SERVICE_ACCOUNT / "token").is_file()


def _pod_problem() -> str:
    """Return the reason why a pod has no service account to use, empty outside a pod."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return ""
    return f"; in this pod, {SERVICE_ACCOUNT / 'token'} does not exist; see automountServiceAccountToken"


def _paths(target: Target) -> tuple[list[Path], str]:
    """Return the files to read, and their names for messages. Only KUBECONFIG is a list."""
    listed = os.environ.get("KUBECONFIG")
    if target.kubeconfig or not listed:
        source = target.kubeconfig or _HOME_CONFIG
        return [_expanded(source)], source
    return [_expanded(item) for item in dict.fromkeys(listed.split(os.pathsep)) if item], listed


def _expanded(path: str) -> Path:
    # Path.expanduser raises an error for the home directory of an unknown user.
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111


def _merge(merged: Kubeconfig, path: Path, content: Any) -> None:
    """Add what no earlier file has. Raises ValueError or TypeError."""
    if content is None:
        return
    if not isinstance(content, dict):
        raise TypeError("it is not a mapping with clusters, users and contexts")
    merged.current = merged.current or Entry("the kubeconfig", content, path.parent).text("current-context")
    for kind, key in _FIELDS.items():
        known: dict[str, Entry] = getattr(merged, kind)
        setattr(merged, kind, _entries(content.get(kind), kind, key, path.parent) | known)


def _entries(items: Any, kind: str, key: str, folder: Path) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    if not isinstance(items or [], list):
        raise TypeError(f"{kind} is not a list")
    for item in items or []:
        if not isinstance(item, dict) or not isinstance(item.get(key) or {}, dict):
            raise TypeError(f"each item of {kind} needs name and {key}")
        name = Entry(kind, item, folder).text("name")
        if name in found:
            raise ValueError(f"{kind} has {name} twice")
        found[name] = Entry(name, item.get(key) or {}, folder)
    return found


@lru_cache(maxsize=16)
def _parse(content: bytes) -> Any:
    """Parse a file once. Its values must not be changed."""
    return yaml.load(content, _LOADER)  # noqa: S506 - a safe loader
