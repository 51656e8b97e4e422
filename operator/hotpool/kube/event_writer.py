"""The sink of Events (events.k8s.io/v1): the only writer of them in the operator.

It asks `leader` before each and never retries. Errors: Retryable (no answer), Rejected, NotLeader; the caller drops the
Event then. It must not decide what is told.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final

from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.errors import NotLeaderError, RejectedError, RetryableError
from hotpool.events.aggregator import Event
from hotpool.kube.rest import CONNECTION_ERRORS, error_text, path, request

REPORTING_CONTROLLER: Final = "hotpool.dev/operator"
POST_TIMEOUT: Final = 2.0
"""Seconds; shorter than what `leader` keeps in reserve."""
_EVENTS: Final = "events.k8s.io/v1"
_INSTANCE_MAX: Final = 128
_NAME_MAX: Final = 230
"""Of the object in the Event's own name, which is at most 253 long."""


class EventWriter:
    """Posts the Events of one namespace. `leader` says whether our time as leader still runs."""

    def __init__(self, api: ApiClient, namespace: str, *, leader: Callable[[], bool], instance: str) -> None:
        self._api = api
        self._namespace = namespace
        self._leader = leader
        self._instance = instance

    async def post(self, event: Event) -> None:
        """One request, bounded in time."""
        if not self._leader():
            raise NotLeaderError("our time as leader is over, nothing was sent")
        body = to_wire(event, self._namespace, self._instance)
        try:
            where = path(_EVENTS, "namespaces", self._namespace, "events")
            query = {"fieldManager": meta.OPERATOR_MANAGER}
            await request(self._api, "POST", where, query=query, body=body, seconds=POST_TIMEOUT)
        except ApiException as error:
            raise RejectedError(error_text(error)) from None
        except CONNECTION_ERRORS as error:
            raise RetryableError(error_text(error)) from None


def to_wire(event: Event, namespace: str, instance: str) -> Any:
    """The Event as the API server takes it; what was folded is a series."""
    about = event.regarding
    body: dict[str, Any] = {
        "apiVersion": _EVENTS,
        "kind": "Event",
        "metadata": {"name": f"{about.name[:_NAME_MAX].rstrip('-.')}.{secrets.token_hex(8)}", "namespace": namespace},
        "eventTime": event.first,
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance[:_INSTANCE_MAX],
        "action": event.action,
        "reason": event.reason,
        "type": "Warning" if event.warning else "Normal",
        "note": event.note,
        "regarding": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "namespace": namespace,
            "uid": about.uid,
        },
    }
    if event.count > 1:
        body["series"] = {"count": event.count, "lastObservedTime": event.last}
    return body
