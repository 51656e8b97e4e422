"""Settings of the operator: environment variables HOTPOOL_…, overridden by the command line.

Only `app` and the command may read them; all other modules get values as arguments.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from hotpool.common.listen_address import ListenAddress


class Settings(BaseSettings):
    """Settings of one operator. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="HOTPOOL_")

    namespace: str = ""
    """Namespace of the fleet. Empty: that of the kubeconfig's context or of the pod, else `default`."""
    kubeconfig: str | None = None
    """Path. Default: $KUBECONFIG, else the home folder's kubeconfig, else in the cluster the service account."""
    context: str | None = None
    """Context within the kubeconfig."""
    redis_url: SecretStr | None = None
    """redis://, rediss:// or unix://. None: no projection. With sentinels, the host is the name of their service."""
    redis_sentinels: str | None = None
    """host:port of each sentinel, separated by commas."""
    redis_cluster: bool = False
    """True if the URL is that of a node of a Redis Cluster."""
    redis_username: str | None = None
    """ACL user; overrides the URL's."""
    redis_password_file: str | None = None
    """File with the password; overrides the URL's. Read again, as `redis_ca_file`, for each new connection."""
    redis_sentinel_password_file: str | None = None
    """File with the password of the sentinels."""
    redis_ca_file: str | None = None
    """File with trusted CA certificates (PEM). Default: the machine's."""
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] = "hotpool"
    """First part of every key's hash tag."""
    services: bool = False
    """True to publish pools with spec.service as Services."""
    endpoints_allowed_cidrs: str = ""
    """Ranges of addresses that EndpointSlices may contain, separated by commas."""
    kube_nodes: bool = False
    """True to follow v1 Nodes: a cordon is a drain, labels count, and a Node owns its NodeCapability."""
    listen: ListenAddress = "127.0.0.1:8080"
    """Address of /healthz, /readyz and /metrics. `*`: all IPv4 and IPv6 addresses."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = "info"
    """Log level."""
