"""Runs scripts on a fleet in simulated time: people, agents, faults, restarts and failovers around real operators.

Each step of a script is a tuple of a verb and plain values, run by the method `do_<verb>`. A step that is impossible
does nothing, so any part of a script is a script. This module has faults, watches, restarts and failovers.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.model.actions import Actions
from tests.model.simulation import CONFIRM_SECONDS, Operator
from tests.support.simulated_fleet import now, refusing, unreachable

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.model import Kind
from hotpool.errors import RetryableError

Json = dict[str, Any]

_BACKOFF = 35.0
"""Seconds after a fault in which a write may still wait for its retry."""
_RESYNC = 305.0
_REDIS = 12.0
"""Seconds within which Redis is repaired."""

FAULTS: dict[str, Callable[..., BaseException | None]] = {
    "unreachable": unreachable,
    "writes": lambda verb, _kind, _name: None if verb in {"list", "get"} else TimeoutError(),
    "slices": refusing(500, kind=Kind.SLICE),
    "conflicts": refusing(409, kind=Kind.SLICE, verb="patch"),
    "nodes": refusing(503, kind=Kind.NODE, verb="status"),
    "statuses": refusing(503, kind=Kind.POOL, verb="status"),
    "pools": refusing(403, kind=Kind.POOL, verb="create"),
}


class Scenario(Actions):
    """A whole simulation: `begin`, then `run_step` for each step, then `end`."""

    async def begin(self) -> None:
        """Start an operator that leads an empty fleet."""
        await self._start()

    # Faults.

    async def do_fault(self, name: str) -> None:
        """Let requests of the operator fail."""
        if self.leader:
            self.api.fault = FAULTS[name]

    async def do_heal(self) -> None:
        """End the failures of requests."""
        if self.api.fault:
            self.api.fault = None
            self.unsettle(_BACKOFF)

    async def do_slow(self, seconds: float) -> None:
        """Let each write take so many seconds."""
        self.api.delay = self.redis.delay = seconds

    async def do_flush(self) -> None:
        """Delete everything in Redis."""
        self.redis.flush()
        self.redis_unsettled_until = max(self.redis_unsettled_until, now() + _REDIS)

    async def do_redis(self, state: str) -> None:
        """Let Redis go `down` or come `up`."""
        if state == "up" and self.redis.fault:
            self.redis_unsettled_until = max(self.redis_unsettled_until, now() + _REDIS)
        self.redis.fault = None if state == "up" else RetryableError("away")

    async def do_drop_events(self) -> None:
        """Lose watch events from now on."""
        if self.leader:
            self.events_lost = True

    async def do_relist(self) -> None:
        """Restart the watch: it delivers all existing objects, but no deletions (C7)."""
        if not self.events_lost:
            return
        self.events_lost = False
        for kind, bodies in self.api.objects.items():
            for body in list(bodies.values()):
                self._feed(kind, None, body)
        self.unsettle(_RESYNC if self.unseen_deletions else 1.0)
        self.unseen_deletions = False

    def _feed(self, kind: Kind, event: str | None, body: Json) -> None:
        if self.events_lost:
            self.unseen_deletions |= event == "DELETED"
            return
        self.expected.advance(now())
        for operator in self._operators():
            operator.manager.on_object(kind, event, body)
        if kind is Kind.NODE and self._operators():
            self.expected.on_node(event, body, now())
        if kind is Kind.KUBE_NODE and self._operators():
            self.expected.on_kube_node(event, body, now())
        self.observe()

    # Operators.

    async def do_stop(self) -> None:
        """Stop the leader. All faults end before the next one starts."""
        if not self.leader:
            return
        await self._end_faults()
        old, self.leader = self.leader, None
        old.leading = False
        await self._end(old)
        self.expected.confirmed_until = self.stopped_at = self.probe_received_at
        self.expected.stale = not self.standby
        if self.standby:
            self.expected.on_takeover(self.standby.started_at)

    async def do_start(self) -> None:
        """Let a warm standby take over, or start a new operator on the stored objects."""
        if self.leader:
            return
        if not self.standby:
            await self._start()
            return
        await self._clear_gap()
        new, self.standby = self.standby, None
        for task in new.standby_tasks:
            task.cancel()
        new.standby_tasks.clear()
        self.expected.counted_from = now() if self._was_stale() else self.expected.counted_from
        self.expected.watch_restored()
        await self._lead(new)
        self.expected.advance(now())
        await asyncio.sleep(CONFIRM_SECONDS)

    async def do_distrust(self) -> None:
        """Start each operator with endpoints.trustAgents=false from now on, the present one included."""
        self.expected.trust_agents = False
        for operator in self._operators():
            await operator.manager.apply_policy(self.policy)

    async def do_standby(self) -> None:
        """Start a warm standby, unless a node is Offline and was shut down: its condition says only the former."""
        disturbed = self.lease_watch != "open" or self.events_lost or self.api.fault
        hidden = any(entry.off and entry.state == "Offline" for entry in self.expected.nodes.values())
        if self.leader and not self.standby and not disturbed and not hidden:
            self.standby = standby = self._new_operator()
            await standby.manager.open_gate()
            standby.standby_tasks.append(asyncio.create_task(standby.manager.stand_by()))

    async def _end_faults(self) -> None:
        self.api.fault = None
        await self.do_slow(0.0)
        if self.events_lost:
            await self.do_relist()
        await self.do_open()

    def _new_operator(self) -> Operator:
        self.term += 1
        operator = Operator(self, self.term)
        operator.manager.on_heartbeats(
            [self._heartbeat(name) for name in self.leases if f"{LEASE_PREFIX}{name}" in self.api.leases]
        )
        operator.manager.on_watch_restored()
        self.api.feed = self._feed
        return operator

    async def _start(self) -> None:
        new = self._new_operator()
        await new.manager.open_gate()
        listed = {
            name: content for name, (content, _) in self.leases.items() if f"{LEASE_PREFIX}{name}" in self.api.leases
        }
        self.expected.leases = listed
        self.expected.start(now())
        await self._lead(new)

    async def _lead(self, operator: Operator) -> None:
        self.leader = operator
        self.api.feed = self._feed
        self.redis_unsettled_until = max(self.redis_unsettled_until, now() + _REDIS)
        self.expected.last_change = now()
        self.checks.generators.on_restart()
        self.checks.last_fault = now()
        self.observe()
        operator.tasks.append(asyncio.create_task(operator.lead()))

    async def _end(self, operator: Operator) -> None:
        await operator.stop()

    async def end(self) -> None:
        """End all faults, and compare everything a last time."""
        await self._end_faults()
        await self.do_start()
        await self.do_redis("up")
        self.unsettle(_BACKOFF)
        await self.do_pass(10)
        for operator in self._operators():
            await self._end(operator)
