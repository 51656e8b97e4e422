"""A fleet in simulated time that obeys a script: people, agents, faults, restarts and failovers around real operators.

Each step of a script is a tuple of a verb and plain values; the method `do_<verb>` obeys it and does nothing where it
makes no sense, so that any part of a script is a script. Time goes in cells of five seconds; what happens in a cell
happens at its beginning, and at its end everything is compared with the oracle (`tests.oracle.checks`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.builders import lease, node_object, report
from tests.flow.fakes import FakeRedis, Fleet, away, now, refusing
from tests.oracle.checks import Checks
from tests.oracle.truth import Truth, is_paused
from tests.oracle.watcher import WatchedApi

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.liveness import CANARY_SECONDS, ECHO_SECONDS
from hotpool.core.model import Heartbeat, Kind
from hotpool.sinks.errors import Retryable

Json = dict[str, Any]
Step = tuple[Any, ...]

CELL = 5.0
_LOOK = 4.8
"""Seconds of a cell after which things are settled."""
_BACKOFF = 35.0
"""Seconds after trouble in which a write may still wait to be tried again."""
_AUDIT = 305.0
_REDIS = 12.0
"""Seconds in which Redis is put right."""
_DEAF = CANARY_SECONDS + ECHO_SECONDS
_NEAR = 1.5
_PROOF = 1.1
"""Seconds in which a silence that was not proven is looked at again."""
_SEND = 0.5
"""The canary of these operators is quicker, so that silence needs no rounding."""

FAULTS: dict[str, Callable[..., BaseException | None]] = {
    "away": away,
    "writes": lambda verb, _kind, _name: None if verb in {"list", "get"} else TimeoutError(),
    "slices": refusing(500, kind=Kind.SLICE),
    "conflicts": refusing(409, kind=Kind.SLICE, verb="patch"),
    "nodes": refusing(503, kind=Kind.NODE, verb="status"),
    "statuses": refusing(503, kind=Kind.POOL, verb="status"),
    "pools": refusing(403, kind=Kind.POOL, verb="create"),
}


class Operator(Fleet):
    """One operator of the world; its canary comes back as the world's Lease stream says."""

    def __init__(self, world: "World", term: int) -> None:
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
            self.reconciler.renewing(renewed)
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


