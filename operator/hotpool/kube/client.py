"""Connections to Kubernetes: the cluster to use, its credentials, and the errors of both."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio import client, config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger
from yaml import YAMLError

_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
_SERVICE_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
KUBECONFIG_ERRORS = (config.ConfigException, YAMLError, LookupError, TypeError, ValueError, AttributeError, OSError)
"""Errors of the loaders for a kubeconfig that is missing, incomplete or malformed."""


class ApiUnavailable(Exception):  # noqa: N818 - a state of the cluster, not an error of the program.
    """Failure of a read: the API server is unreachable or refused it. The text says what and why.

    `status`: the HTTP status, None without a response. `request`: verb and resource, empty if nothing was sent.
    """

    def __init__(self, text: str, status: int | None = None, request: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.request = request


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """Cluster and namespace, as the command line or the environment names them."""

    namespace: str
    kubeconfig: str | None = None
    context: str | None = None

    @property
    def in_cluster(self) -> bool:
        """True if the Pod's own service account is used."""
        return not self.kubeconfig and not self.context and _SERVICE_HOST in os.environ


async def connect(target: ClusterTarget) -> client.ApiClient:
    """Return a client for the cluster. Raises one of KUBECONFIG_ERRORS."""
    settings = client.Configuration()
    if target.in_cluster:
        config.load_incluster_config(client_configuration=settings)
    else:
        await config.load_kube_config(
            config_file=target.kubeconfig,
            context=target.context,
            client_configuration=settings,
            persist_config=False,
        )
    settings.connection_pool_maxsize = 32
    return client.ApiClient(settings)


def kubeconfig_error(target: ClusterTarget, error: BaseException) -> ApiUnavailable:
    """Return the error to raise after `connect` failed with one of KUBECONFIG_ERRORS."""
    if target.in_cluster:
        return ApiUnavailable(f"no usable service account in this pod: {error}")
    location = target.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    # Path.expanduser raises an error for the home directory of an unknown user.
    if not any(Path(os.path.expanduser(path)).exists() for path in location.split(os.pathsep)):  # noqa: PTH111
        return ApiUnavailable(f"no kubeconfig: {location} does not exist; see --kubeconfig")
    return ApiUnavailable(f"no usable kubeconfig ({location}): {error}")


def namespace_of(kubeconfig: str | None, context: str | None) -> str | None:
    """Return the namespace that kubectl would use without -n, or None if no file names one."""
    if ClusterTarget("", kubeconfig, context).in_cluster:
        return _SERVICE_NAMESPACE.read_text().strip() if _SERVICE_NAMESPACE.is_file() else None
    with suppress(*KUBECONFIG_ERRORS):
        merged = KubeConfigMerger(kubeconfig or os.path.expanduser(KUBE_CONFIG_DEFAULT_LOCATION)).config  # noqa: PTH111 - may be several paths.
        chosen = merged["contexts"].get_with_name(context or merged["current-context"])
        return chosen["context"].safe_get("namespace") or None
    return None
