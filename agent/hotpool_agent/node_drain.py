"""Drain of the node: what the cluster says of it, and the agent's own drain before its stop (requirements B10, C5).

Must not send anything.
"""

from collections.abc import Callable
from typing import Any

from hotpool_agent.json_access import items, mapping
from hotpool_agent.notifier import Notifier


class NodeDrain:
    """State of the drain."""

    def __init__(self, session: str, on_change: Callable[[], None]) -> None:
        """`session`: id of this agent process in its reports. `on_change`: called after each change of the state."""
        self.requested = False
        """True from the beginning of the agent's own drain, which its stop ends."""
        self.over = False
        """True when the agent's own drain has ended: no stop of a service waits any longer."""
        self._session = session
        self._on_change = on_change
        self._notifier = Notifier()
        self._in_cluster = False
        self._drained = False
        self._confirmed = False
        """True if the cluster's state is one with a report of this process that drains."""

    @property
    def active(self) -> bool:
        """True while the node drains, whoever requested it."""
        return self.requested or self._in_cluster

    @property
    def drained(self) -> bool:
        """True if the operator confirms that nothing on the draining node is in use."""
        return self._in_cluster and self._drained

    def request(self) -> None:
        """Begin the agent's own drain."""
        self.requested = True
        self._changed()

    def finish(self) -> None:
        """End the agent's own drain, whatever is in use."""
        self.over = True
        self._changed()

    def on_capability(self, capability: dict[str, Any] | None) -> None:
        """Note the node's object, as the watch delivered it; None: there is none."""
        status = mapping((capability or {}).get("status"))
        report = mapping(status.get("report"))
        conditions = {item.get("type"): item.get("status") for item in items(status.get("conditions"))}
        drain = mapping((capability or {}).get("spec")).get("drain") is True
        before = self._in_cluster, self._drained, self._confirmed
        self._in_cluster = drain or conditions.get("Draining") == "True" or report.get("draining") is True
        self._drained = conditions.get("Draining") == "True" and conditions.get("Drained") == "True"
        self._confirmed = report.get("session") == self._session and report.get("draining") is True
        if before != (self._in_cluster, self._drained, self._confirmed):
            self._changed()

    async def wait_drained(self) -> None:
        """Return when the operator confirms the drain that this process reports."""
        await self._notifier.wait_for(lambda: self.drained and self._confirmed)

    def _changed(self) -> None:
        self._notifier.notify()
        self._on_change()
