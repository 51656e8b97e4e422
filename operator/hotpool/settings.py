"""Settings of the operator: environment variables HOTPOOL_…, overridden by the command line.

Read by `operator` and its command only; everybody else is given what it needs.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from hotpool.common.listen_address import ListenAddress


class Settings(BaseSettings):
    """What an operator needs to know. Durations in seconds."""

    model_config = SettingsConfigDict(env_prefix="HOTPOOL_")

    namespace: str = "default"
    """The fleet."""
    kubeconfig: str | None = None
    """Path; default: in the cluster its service account, else $KUBECONFIG or the home folder's."""
    context: str | None = None
    """Context within the kubeconfig."""
    redis_url: SecretStr | None = None
    """redis://, rediss:// or unix://; None: no projection. With sentinels its host is the name of their service."""
    redis_sentinels: str | None = None
    """host:port of each sentinel, with commas between."""
    redis_cluster: bool = False
    """Whether the URL is that of a node of a Redis Cluster."""
    redis_username: str | None = None
    """ACL user; comes before the URL's."""
    redis_password_file: str | None = None
    """File with the password; comes before the URL's. It and `redis_ca_file` are read again at each new connection."""
    redis_sentinel_password_file: str | None = None
    """File with the password of the sentinels."""
    redis_ca_file: str | None = None
    """File with the certificates (PEM) that may have signed the server's; default: the machine's."""
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] = "hotpool"
    """First part of every key's hash tag."""
    kube_nodes: bool = False
    """Whether v1 Nodes are followed: cordon is drain, their labels count, and they take their NodeCapability along."""
    listen: ListenAddress = "127.0.0.1:8080"
    """Address of /healthz, /readyz and /metrics; `*`: every one of both families."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = "info"
    """From which level on the operator logs."""
