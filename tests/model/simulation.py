"""The base of simulations: time in cells, agents, Leases, their watch, and operators.

`tests.model.actions` and `tests.model.scenario` add the verbs of scripts. Time passes in cells of 5 s. Steps run at
the beginning of a cell, and at its end everything is compared with the oracle (`tests.model.checks`).
"""

import asyncio
import random
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from tests.model.checks import Checks
from tests.model.endpoints import ALLOWED_CIDRS, API_SERVER, DENIED_CIDRS, PODS, SERVICE_CIDRS
from tests.model.evidence import EvidenceCheckingApi
from tests.model.expected_state import ExpectedState
from tests.support.builders import lease, report
from tests.support.service_fleet import ServiceFleet
from tests.support.simulated_fleet import FakeRedis, now

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import Heartbeat
from hotpool.core.watch_health import PROBE_SECONDS, PROBE_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Json = dict[str, Any]
Step = tuple[Any, ...]

CELL = 5.0
CONFIRM_SECONDS = 1.1
"""Seconds within which an unconfirmed silence is evaluated again."""
_COMPARE_AT = 4.8
"""Seconds from the beginning of a cell to its comparison."""
_STALE_AFTER = PROBE_SECONDS + PROBE_TIMEOUT_SECONDS
_UNDECIDED_SECONDS = 1.5
_PROBE_PERIOD = 0.5
"""Seconds between probes of these operators: so short that silence needs no rounding."""


class Operator(ServiceFleet):
    """One operator of a simulation, whose Lease watch delivers probes."""

    def __init__(self, simulation: "Simulation", term: int) -> None:
        super().__init__(simulation.api, simulation.redis, kube_nodes=True)
        self.cache.endpoints.policy = simulation.policy
        self.term = term
        self.simulation = simulation
        self.started_at = now()
        self.standby_tasks: list[asyncio.Task[Any]] = []

    async def stop(self) -> None:
        """End the process. Other operators keep their watches."""
        feed = self.api.feed
        tasks = (*self.tasks, *self.standby_tasks, self.pod_reading)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.api.feed = feed

    async def renew_probe_lease(self) -> None:
        """Renew the probe Lease until cancelled; the simulation delivers it to all operators."""
        while True:
            renewed = f"{now()}"
            self.manager.ingest.on_probe_sent(renewed)
            self.simulation.deliver_probe(renewed)
            await asyncio.sleep(_PROBE_PERIOD)


class Agent:
    """One node's agent, as visible at the API server."""

    def __init__(self, name: str, interval: int) -> None:
        self.name, self.interval = name, interval
        self.epoch, self.sequence, self.renewals = 1, 0, 0
        self.services: list[Json] = []
        self.addresses: list[str] = []
        self.refused: list[str] = []
        self.hardware: Json | None = None
        self.leaving = False
        self.draining = False
        self.alive = True

    def report(self) -> Json:
        """Return the next report."""
        self.sequence += 1
        content = report(
            *self.services,
            epoch=self.epoch,
            sequence=self.sequence,
            leaving=self.leaving,
            draining=self.draining,
            intervalSeconds=self.interval,
            addresses=[{"ip": ip, "source": "Route"} for ip in self.addresses],
            hardware=self.hardware,
        )
        for item in content["capabilities"]:
            if item["type"] in self.refused:
                item |= {"ready": False, "reason": "DeviceNotAccepted", "services": []}
        return content


