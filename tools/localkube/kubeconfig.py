"""Add a cluster's entries to kubeconfig files that hold other clusters, and remove them.

Does what kind does to $KUBECONFIG, with client-go's lock. Must not touch an entry that is not the cluster's.
"""

import base64
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from localkube.errors import KindError
from localkube.paths import write_private
from localkube.process import wait_until

Config = dict[str, Any]
_LISTS = ("clusters", "users", "contexts")
_LOCK_PATIENCE = 5.0


def key_of(name: str) -> str:
    """The name of a cluster's context, cluster and user entries."""
    return f"kind-{name}"


def single(key: str, server: str, pki: Path, user: str) -> Config:
    """A whole kubeconfig with one cluster, one user and one context."""
    cluster = {"server": server, "certificate-authority-data": _encoded(pki / "ca.crt")}
    client = {
        "client-certificate-data": _encoded(pki / f"{user}.crt"),
        "client-key-data": _encoded(pki / f"{user}.key"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": key, "cluster": cluster}],
        "users": [{"name": key, "user": client}],
        "contexts": [{"name": key, "context": {"cluster": key, "user": key}}],
        "current-context": key,
        "preferences": {},
    }


def merged(existing: Config, new: Config) -> Config:
    """The existing file with the new entries in it, and the new context current."""
    result = {**new, **existing, "current-context": new["current-context"]}
    for name in _LISTS:
        mine = {entry["name"] for entry in new[name]}
        result[name] = [entry for entry in existing.get(name) or [] if entry.get("name") not in mine] + new[name]
    return result


def without(existing: Config, key: str) -> Config:
    """The existing file without the entries of one cluster."""
    result = dict(existing)
    for name in _LISTS:
        if name in existing:
            result[name] = [entry for entry in existing[name] or [] if entry.get("name") != key]
    if existing.get("current-context") == key:
        result["current-context"] = ""
    return result


def add(new: Config, explicit: str | None) -> None:
    """Merge into the file that kubectl would write to."""
    _edit(_to_write(_paths(explicit, os.environ)), lambda existing: merged(existing, new))


def remove(key: str, explicit: str | None) -> None:
    """Take a cluster's entries out of every file that kubectl would read."""
    for path in _paths(explicit, os.environ):
        if path.exists():
            _edit(path, lambda existing: without(existing, key))


def dump(config: Config) -> str:
    """The file's text."""
    return yaml.safe_dump(config, sort_keys=False)


def _edit(path: Path, change: Callable[[Config], Config]) -> None:
    path = path.resolve()  # A link stays a link.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _client_go_lock(path):
        existing = _load(path)
        changed = change(existing)
        if changed != existing:
            mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
            write_private(path, dump(changed).encode(), mode)


def _load(path: Path) -> Config:
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise KindError(f"{path} is not a kubeconfig: {error}") from error
    if not isinstance(config, dict):
        raise KindError(f"{path} is not a kubeconfig: it does not hold a map")
    return config


@contextmanager
def _client_go_lock(path: Path) -> Iterator[None]:
    """The lock file that kubectl and kind use too."""
    lock = path.with_name(f"{path.name}.lock")
    if not wait_until(lambda: _created(lock), _LOCK_PATIENCE):
        raise KindError(f"{path} is locked by another program; if none runs, remove {lock}")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _created(lock: Path) -> bool:
    try:
        lock.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        return False
    return True


def _paths(explicit: str | None, environment: Mapping[str, str]) -> list[Path]:
    """The rules of kubectl: the flag, else the list in $KUBECONFIG, else the file in the home folder."""
    if explicit:
        return [Path(explicit)]
    listed = [part for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [Path(part) for part in dict.fromkeys(listed)] or [Path.home() / ".kube" / "config"]


def _to_write(paths: list[Path]) -> Path:
    return next((path for path in paths if path.exists()), paths[-1])


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
