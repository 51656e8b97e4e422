"""Says on the NodeCapability that the node's name is taken (requirement B12). I/O through `publish`.

One Event of core/v1, written again under one name with a higher count: events.k8s.io/v1 would freeze all but the
series, so that an agent that was restarted, or meets another rival, could no longer write it. Must not fail: an Event
is a courtesy.
"""

import asyncio
from typing import Final

import structlog

from hotpool.api.meta import API_VERSION, NAME_TAKEN_SUFFIX, timestamp
from hotpool_agent.kube.errors import KubeError
from hotpool_agent.kube.http_client import MANAGER
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.reporting.report_builder import AgentInfo

_LOG: Final = structlog.get_logger(__name__)
_SECONDS: Final = 600.0
"""No Event again for so long."""


class NameConflictEvent:
    """The only writer of the node's Event."""

    def __init__(self, cluster: NodeResources, facts: AgentInfo) -> None:
        self._cluster = cluster
        self._facts = facts
        self._count = 0
        self._first = ""
        self._not_before: float | None = None

    async def publish(self, words: str) -> None:
        """Write the Event, unless one was tried in the last 10 minutes."""
        now = asyncio.get_running_loop().time()
        if self._not_before is not None and now < self._not_before:
            return
        self._not_before = now + _SECONDS
        self._count += 1
        self._first = self._first or _stamp()
        try:
            capability = await self._cluster.read_capability()
            uid = ((capability or {}).get("metadata") or {}).get("uid")
            await self._cluster.write_event(f"{self._cluster.node}.{NAME_TAKEN_SUFFIX}", self._event(words, uid))
        except KubeError as error:
            _LOG.warning("no Event about the node's name", error=str(error))

    def _event(self, words: str, uid: str | None) -> dict[str, object]:
        node, namespace = self._cluster.node, self._cluster.namespace
        about = {"apiVersion": API_VERSION, "kind": "NodeCapability", "name": node, "namespace": namespace}
        platform = self._facts.platform
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{node}.{NAME_TAKEN_SUFFIX}", "namespace": namespace},
            "involvedObject": about | ({"uid": uid} if uid else {}),
            "type": "Warning",
            "reason": "NodeNameTaken",
            "message": words,
            "count": self._count,
            "firstTimestamp": self._first,
            "lastTimestamp": _stamp(),
            "source": {"component": MANAGER} | ({"host": platform.hostname} if platform.hostname else {}),
            "reportingComponent": MANAGER,
            "reportingInstance": self._facts.instance,
        }


def _stamp() -> str:
    """Now, in whole seconds, as an Event of core/v1 has it."""
    return f"{timestamp()[:19]}Z"
