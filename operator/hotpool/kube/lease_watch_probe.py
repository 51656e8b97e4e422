"""The canary (requirement C3): a Lease of ours that must come back through the stream of the nodes' Leases.

It writes nothing else; what the echo means is decided by `core.liveness`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import LEASE_LABEL, OPERATOR_MANAGER, PROBE_LEASE
from hotpool.clock import Clock
from hotpool.core.liveness import PROBE_SECONDS
from hotpool.kube.rest import APPLY, CONNECTION_ERRORS, error_text, path, request

log = structlog.get_logger(__name__)

_LEASES = "coordination.k8s.io/v1"
_TIMEOUT = 3.0
_DURATION = 15


class ProbeObserver(Protocol):
    """Who waits for the echo."""

    def on_probe_sent(self, renewed: str) -> None:
        """The canary is about to be written with this renewTime."""


class LeaseWatchProbe:
    """Renews the canary Lease for ever while `leader` says so."""

    def __init__(
        self, api: ApiClient, namespace: str, ear: ProbeObserver, *, leader: Callable[[], bool], clock: Clock
    ) -> None:
        self._api = api
        self._path = path(_LEASES, "namespaces", namespace, "leases", PROBE_LEASE)
        self._observer = ear
        self._leader = leader
        self._clock = clock

    async def run(self) -> None:
        """Never returns; a renewal that fails is left out, so that silence stops counting."""
        while True:
            if self._leader():
                await self._renew()
            await asyncio.sleep(PROBE_SECONDS)

    async def _renew(self) -> None:
        renewed = self._clock.timestamp()
        self._observer.on_probe_sent(renewed)
        try:
            query = {"fieldManager": OPERATOR_MANAGER, "force": "true"}
            body = _lease(renewed)
            await request(self._api, "PATCH", self._path, query=query, body=body, content_type=APPLY, seconds=_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            log.warning("the canary Lease was not renewed", error=error_text(error))


def _lease(renewed: str) -> dict[str, Any]:
    return {
        "apiVersion": _LEASES,
        "kind": "Lease",
        "metadata": {"name": PROBE_LEASE, "labels": {LEASE_LABEL: "true"}},
        "spec": {"holderIdentity": OPERATOR_MANAGER, "leaseDurationSeconds": _DURATION, "renewTime": renewed},
    }
