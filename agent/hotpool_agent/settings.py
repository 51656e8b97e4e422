"""Settings of a running agent: intervals, time-outs and addresses, from HOTPOOL_AGENT_* and the command line.

A leaf that must not do I/O.
"""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hotpool.api.names import LABEL_PATTERN, MAX_INTERVAL_SECONDS
from hotpool.common.listen_address import ListenAddress
from hotpool_agent.ip_addresses import MAX_ADDRESSES, checked_advertised

_NAMESPACE: Final = re.compile(LABEL_PATTERN)
_NAMESPACE_MAX: Final = 63


def _split(given: Any) -> Any:
    """Return the words between commas, each once. Values other than str are returned as they are, to be validated."""
    if not isinstance(given, str):
        return given
    return tuple(dict.fromkeys(word for part in given.split(",") if (word := part.strip())))


def _check_namespaces(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if len(name) > _NAMESPACE_MAX or not _NAMESPACE.fullmatch(name):
            raise ValueError(f"{name!r} is not a namespace name; give a list of names, separated by commas")
    return names


def _check_advertised(texts: tuple[str, ...]) -> tuple[str, ...]:
    addresses = tuple(dict.fromkeys(map(checked_advertised, texts)))
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"at most {MAX_ADDRESSES} addresses")
    return addresses


class Settings(BaseSettings):
    """Settings of the agent; all times in seconds."""

    model_config = SettingsConfigDict(env_prefix="HOTPOOL_AGENT_", frozen=True)

    interval: Annotated[int, Field(ge=1, le=MAX_INTERVAL_SECONDS)] = 15
    """H, the heartbeat interval."""
    debounce: Annotated[float, Field(ge=0, le=60)] = 2.0
    """D, the longest delay of a gain, in which further gains join its report (requirement B6)."""
    refresh_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Time without a change after which the whole report is written again (requirement B8)."""
    request_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Time-out of one request to the API server (requirement B7)."""
    announce_seconds: Annotated[float, Field(ge=0)] = 5.0
    """Longest wait of a stop for the acceptance of its withdrawal, as while disconnected (requirement A9)."""
    stop_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Time from TERM to KILL (requirement A9)."""
    restart_seconds: Annotated[float, Field(gt=0)] = 1.0
    """First pause before a crashed service runs again; doubled up to `restart_limit_seconds` (requirement A7)."""
    restart_limit_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Also the time that a service must run before its failures are reset."""
    flap_half_life_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time in which the penalty of a flapping service halves (requirement A7)."""
    backoff_seconds: Annotated[float, Field(gt=0)] = 1.0
    """First pause before a reconnection; doubled up to H (requirement B9)."""
    listen: ListenAddress = "127.0.0.1:9810"
    """Address of /healthz, /readyz and /metrics; port 0: any free port; `*`: every address of both families."""
    pod_namespaces: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_namespaces)
    ] = ()
    """Namespaces whose pods on this node are services, separated by commas. Empty: none."""
    advertise: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_advertised)] = ()
    """IP addresses at which clients reach the node, separated by commas, in place of those of the catalogue."""
    host_network: bool = False
    """True: the agent is a pod in the network of its Node."""
    host_ips: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """status.hostIPs of the agent's pod, used with `host_network`."""
    pod_ips: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """status.podIPs of the agent's pod, used without `host_network`."""
