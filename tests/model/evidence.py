"""A fake API server that checks each write of a slice: no node is removed without evidence.

Violations are collected, not raised, because the check runs inside the operator's own call.
"""

from typing import TYPE_CHECKING, Any

from tests.model.membership import needs_endpoints
from tests.support.service_fleet import ServiceApi
from tests.support.simulated_fleet import now

from hotpool.api.meta import POOL_LABEL
from hotpool.core.model import Kind

if TYPE_CHECKING:
    from tests.model.expected_state import ExpectedState

Json = dict[str, Any]

_POD_READ_SECONDS = 1.0
"""Time after a report within which the pods that it names are read."""


class EvidenceCheckingApi(ServiceApi):
    """The API server of a simulation."""

    expected: "ExpectedState"

    def __init__(self) -> None:
        super().__init__()
        self.violations: list[str] = []

    def _commit(self, verb: str, kind: Kind, name: str, body: Json) -> Json:
        pool, before = self._before_write(kind, name, body)
        stored = super()._commit(verb, kind, name, body)
        self._note_change(verb, kind)
        self._after_write(pool, before)
        return stored

    async def page(self, kind: Kind, _more: object, /) -> Json:
        """Return all objects of a kind. The operator receives v1 Nodes by it, too, while watch events are lost."""
        found = await super().page(kind, _more)
        if kind is Kind.KUBE_NODE:
            for body in found["items"]:
                if self.expected.kube.get(body["metadata"]["name"]) != body:
                    self.expected.on_kube_node(None, body, now())
        return found

    async def remove(self, kind: Kind, name: str, version: str) -> Json:
        """Delete an object, and check the removal."""
        pool, before = self._before_write(kind, name)
        gone = await super().remove(kind, name, version)
        self._note_change("delete", kind)
        self._after_write(pool, before)
        return gone

    def _note_change(self, verb: str, kind: Kind) -> None:
        """Record a change: a pool created or deleted by a generator, or an expired node deleted."""
        if kind in {Kind.POOL, Kind.NODE} and verb in {"create", "delete"}:
            self.expected.last_change = now()

    def _before_write(self, kind: Kind, name: str, body: Json | None = None) -> tuple[str | None, set[str]]:
        self.expected.advance(now())
        stored = self.objects[Kind.SLICE].get(name, body) if kind is Kind.SLICE else None
        pool: str | None = (stored["metadata"].get("labels") or {}).get(POOL_LABEL) if stored else None
        return pool, set(self.members(pool)) if pool else set()

    def _after_write(self, pool: str | None, before: set[str]) -> None:
        if pool is None:
            return
        after = set(self.members(pool))
        self.expected.joined_pools |= {(pool, node) for node in after - before}
        for node in sorted(before - after):
            if why := self._violation(pool, node):
                self.violations.append(f"{now():.2f}: {node} removed from {pool}, but {why}")

    def _violation(self, pool: str, node: str) -> str | None:
        """Return the reason for which a removal is wrong; None if it is right."""
        body, entry = self.objects[Kind.POOL].get(pool), self.expected.nodes.get(node)
        if body is None or entry is None or node not in self.objects[Kind.NODE]:
            return None
        if (pool, node) in self.expected.removable_otherwise or not self.expected.may_be_member(body, node):
            return None
        if needs_endpoints(body) and now() - entry.last_heartbeat < _POD_READ_SECONDS and _names_pods(self, node):
            return None  # a pod that is not read yet does not vouch for an address that another node claims, too
        if entry.state != "Offline":
            silent = now() - max(entry.last_heartbeat, self.expected.counted_from)
            return (
                None
                if (pool, node) in self.expected.removable_by_silence
                else f"it is {entry.state}, silent for {silent:.1f} s"
            )
        return None if (pool, node) in self.expected.removable_by_silence else "the brake holds"


def _names_pods(api: ServiceApi, node: str) -> bool:
    report = (api.objects[Kind.NODE][node].get("status") or {}).get("report") or {}
    return any("pod" in item for item in report.get("services") or ())
