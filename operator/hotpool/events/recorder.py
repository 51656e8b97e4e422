"""Tells people as Events what happened to pools, generators, nodes and the fleet (requirements C6, D5, D10, D11, E5).

The reconciler, the phases and the mirror say what they did; a task of its own posts, one Event at a time, so that
nothing waits for the story. It is mute until `lead`. It must not decide, write anything but Events, or fail a caller.
A transition is told when it is stored; one that was stored without an answer is not told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import Condition
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.clock import Clock
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Generator, Key, Kind, Member, Meta, Node, Pool, Slice
from hotpool.core.planning.diff import CreateSlice, DeleteSlice, SliceWrite, UpdateSlice
from hotpool.errors import RejectedError, StaleError
from hotpool.events.aggregator import Event, EventAggregator, EventDraft, EventObject
from hotpool.events.builders import KINDS, changed_conditions, membership_changed
from hotpool.events.last_applied import LastApplied
from hotpool.events.messages import NameList, ObjectsMessage, TextMessage
from hotpool.observability.metrics import EVENTS

log = structlog.get_logger(__name__)

T = TypeVar("T")

TICK_SECONDS: Final = 0.5
"""How long what happens is gathered before it is told."""

Post = Callable[[Event], Awaitable[None]]
"""Posts one Event; raises SinkError."""
_SliceLeft = tuple[tuple[Member, ...], str | None, bool]
"""Of a slice what we see to: members, owner, labelled."""


@dataclass(frozen=True, slots=True)
class _ComponentHealth:
    """A part of the operator: whether it is well, since when, and whether we led and so told it."""

    healthy: bool
    since: float
    reported: bool


class EventRecorder:
    """One fleet's story."""

    def __init__(self, state: ClusterCache, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._aggregator = EventAggregator()
        self._fleet: EventObject | None = None
        """What the fleet's Events regard; None: not leading, nothing is told."""
        self._wake = asyncio.Event()
        self._slices: LastApplied[_SliceLeft] = LastApplied()
        self._pools: LastApplied[PoolSpec] = LastApplied()
        self._parts: dict[str, _ComponentHealth] = {}

    async def run(self, post: Post) -> None:
        """Post for ever; an Event that fails is dropped."""
        while True:
            await self._wake.wait()
            while self._aggregator.waiting:
                await asyncio.sleep(TICK_SECONDS)
                for event in self._aggregator.take(self._clock()):
                    await self._post(post, event)
            self._wake.clear()

    async def _post(self, post: Post, event: Event) -> None:
        try:
            await post(event)
        except Exception as error:  # noqa: BLE001 - a story that fails, for whatever reason, must not end the operator.
            EVENTS.labels("error").inc()
            log.warning("event not posted", reason=event.reason, about=event.regarding.name, error=repr(error))
        else:
            EVENTS.labels("ok").inc()

    # The fleet.

    def leader_elected(self, term: int, fleet: EventObject) -> None:
        """We lead from now on; `fleet` is the object that stands for it."""
        self._fleet = fleet
        self._add(fleet, EventDraft("Leading", "Elect", TextMessage(f"leads with term {term}")))

    def lease_watch_health(self, *, well: bool) -> None:
        """Whether heartbeats are heard."""
        deaf = "heartbeats cannot be heard: nobody's silence counts"
        self._component("LeaseWatch", ("Restored", "heartbeats are heard again"), ("Lost", deaf), well=well)

    def redis_health(self, well: bool, why: str) -> None:  # noqa: FBT001 - the mirror's callback.
        """Whether Redis takes our writes and holds the whole projection."""
        down = f"Redis does not take our writes; membership in Kubernetes goes on: {why}"
        self._component("Redis", ("Up", "Redis holds the whole projection again"), ("Down", down), well=well)

    def node_watch_health(self, well: bool, why: str) -> None:  # noqa: FBT001 - the stream's callback.
        """Whether v1 Nodes are heard."""
        up, deaf = "cordons and labels of Nodes are heard again", f"nothing changes because of Nodes: {why}"
        self._component("NodeWatch", ("Restored", up), ("Lost", deaf), well=well)

    def _component(self, name: str, up: tuple[str, str], down: tuple[str, str], *, well: bool) -> None:
        """Only changes are told, and that a part is well again only after it was told that it is not."""
        now, known = self._clock(), self._parts.get(name)
        if known and known.healthy is well:
            return
        self._parts[name] = _ComponentHealth(healthy=well, since=now, reported=self._fleet is not None)
        if self._fleet and not well:
            self._add(self._fleet, EventDraft(name + down[0], "Watch", TextMessage(down[1]), warning=True))
        elif self._fleet and known and known.reported:
            text = f"{up[1]}, after {now - known.since:.0f} s"
            self._add(self._fleet, EventDraft(name + up[0], "Watch", TextMessage(text)))

    # Pools.

    @contextmanager
    def slice_round(self, pool: Pool) -> Iterator[None]:
        """Around all writes of a pool's slices in one round: who moved is told when all of it is stored."""
        self._slices.track(pool.meta, self._now_in(pool))
        self._slices.begin_round(pool.meta)
        yield
        before, after = self._slices.end_round(pool.meta, self._now_in(pool))
        subject = self._state.pools.get(pool.meta.name)
        happening = membership_changed(
            {name: left[0] for name, left in before.items()},
            {name: left[0] for name, left in after.items()},
            subject.criteria if subject else {},
            dry_run=pool.spec.mode == "DryRun",
        )
        self._object(Kind.POOL, pool.meta, happening)

    @contextmanager
    def slice_write(self, pool: Pool, write: SliceWrite) -> Iterator[None]:
        """Around one write of a slice and the taking in of its answer."""
        name, found, wanted = _sides(pool, write)
        foreign = self._slices.changed_by_others(pool.meta, name, found)
        with _sent(self._slices, pool.meta, name):
            yield
        stored = self._now_in(pool).get(name)
        # The state's own members where they are the same: a second copy of all members would cost memory.
        self._slices.write_stored(pool.meta, name, stored if stored == wanted else wanted)
        if foreign:
            text = ObjectsMessage("slice", NameList.of([name]), "changed by others: put right")
            self._object(Kind.POOL, pool.meta, EventDraft("SliceRepaired", "UpdateMembers", text, warning=True))

    def _now_in(self, pool: Pool) -> dict[str, _SliceLeft]:
        return {name: _left(item) for name, item in self._state.slices.get(pool.meta.name, {}).items()}

    def pool_status(self, pool: Pool, status: PoolStatus) -> None:
        """A pool's status was stored."""
        self._conditions(Kind.POOL, pool.meta, _stored_conditions(pool.status.conditions), status.conditions)

    def forget(self, kind: Kind, name: str) -> None:
        """A pool or generator is gone."""
        (self._slices if kind is Kind.POOL else self._pools).forget(name)

    # Generators.

    def begin_pool_writes(self, generator: Generator, wanted: Iterable[str], pools: Mapping[str, Pool]) -> None:
        """A generator's pools are about to be written. `wanted`: names of pools to make."""
        ours = {name: pool.spec for name, pool in pools.items() if pool.owner == generator.meta.uid}
        self._pools.track(generator.meta, ours)
        self._pools.retain(generator.meta, {*ours, *wanted})

    @contextmanager
    def pool_write(
        self, generator: Generator, name: str, found: PoolSpec | None, wanted: PoolSpec | None
    ) -> Iterator[None]:
        """Around one write of a generated pool; None: it is not there, or shall not be."""
        foreign = self._pools.changed_by_others(generator.meta, name, found)
        with _sent(self._pools, generator.meta, name):
            yield
        self._pools.write_stored(generator.meta, name, wanted)
        if foreign and wanted:
            reason, what = ("PoolRepaired", "edited") if found else ("PoolRecreated", "deleted")
            text = ObjectsMessage("generated pool", NameList.of([name]), f"{what} by others: put right")
            self._object(Kind.GENERATOR, generator.meta, EventDraft(reason, "UpdatePools", text, warning=True))

    def generator_status(self, generator: Generator, status: GeneratorStatus) -> None:
        """A generator's status was stored."""
        self._conditions(
            Kind.GENERATOR, generator.meta, _stored_conditions(generator.status.conditions), status.conditions
        )

    # Nodes.

    def node_conditions(self, node: Node, conditions: Iterable[Condition]) -> None:
        """A node's conditions were stored."""
        before = {type_: (known.status, known.reason) for type_, known in node.conditions.items()}
        self._conditions(Kind.NODE, node.meta, before, conditions)

    def node_deleted(self, node: Meta, what: str) -> None:
        """A node was silent for 600 s, and what there was of it was deleted."""
        self._object(
            Kind.NODE, node, EventDraft("CleanedUp", "Delete", TextMessage(f"silent for 600 s: {what} deleted"))
        )

    # Any of them.

    def write_rejected(self, key: Key, why: str) -> None:
        """The API server refuses a write about an object, for example because others filled its conditions."""
        known = self._state.exists(key.kind).get(key.name)
        if known:
            about = EventObject(KINDS[key.kind], key.name, known.uid)
            self._add(
                about, EventDraft("WriteRefused", "Write", TextMessage(f"tried again later: {why}"), warning=True)
            )

    def _conditions(
        self, kind: Kind, meta: Meta, before: Mapping[str, tuple[str, str]], after: Iterable[Condition]
    ) -> None:
        for happening in changed_conditions(kind, before, after):
            self._object(kind, meta, happening)

    def _object(self, kind: Kind, meta: Meta, happening: EventDraft | None) -> None:
        if happening:
            self._add(EventObject(KINDS[kind], meta.name, meta.uid), happening)

    def _add(self, about: EventObject, happening: EventDraft) -> None:
        if self._fleet is None:
            return
        if not self._aggregator.add(about, happening, self._clock.timestamp(), self._clock()):
            EVENTS.labels("dropped").inc()
        self._wake.set()


@contextmanager
def _sent(footprint: LastApplied[T], owner: Meta, child: str) -> Iterator[None]:
    """Around one write: what was stored is known again after an answer only."""
    known = footprint.begin_write(owner, child)
    try:
        yield
    except (StaleError, RejectedError):  # nothing was stored
        if known:
            footprint.write_rejected(owner, child)
        raise


def _sides(pool: Pool, write: SliceWrite) -> tuple[str, _SliceLeft | None, _SliceLeft | None]:
    """The slice's name, what was found, and what is wanted."""
    match write:
        case CreateSlice(name, members):
            return name, None, (members, pool.meta.uid, True)
        case UpdateSlice(known, members):
            return known.meta.name, _left(known), (members, pool.meta.uid, True)
        case DeleteSlice(known):
            return known.meta.name, _left(known), None


def _left(item: Slice) -> _SliceLeft:
    return item.members, item.owner, item.labelled


def _stored_conditions(conditions: Iterable[Condition]) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in conditions}
