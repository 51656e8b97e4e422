"""Writer of Events, the only one in the operator.

They are created through core/v1: events.k8s.io/v1 refuses a lastTimestamp, by which kubectl sorts them.
Checks the leadership before each write and never retries. Raises RetryableError (no response), RejectedError or
NotLeaderError; the Event is then lost. Must not decide which Events are posted.
"""

import time
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
_EVENTS: Final = "v1"
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
    """Return the wire form of the Event. A folded Event has a series.

    The API server stores lastTimestamp in whole seconds. The name grows with the time, so that a list, which is in the
    order of names, has the Events of one object and second in their order.
    """
    regarding = event.regarding
    body: dict[str, Any] = {
        "apiVersion": _EVENTS,
        "kind": "Event",
        "metadata": {
            "name": f"{regarding.name[:_NAME_MAX].rstrip('-.')}.{time.time_ns():016x}",
            "namespace": namespace,
        },
        "eventTime": event.first,
        "firstTimestamp": event.first,
        "lastTimestamp": event.last,
        "count": event.count,
        "reportingComponent": REPORTING_CONTROLLER,
        "reportingInstance": instance[:_INSTANCE_MAX],
        "action": event.action,
        "reason": event.reason,
        "type": "Warning" if event.warning else "Normal",
        "message": event.note,
        "involvedObject": {
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
