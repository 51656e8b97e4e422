"""The ground of a world: time in cells, agents, Leases and their stream, and the operators that listen.

Below `tests.model.actions` and `tests.model.scenario`, which add the verbs of scripts. Time goes in cells of 5 s;
what happens in a cell happens at its beginning, and at its end everything is compared with the oracle
(`tests.model.checks`).
"""

import asyncio
import random
from typing import TYPE_CHECKING, Any

from tests.model.checks import Checks
from tests.model.evidence import WatchedApi
from tests.model.expected_state import Truth
from tests.support.builders import lease, report
from tests.support.simulated_fleet import FakeRedis, Fleet, now

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.liveness import PROBE_SECONDS, PROBE_TIMEOUT_SECONDS
from hotpool.core.model import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Json = dict[str, Any]
Step = tuple[Any, ...]

CELL = 5.0
PROOF = 1.1
"""Seconds in which a silence that was not proven is looked at again."""
_LOOK = 4.8
"""Seconds of a cell after which things are settled."""
_DEAF = PROBE_SECONDS + PROBE_TIMEOUT_SECONDS
_NEAR = 1.5
_SEND = 0.5
"""The canary of these operators is quicker, so that silence needs no rounding."""


class Operator(Fleet):
    """One operator of the world; its canary comes back as the world's Lease stream says."""

    def __init__(self, world: "Ground", term: int) -> None:
        super().__init__(world.api, world.redis)
        self.term = term
        self.world = world
        self.begun = now()
        self.warm: list[asyncio.Task[Any]] = []

    async def stop(self) -> None:
        """The process ends; who else watches goes on watching."""
        feed = self.api.feed
        for task in (*self.tasks, *self.warm):
            task.cancel()
        await asyncio.gather(*self.tasks, *self.warm, return_exceptions=True)
        await self.reconciler.finish()
        self.api.feed = feed

    async def canary(self) -> None:
        """Renew the canary for all who listen, while the stream brings anything."""
        while True:
            renewed = f"{now()}"
            self.reconciler.ingest.on_probe_sent(renewed)
            self.world.echo(renewed)
            await asyncio.sleep(_SEND)


class Agent:
    """One node's agent as far as the wire shows it."""

    def __init__(self, name: str, interval: int) -> None:
        self.name, self.interval = name, interval
        self.epoch, self.sequence, self.renewals = 1, 0, 0
        self.services: list[Json] = []
        self.refused: list[str] = []
        self.leaving = False
        self.beats = True

    def report(self) -> Json:
        """The whole report."""
        self.sequence += 1
        whole = report(
            *self.services,
            epoch=self.epoch,
            sequence=self.sequence,
            leaving=self.leaving,
            intervalSeconds=self.interval,
        )
        for item in whole["capabilities"]:
            if item["type"] in self.refused:
                item |= {"ready": False, "reason": "DeviceNotAccepted", "services": []}
        return whole


