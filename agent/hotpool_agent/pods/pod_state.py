"""State of a service from the status of its pod (requirements A3, A5): pure.

Only a pod that is Ready in Kubernetes is Running. The JSON is untrusted; nothing raises.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hotpool.api.capability import ServiceState
from hotpool.api.meta import timestamp
from hotpool_agent.json_access import Json, count, items, mapping, text

_PENDING_REASONS: Final = {None, "ContainerCreating", "PodInitializing"}
"""Waiting reasons of a container that is starting; any other reason is a failure, such as CrashLoopBackOff."""
_MOST_RESTARTS: Final = 2**31 - 1
_MOST_GRACE: Final = 10**6


@dataclass(frozen=True, slots=True)
class Readiness:
    """State of a pod; `since` in the format of the Kubernetes API."""

    state: ServiceState
    since: str | None
    restarts: int
    error: str | None = None


def readiness(pod: Json) -> Readiness:
    """Return the pod's state, as Kubernetes reports it."""
    metadata, status = mapping(pod.get("metadata")), mapping(pod.get("status"))
    containers = items(status.get("containerStatuses"))
    condition = _condition(status)
    changed = parse_timestamp(condition.get("lastTransitionTime")) or parse_timestamp(metadata.get("creationTimestamp"))
    restarts = min(sum(count(container.get("restartCount")) for container in containers), _MOST_RESTARTS)
    if metadata.get("deletionTimestamp") is not None:
        return Readiness("Stopping", _timestamp(_deleted_at(metadata)), restarts)
    state, error = _state(status, condition, containers)
    return Readiness(state, _timestamp(changed), restarts, error)


def parse_timestamp(value: Any) -> datetime | None:
    """Return the timestamp in UTC, or None if it is invalid or has no time zone."""
    try:
        time = datetime.fromisoformat(text(value) or "")
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _state(status: Json, condition: Json, containers: list[Json]) -> tuple[ServiceState, str | None]:
    phase = text(status.get("phase"))
    if phase == "Succeeded":
        return "Stopped", None
    if phase in {"Failed", "Unknown"}:
        parts = (f"pod {phase}", text(status.get("reason")), text(status.get("message")))
        return "Failed", ": ".join(part for part in parts if part)
    if phase == "Running" and condition.get("status") == "True":
        return "Running", None
    if error := next(_container_errors(status, containers), None):
        return "Failed", error
    if _was_ready(condition, containers):
        return "Failed", f"no longer ready: {text(condition.get('message')) or 'no reason given'}"
    return "Starting", next(filter(None, map(_last_termination, containers)), None)


def _condition(status: Json) -> Json:
    return next((item for item in items(status.get("conditions")) if item.get("type") == "Ready"), {})


def _container_errors(status: Json, containers: list[Json]) -> Iterator[str]:
    """Return the errors of containers. They leave out Kubernetes' back-off message, which changes with each pause."""
    for container in (*items(status.get("initContainerStatuses")), *containers):
        reason = text(mapping(mapping(container.get("state")).get("waiting")).get("reason"))
        if reason not in _PENDING_REASONS:
            last = _last_termination(container)
            yield (
                f"{last}; {reason}" if last else f"{_container_name(container)}: {reason}{_waiting_message(container)}"
            )
    for container in items(status.get("initContainerStatuses")):
        ended = mapping(mapping(container.get("state")).get("terminated"))
        if ended and ended.get("exitCode") != 0:
            yield _termination(container, ended)
    for container in containers:
        if ended := mapping(mapping(container.get("state")).get("terminated")):
            yield _termination(container, ended)


def _was_ready(condition: Json, containers: list[Json]) -> bool:
    """Return True if the pod became unready after its containers started, False if it was never ready.

    All of these times are from the kubelet's clock, in whole seconds.
    """
    started = [
        parse_timestamp(mapping(mapping(item.get("state")).get("running")).get("startedAt")) for item in containers
    ]
    changed = parse_timestamp(condition.get("lastTransitionTime"))
    if changed is None or condition.get("status") != "False" or not started:
        return False
    return all(time is not None and changed > time for time in started)


def _last_termination(container: Json) -> str | None:
    """Return exit code and reason of the container's last termination, or None without one."""
    ended = mapping(mapping(container.get("lastState")).get("terminated"))
    return _termination(container, ended) if ended else None


def _termination(container: Json, ended: Json) -> str:
    code, reason = ended.get("exitCode"), text(ended.get("reason"))
    how = f"exit code {code}" if isinstance(code, int) else "ended"
    return f"{_container_name(container)}: {how}{f' ({reason})' if reason else ''}"


def _waiting_message(container: Json) -> str:
    message = text(mapping(mapping(container.get("state")).get("waiting")).get("message"))
    return f": {message}" if message else ""


def _container_name(container: Json) -> str:
    return f"container {text(container.get('name')) or '?'}"


def _deleted_at(metadata: Json) -> datetime | None:
    """Return the time of the deletion: deletionTimestamp, by which the pod must have ended, minus its grace period."""
    until = parse_timestamp(metadata.get("deletionTimestamp"))
    grace = min(count(metadata.get("deletionGracePeriodSeconds")), _MOST_GRACE)
    try:
        return until - timedelta(seconds=grace) if until else None
    except OverflowError:
        return None


def _timestamp(time: datetime | None) -> str | None:
    return timestamp(time) if time else None
