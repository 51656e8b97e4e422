"""Conflict with another live agent that reports under this node's name (requirement B12). I/O through `node_resources`.

It is published as a single core/v1 Event, rewritten under the same name with a higher count. In events.k8s.io/v1 all
but the series is immutable: a restarted agent, or one in conflict with a third agent, could not rewrite it.
"""

import asyncio
from typing import Final

import structlog

from hotpool.api.meta import API_VERSION, NAME_TAKEN_SUFFIX, timestamp
from hotpool_agent.json_access import mapping
from hotpool_agent.kube.errors import KubeError
from hotpool_agent.kube.http_client import FIELD_MANAGER
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.reporting.ownership import StoredReport, parse_stored
from hotpool_agent.reporting.report_builder import AgentInfo

_LOG: Final = structlog.get_logger(__name__)
_READS: Final = 12
"""Number of times that the other agent's activity is read in one Lease duration."""
_MIN_INTERVAL_SECONDS: Final = 600.0
"""Minimum time between two Events."""


class NodeNameConflictError(KubeError):
    """Another live agent owns this node's name."""


class NameConflict:
    """The only writer of the node's Event."""

    def __init__(self, resources: NodeResources, info: AgentInfo) -> None:
        self._resources = resources
        self._info = info
        self._count = 0
        self._first = ""
        self._not_before: float | None = None

    async def wait_silent(self, stored: StoredReport) -> None:
        """Watch the other agent for one of its Lease durations.

        Raises NodeNameConflictError if it is alive, after an Event; the name is then to be claimed again after H.
        """
        duration = 3 * stored.interval
        before = await self._activity()
        for _ in range(_READS):
            await asyncio.sleep(duration / _READS)
            if await self._activity() != before:
                message = (
                    f"node name {self._resources.node!r} belongs to another live agent (instance {stored.instance}); "
                    "this agent does not report. Start one of the two with another --node"
                )
                await self._publish(message)
                raise NodeNameConflictError(message, self._info.interval)

    async def _activity(self) -> tuple[object, ...]:
        """Return values that a live agent changes."""
        stored = parse_stored(await self._resources.read_capability())
        renew_time = await self._resources.lease_renew_time()
        return (stored.epoch, stored.sequence, renew_time) if stored else (0, 0, renew_time)

    async def _publish(self, message: str) -> None:
        """Write the Event, unless it was attempted in the last 10 minutes. Errors are logged: it is optional."""
        now = asyncio.get_running_loop().time()
        if self._not_before is not None and now < self._not_before:
            return
        self._not_before = now + _MIN_INTERVAL_SECONDS
        self._count += 1
        self._first = self._first or _event_time()
        try:
            uid = mapping((await self._resources.read_capability() or {}).get("metadata")).get("uid")
            await self._resources.write_event(f"{self._resources.node}.{NAME_TAKEN_SUFFIX}", self._event(message, uid))
        except KubeError as error:
            _LOG.warning("Event about the node name conflict not written", error=str(error))

    def _event(self, message: str, uid: object) -> dict[str, object]:
        node, namespace = self._resources.node, self._resources.client.namespace
        regarding = {"apiVersion": API_VERSION, "kind": "NodeCapability", "name": node, "namespace": namespace}
        platform = self._info.platform
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{node}.{NAME_TAKEN_SUFFIX}", "namespace": namespace},
            "involvedObject": regarding | ({"uid": uid} if uid else {}),
            "type": "Warning",
            "reason": "NodeNameTaken",
            "message": message,
            "count": self._count,
            "firstTimestamp": self._first,
            "lastTimestamp": _event_time(),
            "source": {"component": FIELD_MANAGER} | ({"host": platform.hostname} if platform.hostname else {}),
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._info.instance,
        }


def _event_time() -> str:
    """Return the present time in whole seconds, as a core/v1 Event requires."""
    return f"{timestamp()[:19]}Z"