class World:
    """Everything around the operators, and the verbs of scripts."""

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

    async def begin(self) -> None:
        """An operator leads an empty fleet."""
        await self._start()

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
            operator.reconciler.heartbeats([self._beat(name)])
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
                operator.reconciler.echo(renewed)

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
                operator.reconciler.deaf()

    async def do_open(self) -> None:
        """It goes on: where it stopped, or with a new list."""
        if self.stream != "open":
            await self._clear_gap()
            self._reopen(fresh=self.stream == "deaf" or self._was_deaf())
            self.unsettle(1.0)
            await asyncio.sleep(_PROOF)

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
                operator.reconciler.hearing()
        if self.leader:
            renewed = f"{now()}"
            self.leader.reconciler.renewing(renewed)
            self.echo(renewed)
        self.truth.fresh = now() if fresh else self.truth.fresh
        self.truth.hears()
        self.truth.touched = now()
        self.truth.advance(now())

    # Agents.

    def _publish(self, name: str) -> None:
        agent = self.agents[name]
        stored = self.api.objects[Kind.NODE].get(name)
        if stored is None:
            stored = node_object(name)
            del stored["spec"]
            stored["metadata"].pop("labels")
        status = stored.get("status") or {}
        self.api.put({**stored, "status": {**status, "report": agent.report()}})

    async def do_node(self, name: str, interval: int, services: list[Json]) -> None:
        """A node comes for the first time, or is registered again."""
        if name not in self.agents and not self.blind:
            self.agents[name] = Agent(name, interval)
            self.agents[name].services = services
            self._publish(name)
            self._renew(name)

    async def do_report(self, name: str, services: list[Json], refused: list[str]) -> None:
        """Hot-plug."""
        agent = self.agents.get(name)
        if agent and agent.beats and (name in self.api.objects[Kind.NODE] or not self.blind):
            agent.services, agent.refused = services, refused
            self._publish(name)

    async def do_epoch(self, name: str) -> None:
        """The agent's process is a new one."""
        agent = self.agents.get(name)
        if agent and not self.blind:
            agent.epoch, agent.sequence, agent.beats, agent.leaving = agent.epoch + 1, 0, True, False
            self._publish(name)

    async def do_leave(self, name: str) -> None:
        """A graceful shut-down."""
        agent = self.agents.get(name)
        if agent and agent.beats and not self.blind:
            agent.leaving = True
            self._publish(name)
            agent.beats = False

    async def do_silence(self, *names: str) -> None:
        """Machines die."""
        for name in names:
            if name in self.agents and not self.blind:
                self.agents[name].beats = False

    async def do_speak(self, *names: str) -> None:
        """They come back; the agent makes its object again where it is gone."""
        for name in names:
            agent = self.agents.get(name)
            if agent and not self.blind:
                agent.beats = True
                if name not in self.api.objects[Kind.NODE] or agent.leaving:
                    agent.leaving = False
                    self._publish(name)
                await asyncio.sleep(0)
                self._renew(name)

    async def do_stray(self, name: str, epoch: int) -> None:
        """Something else renews the Lease: no heartbeat (C2)."""
        agent = self.agents.get(name)
        if agent and epoch != agent.epoch:
            self.strayed.add(name)
            self._renew(name, epoch)

    async def do_repeat(self, name: str) -> None:
        """The stream brings a Lease that has not changed (C2)."""
        if name in self.leases and self.stream == "open":
            self._tell_lease(name)

    # People.

    async def do_edit(self, kind: str, name: str, patch: Json) -> None:
        """As kubectl patch."""
        if name in self.api.objects[Kind(kind)]:
            self.api.edit(Kind(kind), name, patch)

    async def do_delete(self, kind: str, name: str) -> None:
        """As kubectl delete."""
        if name in self.api.objects[Kind(kind)]:
            self.api.delete(Kind(kind), name)

    async def do_put(self, body: Json) -> None:
        """As kubectl create; nothing where there is one."""
        kinds = {"NodePool": Kind.POOL, "NodePoolGenerator": Kind.GENERATOR}
        if body["metadata"]["name"] not in self.api.objects[kinds[body["kind"]]]:
            self.api.put(body)

    async def do_slice(self, number: int, what: str) -> None:
        """Somebody edits or deletes a slice by hand (D10)."""
        names = sorted(self.api.objects[Kind.SLICE])
        if not names:
            return
        name = names[number % len(names)]
        body = self.api.objects[Kind.SLICE][name]
        pool = (body["metadata"].get("labels") or {}).get("hotpool.dev/pool")
        if pool not in self.api.objects[Kind.POOL] or is_paused(self.api.objects[Kind.POOL][pool]):
            return
        self.truth.released |= {(pool, node) for node in self.api.members(pool)}
        stranger = {"node": "stranger", "state": "Ready", "since": "2026-01-01T00:00:00.000000Z"}
        edits: dict[str, Json] = {
            "empty": {"members": []},
            "stranger": {"members": [stranger, *body["members"]][:3]},
            "twice": {"members": [*body["members"], *self._elsewhere(pool, name)][: len(body["members"]) + 1]},
            "owner": {"metadata": {"ownerReferences": None}},
            "label": {"metadata": {"labels": None}},
        }
        if what == "delete":
            self.api.delete(Kind.SLICE, name)
        else:
            self.api.edit(Kind.SLICE, name, edits[what])

    def _elsewhere(self, pool: str, name: str) -> list[Json]:
        """The members of the pool's other slices."""
        others = [self.api.objects[Kind.SLICE][other] for other in self.api.slices(pool) if other != name]
        return [item for other in others for item in other["members"]]

    async def do_generated(self, number: int, what: str) -> None:
        """Somebody edits or deletes a generated pool by hand (D5)."""
        pools = self.api.objects[Kind.POOL]
        names = sorted(name for name, body in pools.items() if body["spec"].get("generated"))
        if not names:
            return
        name = names[number % len(names)]
        if what == "delete":
            self.checks.generators.deleted(name)
            self.api.delete(Kind.POOL, name)
        else:
            self.api.edit(Kind.POOL, name, {"spec": {"minMembers": 77, "generated": None}})

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
        self.redis.fault = None if what == "up" else Retryable("away")

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
            operator.reconciler.feed(kind, event, body)
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
        await asyncio.sleep(_PROOF)

    async def do_standby(self) -> None:
        """A second operator gets warm."""
        if not self.standby and self.leader and self.stream == "open" and not self.blind and not self.api.fault:
            self.standby = standby = await self._made()
            standby.warm.append(asyncio.create_task(standby.reconciler.stand_by()))

    async def _heal_all(self) -> None:
        self.api.fault = None
        await self.do_slow(0.0)
        if self.blind:
            await self.do_seeing()
        await self.do_open()

    async def _made(self) -> Operator:
        self.term += 1
        operator = Operator(self, self.term)
        operator.reconciler.heartbeats(
            [self._beat(name) for name in self.leases if f"{LEASE_PREFIX}{name}" in self.api.leases]
        )
        operator.reconciler.hearing()
        self.api.feed = self._feed
        await operator.reconciler.open_gate()
        return operator

    async def _start(self) -> None:
        new = await self._made()
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
