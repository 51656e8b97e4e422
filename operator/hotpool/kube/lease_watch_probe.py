"""Renewal of the probe Lease (requirement C3), which must return through the watch of the nodes' Leases.

Writes nothing else. `core.watch_health` decides on its return.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import LEASE_LABEL, OPERATOR_MANAGER, PROBE_LEASE
from hotpool.clock import Clock
from hotpool.core.watch_health import PROBE_SECONDS
from hotpool.kube.rest import APPLY, CONNECTION_ERRORS, error_text, path, request
from hotpool.leadership import Leadership

log = structlog.get_logger(__name__)

_LEASES = "coordination.k8s.io/v1"
_TIMEOUT = 3.0
_DURATION = 15


class LeaseWatchProbe:
    """Endless renewal of the probe Lease while this process leads."""

    def __init__(
        self, api: ApiClient, namespace: str, on_sent: Callable[[str], None], leadership: Leadership, clock: Clock
    ) -> None:
        """`on_sent` gets the renewTime with which the Lease is about to be written."""
        self._api = api
        self._path = path(_LEASES, "namespaces", namespace, "leases", PROBE_LEASE)
        self._on_sent = on_sent
        self._leadership = leadership
        self._clock = clock

    async def run(self) -> None:
        """Renew until cancelled. A failed renewal is not retried, so that silence stops counting."""
        while True:
            if self._leadership.may_write():
                await self._renew()
            await asyncio.sleep(PROBE_SECONDS)

    async def _renew(self) -> None:
        renewed = self._clock.timestamp()
        self._on_sent(renewed)
        try:
            query = {"fieldManager": OPERATOR_MANAGER, "force": "true"}
            body = _lease(renewed)
            await request(self._api, "PATCH", self._path, query=query, body=body, content_type=APPLY, seconds=_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            log.warning("probe Lease not renewed", error=error_text(error))


def _lease(renewed: str) -> dict[str, Any]:
    return {
        "apiVersion": _LEASES,
        "kind": "Lease",
        "metadata": {"name": PROBE_LEASE, "labels": {LEASE_LABEL: "true"}},
        "spec": {"holderIdentity": OPERATOR_MANAGER, "leaseDurationSeconds": _DURATION, "renewTime": renewed},
    }
