"""A fleet in simulated time that obeys a script: people, agents, faults, restarts and failovers around real operators.

Each step of a script is a tuple of a verb and plain values; the method `do_<verb>` obeys it and does nothing where it
makes no sense, so that any part of a script is a script. Here are faults, watches, restarts and failovers.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.model.actions import People
from tests.model.simulation import PROOF, Operator
from tests.support.simulated_fleet import away, now, refusing

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.model import Kind
from hotpool.errors import RetryableError

Json = dict[str, Any]

_BACKOFF = 35.0
"""Seconds after trouble in which a write may still wait to be tried again."""
_AUDIT = 305.0
_REDIS = 12.0
"""Seconds in which Redis is put right."""

FAULTS: dict[str, Callable[..., BaseException | None]] = {
    "away": away,
    "writes": lambda verb, _kind, _name: None if verb in {"list", "get"} else TimeoutError(),
    "slices": refusing(500, kind=Kind.SLICE),
    "conflicts": refusing(409, kind=Kind.SLICE, verb="patch"),
    "nodes": refusing(503, kind=Kind.NODE, verb="status"),
    "statuses": refusing(503, kind=Kind.POOL, verb="status"),
    "pools": refusing(403, kind=Kind.POOL, verb="create"),
}


class World(People):
    """All of it: `begin`, then `obey` each step, then `end`."""

    async def begin(self) -> None:
        """An operator leads an empty fleet."""
        await self._start()

    # Faults.

    async def do_fault(self, what: str) -> None:
        """Requests of the operator fail."""
        if self.leader:
            self.api.fault = FAULTS[what]

    async def do_heal(self) -> None:
        """They do no more."""
        if self.api.fault:
            self.api.fault = None
            self.unsettle(_BACKOFF)

    async def do_slow(self, seconds: float) -> None:
        """Each write takes so long."""
        self.api.delay = self.redis.delay = seconds

    async def do_flush(self) -> None:
        """FLUSHALL."""
        self.redis.flush()
        self.redis_unsettled_until = max(self.redis_unsettled_until, now() + _REDIS)

    async def do_redis(self, what: str) -> None:
        """Redis goes and comes."""
        if what == "up" and self.redis.fault:
            self.redis_unsettled_until = max(self.redis_unsettled_until, now() + _REDIS)
        self.redis.fault = None if what == "up" else RetryableError("away")

    async def do_blind(self) -> None:
        """Watch events are lost from here."""
        if self.leader:
            self.blind = True

    async def do_seeing(self) -> None:
        """The watch starts over: it tells of what is there, not of what was deleted (C7)."""
        if not self.blind:
            return
        self.blind = False
        for kind, bodies in self.api.objects.items():
            for body in list(bodies.values()):
                self._feed(kind, None, body)
        self.unsettle(_AUDIT if self.unseen_deletions else 1.0)
        self.unseen_deletions = False

    def _feed(self, kind: Kind, event: str | None, body: Json) -> None:
        if self.blind:
            self.unseen_deletions |= event == "DELETED"
            return
        self.truth.advance(now())
        for operator in self._operators():
            operator.reconciler.ingest.on_object(kind, event, body)
        if kind is Kind.NODE and self._operators():
            self.truth.node(event, body, now())
        self.look()

    # Operators.

    async def do_stop(self) -> None:
        """The leader dies, or is cut off; what fails is well again when the next one begins."""
        if not self.leader:
            return
        await self._heal_all()
        old, self.leader = self.leader, None
        old.leading = False
        await self._end(old)
        self.truth.proven = self.stopped = self.echoed
        self.truth.deaf = not self.standby
        if self.standby:
            self.truth.taken_over(self.standby.begun)

    async def do_start(self) -> None:
        """A warm standby takes over, or a new operator begins with what is stored."""
        if self.leader:
            return
        if not self.standby:
            await self._start()
            return
        await self._clear_gap()
        new, self.standby = self.standby, None
        for task in new.warm:
            task.cancel()
        new.warm.clear()
        self.truth.fresh = now() if self._was_deaf() else self.truth.fresh
        self.truth.hears()
        await self._lead(new)
        self.truth.advance(now())
        await asyncio.sleep(PROOF)

    async def do_standby(self) -> None:
        """A second operator gets warm."""
        if not self.standby and self.leader and self.stream == "open" and not self.blind and not self.api.fault:
            self.standby = standby = self._made()
            await standby.reconciler.open_gate()
            standby.warm.append(asyncio.create_task(standby.reconciler.stand_by()))

    async def _heal_all(self) -> None:
        self.api.fault = None
        await self.do_slow(0.0)
        if self.blind:
            await self.do_seeing()
        await self.do_open()

    def _made(self) -> Operator:
        self.term += 1
        operator = Operator(self, self.term)
        operator.reconciler.ingest.on_heartbeats(
            [self._beat(name) for name in self.leases if f"{LEASE_PREFIX}{name}" in self.api.leases]
        )
        operator.reconciler.ingest.on_watch_restored()
        self.api.feed = self._feed
        return operator

    async def _start(self) -> None:
        new = self._made()
        await new.reconciler.open_gate()
        listed = {
            name: content for name, (content, _) in self.leases.items() if f"{LEASE_PREFIX}{name}" in self.api.leases
        }
        self.truth.leases = listed
        self.truth.start(now())
        await self._lead(new)

    async def _lead(self, operator: Operator) -> None:
        self.leader = operator
        self.api.feed = self._feed
        self.redis_unsettled_until = max(self.redis_unsettled_until, now() + _REDIS)
        self.truth.touched = now()
        self.checks.generators.restarted()
        self.checks.trouble = now()
        self.look()
        operator.tasks.append(asyncio.create_task(operator.lead()))

    async def _end(self, operator: Operator) -> None:
        await operator.stop()

    async def end(self) -> None:
        """Everything is healed, settles, and is compared a last time."""
        await self._heal_all()
        await self.do_start()
        await self.do_redis("up")
        self.unsettle(_BACKOFF)
        await self.do_pass(10)
        for operator in self._operators():
            await self._end(operator)
