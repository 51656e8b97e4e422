"""Address of the API server and credentials, from a kubeconfig or a service account (requirement B9). I/O.

A `Login` keeps digests of its files: a rotated token, certificate or kubeconfig is detected by content, not by time.
The client's own loaders read a `tokenFile` once, judge a token's age by the wall clock, and do not strip the newline at
its end. Everything here may block, so it runs in a thread. Must not send requests.
"""

import asyncio
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.config.kube_config import (
    KubeConfigLoader,
    KubeConfigMerger,
    _cleanup_temp_files,
    _create_temp_file_with_content,
)
from yaml import YAMLError

from hotpool_agent.kube.exec_plugin import PluginError, run_plugin
from hotpool_agent.kube.proxy import proxy_for

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOME_CONFIG: Final = "~/.kube/config"
_TOKEN: Final = "BearerToken"  # noqa: S105 - the client's name of the header
_UNUSABLE: Final = (
    ConfigException,
    YAMLError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
)
"""Errors of the loaders for files that are missing, half written or of another shape."""

FileDigests = tuple[tuple[Path, bytes | None], ...]


class TargetError(Exception):
    """No usable cluster configuration; the message names the file."""


@dataclass(frozen=True, slots=True)
class Target:
    """Cluster to connect to. None: $KUBECONFIG, else in a pod its service account, else ~/.kube/config."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """A client with the present credentials; no connection is open yet."""

    client: ApiClient
    target: Target
    """The target with its context and namespace resolved."""
    files: FileDigests
    problem: str | None = None
    """Reason why the exec plugin returned no credential, so that the client has none."""

    def files_changed(self) -> bool:
        """Return True if the content of one of its files has changed."""
        return any(_digest(path) != digest for path, digest in self.files)


def uses_service_account(target: Target) -> bool:
    """Return True if the target means the service account of this pod."""
    kubeconfig = target.kubeconfig or target.context or os.environ.get("KUBECONFIG")
    return "KUBERNETES_SERVICE_HOST" in os.environ and not kubeconfig


class _Loader(KubeConfigLoader):
    """Loader that keeps the error of an exec plugin."""

    plugin_problem: str | None = None

    async def load_from_exec_plugin(self) -> bool | None:
        """Run the plugin and use its credential. Return None without one."""
        user: Any = self._user
        try:
            status = run_plugin(user["exec"])
        except PluginError as error:
            self.plugin_problem = str(error)
            return None
        if "token" in status:
            self.token = f"Bearer {status['token']}"
        elif {"clientCertificateData", "clientKeyData"} <= status.keys():
            self.cert_file = _create_temp_file_with_content(status["clientCertificateData"])
            self.key_file = _create_temp_file_with_content(status["clientKeyData"])
        else:
            self.plugin_problem = "exec plugin: its output has neither a token nor a certificate with its key"
            return None
        return True


def load_login(target: Target) -> Login:
    """Load a login from the present contents of the files. Raises TargetError."""
    path = target.kubeconfig or os.environ.get("KUBECONFIG")
    in_pod = uses_service_account(target)
    try:
        if in_pod:
            return _from_service_account(target)
        # $KUBECONFIG may be a list of files, so it cannot be a Path.
        return asyncio.run(_from_kubeconfig(target, path or _HOME_CONFIG))
    except _UNUSABLE as error:
        source = path or (f"in the pod, {SERVICE_ACCOUNT}" if in_pod else _HOME_CONFIG)
        raise TargetError(f"no usable cluster configuration ({source}): {_error_text(error)}") from error
    finally:
        # The loader leaves keys in temporary files, and would reuse them later. They are loaded by now, so delete them.
        _cleanup_temp_files()


def _from_service_account(target: Target) -> Login:
    token, authority, namespace = (SERVICE_ACCOUNT / name for name in ("token", "ca.crt", "namespace"))
    digests = _digests([token, authority])
    configuration = Configuration()
    InClusterConfigLoader(str(token), str(authority), try_refresh_token=False).load_and_set(configuration)
    resolved = Target(namespace=target.namespace or namespace.read_text(encoding="utf-8").strip())
    return Login(_client(configuration, token), resolved, digests)


async def _from_kubeconfig(target: Target, paths: str) -> Login:
    digests = _digests(_split(paths))
    if all(digest is None for _, digest in digests):
        raise FileNotFoundError(f"no such file, or not readable: {paths}")
    content = KubeConfigMerger(paths).config
    name = target.context or content["current-context"]
    context = content["contexts"].get_with_name(name)["context"]
    cluster = content["clusters"].get_with_name(context["cluster"])
    user = content["users"].get_with_name(context.safe_get("user"), safe=True)
    if user is None and str(cluster["cluster"]["server"]).startswith("https"):
        raise LookupError(f"context {name!r} has no user in the file")
    files = _files(cluster, "cluster", "certificate-authority")
    token_files = _files(user, "user", "tokenFile")
    files += _files(user, "user", "client-certificate", "client-key")
    digests += _digests(files + token_files)
    configuration = Configuration()
    loader_class: Any = _Loader  # the client's own has no types
    loader = loader_class(content, active_context=name, config_base_path=None)
    await loader.load_and_set(configuration)
    resolved = Target(target.kubeconfig, name, target.namespace or str(context.safe_get("namespace") or "default"))
    return Login(_client(configuration, *token_files), resolved, digests, loader.plugin_problem)


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


def _files(item: Any, kind: str, *keys: str) -> list[Path]:
    """Return the files that an entry of the kubeconfig names, relative to the kubeconfig's folder."""
    entry = item[kind] if item else None
    folder = Path(item.path).absolute().parent if item else Path()
    return [folder / entry[key] for key in keys if entry and entry.safe_get(key)]


def _split(paths: str) -> list[Path]:
    return [Path(item).expanduser() for item in paths.split(os.pathsep) if item]


def _digests(paths: Iterable[Path]) -> FileDigests:
    """Return digests of the files. Must be taken before the files are read, so that no change is missed."""
    return tuple((path, _digest(path)) for path in paths)


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


def _error_text(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
