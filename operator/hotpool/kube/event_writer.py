"""Writer of Events (events.k8s.io/v1), the only one in the operator.

Checks the leadership before each write and never retries. Raises RetryableError (no response), RejectedError or
NotLeaderError; the Event is then lost. Must not decide which Events are posted.
"""

import secrets
from typing import Any, Final

from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.errors import NotLeaderError, RejectedError, RetryableError
from hotpool.events.aggregator import Event
from hotpool.kube.rest import CONNECTION_ERRORS, error_text, path, request
from hotpool.leadership import Leadership

REPORTING_CONTROLLER: Final = "hotpool.dev/operator"
POST_TIMEOUT: Final = 2.0
"""Time-out in seconds, shorter than the reserve of the leadership."""
_EVENTS: Final = "events.k8s.io/v1"
_INSTANCE_MAX: Final = 128
_NAME_MAX: Final = 230
"""Longest part of the object's name in the Event's name, which has at most 253 characters."""


class EventWriter:
    """Writer of the Events of one namespace."""

    def __init__(self, api: ApiClient, namespace: str, leadership: Leadership, *, instance: str) -> None:
        self._api = api
        self._namespace = namespace
        self._leadership = leadership
        self._instance = instance

    async def post(self, event: Event) -> None:
        """Create the Event with one request of at most POST_TIMEOUT."""
        if not self._leadership.may_write():
            raise NotLeaderError("no longer leader; nothing was sent")
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
    """Return the wire form of the Event. A folded Event has a series."""
    regarding = event.regarding
    body: dict[str, Any] = {
        "apiVersion": _EVENTS,
        "kind": "Event",
        "metadata": {
            "name": f"{regarding.name[:_NAME_MAX].rstrip('-.')}.{secrets.token_hex(8)}",
            "namespace": namespace,
        },
        "eventTime": event.first,
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance[:_INSTANCE_MAX],
        "action": event.action,
        "reason": event.reason,
        "type": "Warning" if event.warning else "Normal",
        "note": event.note,
        "regarding": {
            "apiVersion": regarding.api_version,
            "kind": regarding.kind,
            "name": regarding.name,
            "namespace": namespace,
            "uid": regarding.uid,
        },
    }
    if event.count > 1:
        body["series"] = {"count": event.count, "lastObservedTime": event.last}
    return body
