"""Settings of the operator: environment variables HOTPOOL_…, overridden by the command line.

Only `app` and the command may read them; all other modules get values as arguments.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hotpool.common.cidrs import Network, parse_cidrs, parse_names
from hotpool.common.listen_address import ListenAddress

Cidrs = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(parse_cidrs)]
"""CIDRs, separated by commas."""
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_names)]
"""Names, separated by commas."""


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
    kube_nodes: bool = False
    """True to follow v1 Nodes: a cordon is a drain, labels count, and a Node owns its NodeCapability."""
    endpoints_allowed_cidrs: Cidrs = ()
    """Ranges whose addresses are vouched for, whoever claims them."""
    endpoints_denied_cidrs: Cidrs = ()
    """Ranges whose addresses are never used."""
    endpoints_service_cidrs: Cidrs = ()
    """Ranges of the cluster's Services, whose addresses are never used; for a cluster without readable ServiceCIDRs."""
    endpoints_trust_agents: bool = True
    """False: picks answer with vouched addresses only."""
    pod_namespaces: Names = ()
    """Namespaces in which the operator may read the pods that agents name as services."""
    allow_loopback_endpoints: bool = False
    """True: picks answer with loopback addresses, too. For trials on one machine."""
    listen: ListenAddress = "127.0.0.1:8080"
    """Address of /healthz, /readyz and /metrics. `*`: all IPv4 and IPv6 addresses."""
    pool_metrics: bool = True
    """False: no metrics by name of pools and generators."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = "info"
    """Log level."""
