"""Services that have failed, and commands that an agent cannot carry out. No pool depends on them. Pure."""

from typing import NamedTuple


class ServiceTrouble(NamedTuple):
    """Service that has failed, or has restarts after failures."""

    service: str
    type: str
    state: str
    since: str | None
    restarts: int
    error: str
    """The last failure, cut to 256 characters."""


class RefusedCommand(NamedTuple):
    """Command of `spec.services` that the node's agent cannot carry out."""

    service: str
    desired: str
    request_id: str
    why: str
