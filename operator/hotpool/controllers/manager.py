"""What is due, and when: the dirty set, the deadlines, the gate and the audit (design, section 2).

Started by `operator`. What is done for one key is in `phases`. It decides nothing about membership and knows no wire
shape.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import structlog

from hotpool.clock import Clock
from hotpool.controllers.context import Fleet
from hotpool.controllers.dispatch import Phases
from hotpool.controllers.workqueue import WorkQueue
from hotpool.core.cluster_cache import State
from hotpool.core.liveness import Hearing
from hotpool.core.model import OURS, Heartbeat, Identity, Key, Kind, Node
from hotpool.errors import Fenced, NotLeader, Rejected, Retryable, Stale
from hotpool.events.recorder import Narrator
from hotpool.kube.client import Reader, Unavailable
from hotpool.kube.decode import Rejection, decode, identify
from hotpool.kube.writer import KubeSink
from hotpool.observability.hotplug_latency import Latency
from hotpool.observability.metrics import APPLY, FAILURES, HEARING, HEARTBEATS, NODES, POOLS, REJECTED
from hotpool.projection.publisher import Mirror

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16
"""Pools worked on at the same time."""
GENERATORS_AT_ONCE: Final = 4
"""Generators worked on at the same time, apart: each makes many pools, and all that is made must be filled too."""
NODES_AT_ONCE: Final = 8
"""Nodes worked on at the same time, apart: membership must not wait behind its own story (design, section 2)."""
AUDIT_SECONDS: Final = 300.0
_FIRST_AUDIT_SECONDS: Final = 10.0
"""The first audit comes early: it covers what happened between our listing and the start of the watches."""
_WAIT_SECONDS: Final = 1.0
_LONGEST_SLEEP: Final = 5.0
"""At least this often the loop looks whether the Lease stream is still proven."""
_BREATH_SECONDS: Final = 0.02
_FINISH_SECONDS: Final = 3.0
"""More than one write takes (sinks.kube)."""
_FIRST_BACKOFF: Final = 0.2
_LONGEST_BACKOFF: Final = 30.0


class Reconciler:
    """One fleet's state and the work on it; lives in one event loop."""

    def __init__(
        self,
        state: State,
        reader: Reader,
        kube: KubeSink,
        mirror: Mirror | None,
        clock: Clock | None = None,
        *,
        narrator: Narrator | None = None,
        kinds: Sequence[Kind] = OURS,
    ) -> None:
        self._kinds = kinds
        """What is watched, and must be listed before anything is written."""
        self._state = state
        self._reader = reader
        self._clock = clock or Clock()
        self._narrator = narrator or Narrator(state, self._clock)
        self._latency = Latency()
        self._phases = Phases(
            Fleet(
                state=state,
                kube=kube,
                mirror=mirror,
                clock=self._clock,
                mark=self._mark,
                refresh=self._refresh,
                confirm=self._confirm,
                narrator=self._narrator,
                latency=self._latency,
            )
        )
        self._lanes = {
            Kind.POOL: WorkQueue(AT_ONCE),
            Kind.GENERATOR: WorkQueue(GENERATORS_AT_ONCE),
            Kind.NODE: WorkQueue(NODES_AT_ONCE),
        }
        self._wake = asyncio.Event()
        self._breath = self._clock()
        self._hearing = Hearing()
        self._was_deaf = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._unseen: set[Key] = set()
        """Keys not worked on since we lead; when there are none left, Redis may be compared."""
        self.swept = asyncio.Event()
        self._attempts: Counter[Key] = Counter()

    def feed(self, kind: Kind, event: str | None, body: Any) -> None:
        """One watch event or listed object: decode, observe, mark. A version that is known is not read again."""
        found = identify(body)
        if event != "DELETED" and found and self._state.known(kind).get(found[0]) == found[1]:
            return
        seen = decode(kind, body)
        if isinstance(seen, Rejection):
            REJECTED.labels(kind.value).inc()
            log.warning("object cannot be read", kind=seen.kind, name=seen.name, why=seen.why)
        elif event == "DELETED":
            self._mark(self._state.forget(kind, seen.meta.name, seen.meta.uid))
        elif event and isinstance(seen, Node):
            self._watched(seen)
        else:
            self._mark(self._state.observe(seen, self._clock()))

    def _watched(self, node: Node) -> None:
        """A watch brought a node: where its report is a new one, what comes of it is measured (behaviour F4)."""
        known, now = self._state.nodes.get(node.meta.name), self._clock()
        before = known.view.node.report if known else None
        dirty = self._state.observe(node, now)
        self._mark(dirty)
        if self._state.gate_open and node.report and (before is None or before.time != node.report.time):
            pools = (key.name for key in dirty if key.kind is Kind.POOL and self._state.pools[key.name].urgent)
            self._latency.reported(node.meta.name, pools, node.report.time, now, self._clock.unix())

    def heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        """Leases that were listed or changed."""
        HEARTBEATS.inc(len(beats))
        now = self._clock()
        for beat in beats:
            self._mark(self._state.heartbeat(beat, now))

    def renewing(self, renewed: str) -> None:
        """The canary Lease is about to be renewed with this renewTime."""
        self._hearing.sent(renewed, self._clock())

    def echo(self, renewed: str) -> None:
        """The Lease stream brought the canary."""
        self._hearing.echo(renewed, self._clock())
        self._listen()

    def deaf(self) -> None:
        """The Lease stream broke: silence does not count until it is open again."""
        self._hearing.broke()
        self._listen()

    def hearing(self) -> None:
        """The Lease stream is open."""
        self._hearing.opened(self._clock())
        self._listen()

    @property
    def is_deaf(self) -> bool:
        """True while the Lease stream is not proven alive."""
        return self._hearing.deaf(self._clock())

    def _listen(self) -> bool:
        """Whether silence may count; when we hear again, every node has a fresh period (behaviour C3)."""
        deaf = self.is_deaf
        if self._was_deaf and not deaf:
            self._state.hear_again(self._clock())
            self._wake.set()
        self._was_deaf = deaf
        HEARING.set(not deaf)
        self._narrator.hears(well=not deaf)
        return not deaf

    async def open_gate(self) -> None:
        """List everything once; only then may anything be written (behaviour D9). Waits for the API server for ever."""
        while not self._state.gate_open:
            try:
                await self.audit()
            except Unavailable as error:
                log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(_WAIT_SECONDS)
            else:
                self._state.gate_open = True
                self._mark(self._state.trust_slices(self._clock()))
        log.info("everything is listed", **{kind.value: len(self._state.known(kind)) for kind in self._kinds})

    async def audit(self) -> None:
        """Compare a completed LIST of each kind with what is known, by uid and version (behaviour C7).

        Absence, and a version older than the one known, are confirmed by a GET.
        """
        for kind in self._kinds:
            known = dict(self._state.known(kind))
            present: dict[str, Identity] = {}
            async for body in self._reader.each(kind):
                present |= [found] if (found := identify(body)) else []
                self.feed(kind, None, body)
                await self._breathe()
            contradicts = self._state.identities.contradicts
            doubtful = [name for name, found in present.items() if contradicts(kind, name, found)]
            for name in [*(known.keys() - present.keys()), *doubtful]:
                await self._refresh(kind, name, known.get(name))

    async def _breathe(self) -> None:
        """Let others run when this has taken long (design, section 2)."""
        if self._clock() > self._breath + _BREATH_SECONDS:
            await asyncio.sleep(0)
            self._breath = self._clock()

    async def stand_by(self) -> None:
        """Keep the state warm for ever without a write: silence takes effect, and what watches missed is found."""
        next_audit = self._clock() + AUDIT_SECONDS
        while True:
            next_audit = self._keep_up(next_audit)
            await self._sleep(next_audit)

    async def run(self) -> None:
        """Work for ever; to be called when the gate is open and we lead. Raises NotLeader and Fenced."""
        self._begin()
        next_audit = self._clock() + _FIRST_AUDIT_SECONDS
        while self._failed is None:
            next_audit = self._keep_up(next_audit)
            now = self._clock()
            lanes = self._lanes.values()
            for key, due in chain.from_iterable([lane.take(now) for lane in lanes]):
                self._start(self._work(key, due))
            await self._sleep(next_audit, *(lane.next_due() for lane in lanes))
        raise self._failed

    def _begin(self) -> None:
        """Everything is due once: what is stored may be what another leader made of it."""
        self._latency.clear()
        self._mark(self._state.take_over(self._clock()))
        known = self._state.known
        self._unseen = {Key(kind, name) for kind in (Kind.NODE, Kind.POOL, Kind.GENERATOR) for name in known(kind)}
        self._unseen |= {Key(Kind.POOL, pool) for pool in self._state.slices}
        if not self._unseen:
            self.swept.set()
        self._mark(self._unseen)

    def _keep_up(self, next_audit: float) -> float:
        """Let time take its effect on the state; when the next audit is due."""
        now = self._clock()
        self._wake.clear()
        if self._listen():
            self._mark(self._state.tick(now, self._hearing.proven))
        NODES.set(len(self._state.nodes))
        POOLS.set(len(self._state.pools))
        if now < next_audit:
            return next_audit
        self._start(self._audit_safely())
        return now + AUDIT_SECONDS

    async def finish(self) -> None:
        """Let the writes under way end, but not all that a generator of thousands of pools still has to do."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sleep(self, *due: float | None) -> None:
        silence = None if self._was_deaf else self._state.next_deadline()
        until = min(at for at in (self._clock() + _LONGEST_SLEEP, silence, *due) if at is not None)
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _mark(self, keys: Iterable[Key], at: float | None = None) -> None:
        now = self._clock() if at is None else at
        for key in keys:
            if self._lanes[key.kind].add(key, self._phases.earliest(key, now) if at is None else at):
                self._wake.set()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _audit_safely(self) -> None:
        try:
            await self.audit()
        except Unavailable as error:
            log.warning("audit failed", error=str(error))
        else:
            self._mark(self._state.look_for_abandoned(self._clock()))

    async def _work(self, key: Key, due: float) -> None:
        """One key; whatever goes wrong is told, and the key is tried again later."""
        try:
            if await self._phases.run(key):
                self._attempts.pop(key, None)
            APPLY.labels(key.kind.value).observe(self._clock() - due)
        except (NotLeader, Fenced) as error:
            self._failed = error
        except Stale as error:
            await self._refresh(error.kind, error.name)
            self._retry(key, error)
        except Rejected as error:
            self._narrator.refused(key, str(error))
            self._retry(key, error)
        except Retryable as error:
            self._retry(key, error)
        except Exception as error:  # one key's trouble must not end the others' work.
            log.exception("reconciliation failed", kind=key.kind.value, name=key.name)
            self._retry(key, error)
        finally:
            self._lanes[key.kind].done(key)
            self._unseen.discard(key)
            if not self._unseen:
                self.swept.set()
            self._wake.set()

    def _retry(self, key: Key, error: Exception) -> None:
        FAILURES.labels(type(error).__name__).inc()
        at_once = isinstance(error, Stale) and not self._attempts[key]
        if at_once:
            self._phases.forget_pace(key)
        delay = 0.0 if at_once else _FIRST_BACKOFF * 2 ** self._attempts[key]
        self._attempts[key] = min(self._attempts[key] + 1, 10)
        if delay:
            log.warning("write failed", kind=key.kind.value, name=key.name, error=str(error), retry_seconds=delay)
        self._mark([key], self._clock() + min(delay, _LONGEST_BACKOFF))

    async def _refresh(self, kind: Kind, name: str, before: Identity | None = None) -> bool:
        """Read one object anew; a 404 is the evidence that it is gone (behaviour C7), and makes it True.

        `before`: what was known for sure before this; an older version than that is what a restored etcd holds.
        """
        before = before or self._state.known(kind).get(name)
        try:
            body = await self._reader.get(kind, name)
        except Unavailable as error:
            log.warning("refresh failed", error=str(error))
            return False
        seen = None if body is None else decode(kind, body)
        if seen is None and before:
            self._mark(self._state.forget(kind, name, before.uid))
        elif seen is not None and not isinstance(seen, Rejection):
            restored = before is None or seen.meta.version < before.version
            self._mark(self._state.observe(seen, self._clock(), restored=restored))
        return seen is None

    async def _confirm(self, kind: Kind, name: str, uid: str) -> bool:
        """Whether the API server, asked now, holds this very object; what it holds instead is taken in.

        Raises Retryable where it does not answer.
        """
        try:
            found = identify(await self._reader.get(kind, name) or {})
        except Unavailable as error:
            raise Retryable(str(error)) from None
        if found and found[1].uid == uid:
            return True
        await self._refresh(kind, name)
        return False
