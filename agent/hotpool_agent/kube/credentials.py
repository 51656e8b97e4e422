"""Where the API server is and how to log in: from a kubeconfig or a service account (requirement B9). I/O.

A `Login` remembers what its files held, so that a rotated token, certificate or kubeconfig is noticed by contents, on
no clock. The client's own loaders read a `tokenFile` once, and judge a token's age by the wall clock; and they do not
strip the newline at a token's end. Must not send requests.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger, _cleanup_temp_files
from yaml import YAMLError

from hotpool_agent.kube.proxy import proxy_for

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOME_CONFIG: Final = "~/.kube/config"
_TOKEN: Final = "BearerToken"  # noqa: S105 - the name that the client gives to the header
_UNUSABLE: Final = (ConfigException, YAMLError, OSError, LookupError, TypeError, ValueError, AttributeError)
"""What the loaders raise for files that are missing, half written or of another shape."""

FileContents = tuple[tuple[Path, bytes | None], ...]


class TargetError(Exception):
    """No usable cluster configuration; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster; None: $KUBECONFIG, else in a pod its service account, else ~/.kube/config."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """A client with the credentials of one moment; no connection is open yet."""

    client: ApiClient
    target: Target
    """With the context and namespace that were chosen."""
    files: FileContents

    def rotated(self) -> bool:
        """Whether a file that it was made from holds something else now."""
        return any(_mark(path) != mark for path, mark in self.files)


def in_pod(target: Target) -> bool:
    """Whether the target stands for the service account of the pod that this is."""
    given = target.kubeconfig or target.context or os.environ.get("KUBECONFIG")
    return "KUBERNETES_SERVICE_HOST" in os.environ and not given


async def read(target: Target) -> Login:
    """A login with the present contents of the files. Raises TargetError."""
    path = target.kubeconfig or os.environ.get("KUBECONFIG")
    inside = in_pod(target)
    try:
        if inside:
            return _inside(target)
        # $KUBECONFIG may be a list of files, so it is no Path.
        return await _outside(target, path or _HOME_CONFIG)
    except _UNUSABLE as error:
        place = path or (f"in the pod, {SERVICE_ACCOUNT}" if inside else _HOME_CONFIG)
        raise TargetError(f"no usable cluster configuration ({place}): {_error_text(error)}") from error
    finally:
        # The loader leaves keys in temporary files and later trusts that they are still there. They are loaded by now.
        _cleanup_temp_files()


def _inside(target: Target) -> Login:
    token, authority, namespace = (SERVICE_ACCOUNT / name for name in ("token", "ca.crt", "namespace"))
    marks = _marks([token, authority])
    configuration = Configuration()
    InClusterConfigLoader(str(token), str(authority), try_refresh_token=False).load_and_set(configuration)
    chosen = Target(namespace=target.namespace or namespace.read_text(encoding="utf-8").strip())
    return Login(_client(configuration, token), chosen, marks)


async def _outside(target: Target, place: str) -> Login:
    marks = _marks(_paths(place))
    if all(mark is None for _, mark in marks):
        raise FileNotFoundError(f"no such file, or not readable: {place}")
    content = KubeConfigMerger(place).config
    name = target.context or content["current-context"]
    context = content["contexts"].get_with_name(name)["context"]
    cluster = content["clusters"].get_with_name(context["cluster"])
    user = content["users"].get_with_name(context.safe_get("user"), safe=True)
    if user is None and str(cluster["cluster"]["server"]).startswith("https"):
        raise LookupError(f"context {name!r} has no user that the file knows")
    files = _files(cluster, "cluster", "certificate-authority")
    token_files = _files(user, "user", "tokenFile")
    files += _files(user, "user", "client-certificate", "client-key")
    marks += _marks(files + token_files)
    configuration = Configuration()
    await KubeConfigLoader(content, active_context=name, config_base_path=None).load_and_set(configuration)
    chosen = Target(target.kubeconfig, name, target.namespace or str(context.safe_get("namespace") or "default"))
    return Login(_client(configuration, *token_files), chosen, marks)


def _client(configuration: Configuration, *token_files: Path) -> ApiClient:
    for path in token_files:
        token = path.read_text(encoding="utf-8").strip()
        if not token:
            raise ValueError(f"token file {path} is empty")
        configuration.api_key[_TOKEN] = f"Bearer {token}"
    configuration.api_key = {name: value.strip() for name, value in configuration.api_key.items()}
    configuration.retries = None
    configuration.proxy = proxy_for(configuration.host, configuration.proxy, os.environ)
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)


def _files(named: Any, kind: str, *keys: str) -> list[Path]:
    """The files that an entry of the kubeconfig names, relative to the kubeconfig's folder."""
    entry = named[kind] if named else None
    folder = Path(named.path).absolute().parent if named else Path()
    return [folder / entry[key] for key in keys if entry and entry.safe_get(key)]


def _paths(place: str) -> list[Path]:
    return [Path(item).expanduser() for item in place.split(os.pathsep) if item]


def _marks(paths: Iterable[Path]) -> FileContents:
    """What the files hold. To be taken before they are read, so that no change falls in between."""
    return tuple((path, _mark(path)) for path in paths)


def _mark(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


def _error_text(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