class Ground:
    """Everything that goes on by itself, and the verbs of the Lease stream."""

    def __init__(self) -> None:
        self.redis = FakeRedis()
        self.api: WatchedApi = WatchedApi()
        self.truth = Truth(self.api)
        self.api.truth = self.truth
        self.agents: dict[str, Agent] = {}
        self.leases: dict[str, tuple[str, int]] = {}
        """Node → renewTime and epoch, as the API server has them."""
        self.strayed: set[str] = set()
        """Nodes with a Lease that somebody else renewed."""
        self.leader: Operator | None = None
        self.standby: Operator | None = None
        self.term = 1
        self.cells = 0
        self.stream = "open"
        """open, held (nothing comes, nobody says so), deaf (broken, and said so)."""
        self.echoed = 0.0
        """When the canary came back last."""
        self.stopped = 0.0
        """When the stream or the leader came to a stop."""
        self.blind = False
        self.unseen_deletions = False
        self.unsettled_until = 0.0
        self.redis_unsettled_until = 0.0
        self.checks = Checks(self)

    # The course of time.

    async def obey(self, step: Step) -> None:
        """One step."""
        verb, *values = step
        act: Callable[..., Awaitable[None]] = getattr(self, f"do_{verb}")
        self.truth.advance(now())
        await act(*values)
        await asyncio.sleep(0.01)
        self.truth.advance(now())
        self.look()
        if verb != "pass":
            self.truth.touched = now()

    async def do_pass(self, cells: int) -> None:
        """The present cell ends, and more after it."""
        for _ in range(cells):
            await self._cell()

    async def _cell(self) -> None:
        began = self.cells * CELL + 1000.0
        self.checks.cell_begins()
        for at, name in sorted(self._beats()):
            await asyncio.sleep(max(0.0, began + at - now()))
            if self.agents[name].beats:
                self._renew(name)
        await asyncio.sleep(began + _LOOK - now())
        self.truth.advance(now())
        self.checks.cell_ends()
        await asyncio.sleep(began + CELL - now())
        self.cells += 1

    def _beats(self) -> list[tuple[float, str]]:
        """When in this cell which agent renews."""
        found: list[tuple[float, str]] = []
        for name, agent in self.agents.items():
            chance = random.Random(f"{self.cells} {name}")  # noqa: S311 - a fixed course, no secret
            turn = self.cells + sum(map(ord, name))
            if agent.beats and turn % (agent.interval // int(CELL)) == 0:
                found.append((0.4 + 0.6 * chance.random(), name))
        return found

    def look(self) -> None:
        """Note what the present moment allows."""
        self.truth.look()
        self.checks.generators.look()

    def unsettle(self, seconds: float) -> None:
        """Compare nothing for a while."""
        self.unsettled_until = max(self.unsettled_until, now() + seconds)
        self.redis_unsettled_until = max(self.redis_unsettled_until, now() + seconds)

    # Leases and their stream.

    def _renew(self, name: str, epoch: int | None = None) -> None:
        agent = self.agents[name]
        agent.renewals += 1
        self.leases[name] = (f"{agent.renewals}", agent.epoch if epoch is None else epoch)
        self.api.leases[f"{LEASE_PREFIX}{name}"] = f"{agent.renewals}"
        if self.stream == "open":
            self._tell_lease(name)

    def _tell_lease(self, name: str) -> None:
        content, epoch = self.leases[name]
        self.truth.advance(now())
        for operator in self._operators():
            operator.reconciler.ingest.on_heartbeats([self._beat(name)])
        if self._operators():
            self.truth.lease(name, content, epoch, now())
            self.checks.generators.look()

    def _beat(self, name: str) -> Heartbeat:
        content, epoch = self.leases[name]
        interval = float(self.agents[name].interval)
        return lease(name, content, holder=f"i/{epoch}", interval=interval, version=content)

    def _operators(self) -> list[Operator]:
        return [one for one in (self.leader, self.standby) if one]

    def echo(self, renewed: str) -> None:
        """A canary was renewed."""
        if self.stream == "open":
            self.echoed = now()
            for operator in self._operators():
                operator.reconciler.ingest.on_probe_received(renewed)

    def _relist(self) -> None:
        """The stream brings all Leases as they are."""
        for name in list(self.leases):
            if f"{LEASE_PREFIX}{name}" in self.api.leases:
                self._tell_lease(name)

    async def do_hold(self) -> None:
        """The Lease stream stands still without an error (C3)."""
        if self.stream == "open" and self.leader:
            self.truth.proven = self.stopped = self.echoed
            self.stream = "held"

    async def do_deaf(self) -> None:
        """The Lease stream breaks with an error (C3)."""
        if self.stream == "open" and self.leader:
            self.truth.deaf, self.stopped = True, now()
            self.stream = "deaf"
            for operator in self._operators():
                operator.reconciler.ingest.on_watch_lost()

    async def do_open(self) -> None:
        """It goes on: where it stopped, or with a new list."""
        if self.stream != "open":
            await self._clear_gap()
            self._reopen(fresh=self.stream == "deaf" or self._was_deaf())
            self.unsettle(1.0)
            await asyncio.sleep(PROOF)

    async def _clear_gap(self) -> None:
        """Nobody can say whether a silence of about fifteen seconds made an operator deaf."""
        while abs(now() - self.stopped - _DEAF) < _NEAR:
            await self._cell()

    def _was_deaf(self) -> bool:
        return now() - self.stopped > _DEAF

    def _reopen(self, *, fresh: bool) -> None:
        was, self.stream = self.stream, "open"
        self._relist()
        if was == "deaf":
            for operator in self._operators():
                operator.reconciler.ingest.on_watch_restored()
        if self.leader:
            renewed = f"{now()}"
            self.leader.reconciler.ingest.on_probe_sent(renewed)
            self.echo(renewed)
        self.truth.fresh = now() if fresh else self.truth.fresh
        self.truth.hears()
        self.truth.touched = now()
        self.truth.advance(now())
