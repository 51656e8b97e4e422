"""Settings of a running agent: intervals, time-outs and addresses, from HOTPOOL_AGENT_* and the command line.

A leaf that must not import other modules of the agent or do I/O.
"""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hotpool.api.names import LABEL_PATTERN, MAX_INTERVAL_SECONDS
from hotpool.common.listen_address import ListenAddress

_NAMESPACE: Final = re.compile(LABEL_PATTERN)
_NAMESPACE_MAX: Final = 63


def _split(given: Any) -> Any:
    """The words between commas, each once; what is no text is left to the type."""
    if not isinstance(given, str):
        return given
    return tuple(dict.fromkeys(word for part in given.split(",") if (word := part.strip())))


def _namespaces(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if len(name) > _NAMESPACE_MAX or not _NAMESPACE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a namespace; give some, with commas between them")
    return names


class Settings(BaseSettings):
    """Everything that can be set; all times in seconds."""

    model_config = SettingsConfigDict(env_prefix="HOTPOOL_AGENT_", frozen=True)

    interval: Annotated[int, Field(ge=1, le=MAX_INTERVAL_SECONDS)] = 15
    """H, the heartbeat interval."""
    debounce: Annotated[float, Field(ge=0, le=60)] = 2.0
    """D, how long a gain may wait for others (requirement B6)."""
    refresh_seconds: Annotated[float, Field(gt=0)] = 300.0
    """The whole report is written again after this time without a change (requirement B8)."""
    request_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Time-out of one request to the API server (requirement B7)."""
    announce_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a stop waits for its report to be accepted while disconnected (requirement A9)."""
    stop_seconds: Annotated[float, Field(gt=0)] = 10.0
    """From TERM to KILL (requirement A9)."""
    restart_seconds: Annotated[float, Field(gt=0)] = 1.0
    """First pause before a crashed service runs again; doubled up to `restart_limit_seconds` (requirement A7)."""
    restart_limit_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Also how long a service must have run for its failures to be forgotten."""
    flap_half_life_seconds: Annotated[float, Field(gt=0)] = 60.0
    """In this time the penalty of a flapping service halves (requirement A7)."""
    backoff_seconds: Annotated[float, Field(gt=0)] = 1.0
    """First pause before a reconnection; doubled up to H (requirement B9)."""
    listen: ListenAddress = "127.0.0.1:9810"
    """Address of /healthz, /readyz and /metrics; port 0: any free one; `*`: every address of both families."""
    pod_namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_namespaces)] = ()
    """Where pods of this node are services; with commas between them. Empty: nowhere."""
