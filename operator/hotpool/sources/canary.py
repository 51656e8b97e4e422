"""The canary (behaviour C3): a Lease of ours that must come back through the stream of the nodes' Leases.

Started by `operator` in the leader. It writes nothing else; what the echo means is decided by `core.liveness`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import CANARY_LEASE, LEASE_LABEL, OPERATOR_MANAGER
from hotpool.clients import AWAY, explain
from hotpool.clock import Clock
from hotpool.core.liveness import CANARY_SECONDS

log = structlog.get_logger(__name__)

_TIMEOUT = 3.0
_DURATION = 15


class Ear(Protocol):
    """Who waits for the echo."""

    def renewing(self, renewed: str) -> None:
        """The canary is about to be written with this renewTime."""


class Canary:
    """Renews the canary Lease for ever while `leader` says so."""

    def __init__(
        self, api: client.ApiClient, namespace: str, ear: Ear, *, leader: Callable[[], bool], clock: Clock
    ) -> None:
        self._leases = client.CoordinationV1Api(api)
        self._namespace = namespace
        self._ear = ear
        self._leader = leader
        self._clock = clock

    async def run(self) -> None:
        """Never returns; a renewal that fails is left out, so that silence stops counting."""
        while True:
            if self._leader():
                await self._renew()
            await asyncio.sleep(CANARY_SECONDS)

    async def _renew(self) -> None:
        renewed = self._clock.timestamp()
        self._ear.renewing(renewed)
        try:
            await self._leases.patch_namespaced_lease(
                CANARY_LEASE,
                self._namespace,
                body=_lease(renewed),
                field_manager=OPERATOR_MANAGER,
                force=True,
                _content_type="application/apply-patch+yaml",
                _request_timeout=_TIMEOUT,
            )
        except (ApiException, *AWAY) as error:
            log.warning("the canary Lease was not renewed", error=explain(error))


def _lease(renewed: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": CANARY_LEASE, "labels": {LEASE_LABEL: "true"}},
        "spec": {"holderIdentity": OPERATOR_MANAGER, "leaseDurationSeconds": _DURATION, "renewTime": renewed},
    }
