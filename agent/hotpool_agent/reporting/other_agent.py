"""Observation of another agent that reports under this node's name (requirement B12). I/O through `node_resources`."""

import asyncio
from typing import Final

from hotpool_agent.kube.errors import KubeError
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.reporting.ownership import ActivityStamp, StoredReport, parse_stored

_READS: Final = 12
"""Number of times that the other agent's activity is read in one Lease duration."""


class NodeNameConflictError(KubeError):
    """Another live agent owns this node's name (requirement B12)."""


async def wait_silent(resources: NodeResources, stored: StoredReport) -> None:
    """Watch the other agent for one of its Lease durations. Raises NodeNameConflictError if it is alive."""
    duration = 3 * stored.interval
    before = await _activity(resources)
    for _ in range(_READS):
        await asyncio.sleep(duration / _READS)
        if await _activity(resources) != before:
            raise NodeNameConflictError(
                f"node name {resources.node!r} belongs to another live agent (instance {stored.instance}); "
                "this agent does not report. Start one of the two with another --node"
            )


async def _activity(resources: NodeResources) -> ActivityStamp:
    stored = parse_stored(await resources.read_capability())
    renew_time = await resources.lease_renew_time()
    return ActivityStamp(stored.epoch if stored else 0, stored.sequence if stored else 0, renew_time)