class Simulation:
    """Time, Leases and operators, and the verbs of the Lease watch."""

    def __init__(self) -> None:
        self.redis = FakeRedis()
        self.api: EvidenceCheckingApi = EvidenceCheckingApi()
        self.expected = ExpectedState(self.api)
        self.api.expected = self.expected
        self.api.pods = PODS
        self.addresses: dict[str, list[str]] = {}
        """Node → addresses in its agent's next report."""
        self.hardware: dict[str, Json | None] = {}
        """Node → hardware in its agent's next report."""
        self.agents: dict[str, Agent] = {}
        self.leases: dict[str, tuple[str, int]] = {}
        """Node → renewTime and epoch at the API server."""
        self.foreign_leases: set[str] = set()
        """Nodes whose Lease was renewed with another epoch than the agent's."""
        self.leader: Operator | None = None
        self.standby: Operator | None = None
        self.term = 1
        self.cells = 0
        self.lease_watch = "open"
        """State of the Lease watch: open, frozen (no events, no error) or disconnected (with an error)."""
        self.probe_received_at = 0.0
        """The time at which the probe Lease was delivered last."""
        self.stopped_at = 0.0
        """The time at which the Lease watch or the leader stopped."""
        self.events_lost = False
        self.unseen_deletions = False
        self.unsettled_until = 0.0
        self.redis_unsettled_until = 0.0
        self.services_unsettled_until = 0.0
        self.checks = Checks(self)

    @property
    def policy(self) -> AddressPolicy:
        """Policy of the operators for addresses."""
        return AddressPolicy(
            allowed_cidrs=tuple(map(ip_network, ALLOWED_CIDRS)),
            denied_cidrs=tuple(map(ip_network, DENIED_CIDRS)),
            service_cidrs=tuple(map(ip_network, SERVICE_CIDRS)),
            api_servers=frozenset({API_SERVER}),
            trust_agents=self.expected.trust_agents,
        )

    # Time.

    async def run_step(self, step: Step) -> None:
        """Run one step of a script."""
        verb, *values = step
        act: Callable[..., Awaitable[None]] = getattr(self, f"do_{verb}")
        self.expected.advance(now())
        await act(*values)
        await asyncio.sleep(0.01)
        self.expected.advance(now())
        self.observe()
        if verb != "pass":
            self.expected.last_change = now()

    async def do_pass(self, cells: int) -> None:
        """Let so many cells pass, the present one included."""
        for _ in range(cells):
            await self._cell()

    async def _cell(self) -> None:
        began = self.cells * CELL + 1000.0
        self.checks.cell_begins()
        for at, name in sorted(self._due_renewals()):
            await asyncio.sleep(max(0.0, began + at - now()))
            if self.agents[name].alive:
                self._renew(name)
        await asyncio.sleep(began + _COMPARE_AT - now())
        self.expected.advance(now())
        self.checks.cell_ends()
        await asyncio.sleep(began + CELL - now())
        self.cells += 1

    def _due_renewals(self) -> list[tuple[float, str]]:
        """Return seconds into this cell and name of each agent that renews its Lease in it."""
        found: list[tuple[float, str]] = []
        for name, agent in self.agents.items():
            chance = random.Random(f"{self.cells} {name}")  # noqa: S311 - a fixed script, no secret
            turn = self.cells + sum(map(ord, name))
            if agent.alive and turn % (agent.interval // int(CELL)) == 0:
                found.append((0.4 + 0.6 * chance.random(), name))
        return found

    def observe(self) -> None:
        """Record everything that is allowed at this moment."""
        self.expected.observe()
        self.checks.generators.observe()

    def unsettle(self, seconds: float) -> None:
        """Compare nothing for a while."""
        self.unsettled_until = max(self.unsettled_until, now() + seconds)
        self.redis_unsettled_until = max(self.redis_unsettled_until, now() + seconds)

    # Leases and their watch.

    def _renew(self, name: str, epoch: int | None = None) -> None:
        agent = self.agents[name]
        agent.renewals += 1
        self.leases[name] = (f"{agent.renewals}", agent.epoch if epoch is None else epoch)
        self.api.leases[f"{LEASE_PREFIX}{name}"] = f"{agent.renewals}"
        if self.lease_watch == "open":
            self._deliver_lease(name)

    def _deliver_lease(self, name: str) -> None:
        content, epoch = self.leases[name]
        self.expected.advance(now())
        for operator in self._operators():
            operator.manager.on_heartbeats([self._heartbeat(name)])
        if self._operators():
            self.expected.on_lease(name, content, epoch, now())
            self.checks.generators.observe()

    def _heartbeat(self, name: str) -> Heartbeat:
        content, epoch = self.leases[name]
        interval = float(self.agents[name].interval)
        return lease(name, content, holder=f"i/{epoch}", interval=interval, version=content)

    def _operators(self) -> list[Operator]:
        return [one for one in (self.leader, self.standby) if one]

    def deliver_probe(self, renewed: str) -> None:
        """Deliver a renewed probe Lease to all operators while the watch is open."""
        if self.lease_watch == "open":
            self.probe_received_at = now()
            for operator in self._operators():
                operator.manager.on_probe_received(renewed)

    def _relist(self) -> None:
        """Deliver all Leases."""
        for name in list(self.leases):
            if f"{LEASE_PREFIX}{name}" in self.api.leases:
                self._deliver_lease(name)

    async def do_freeze(self) -> None:
        """Freeze the Lease watch without an error (C3)."""
        if self.lease_watch == "open" and self.leader:
            self.expected.confirmed_until = self.stopped_at = self.probe_received_at
            self.lease_watch = "frozen"

    async def do_disconnect(self) -> None:
        """Disconnect the Lease watch with an error (C3)."""
        if self.lease_watch == "open" and self.leader:
            while self.expected.is_near_transition(now(), _UNDECIDED_SECONDS):
                await self._cell()
            self.expected.stale, self.stopped_at = True, now()
            self.lease_watch = "disconnected"
            for operator in self._operators():
                operator.manager.on_watch_lost()

    async def do_open(self) -> None:
        """Reopen the Lease watch: it continues, or starts with a new list."""
        if self.lease_watch != "open":
            await self._clear_gap()
            self._reopen(fresh=self.lease_watch == "disconnected" or self._was_stale())
            self.unsettle(1.0)
            await asyncio.sleep(CONFIRM_SECONDS)

    async def _clear_gap(self) -> None:
        """Let cells pass while the gap is so near to the limit that an operator may or may not count it as stale."""
        while abs(now() - self.stopped_at - _STALE_AFTER) < _UNDECIDED_SECONDS:
            await self._cell()

    def _was_stale(self) -> bool:
        return now() - self.stopped_at > _STALE_AFTER

    def _reopen(self, *, fresh: bool) -> None:
        before, self.lease_watch = self.lease_watch, "open"
        self._relist()
        if before == "disconnected":
            for operator in self._operators():
                operator.manager.on_watch_restored()
        if self.leader:
            renewed = f"{now()}"
            self.leader.manager.ingest.on_probe_sent(renewed)
            self.deliver_probe(renewed)
        self.expected.counted_from = now() if fresh else self.expected.counted_from
        self.expected.watch_restored()
        self.expected.last_change = now()
        self.expected.advance(now())
