"""Worker of one target: its queue, tasks and retries, and the probe while the target is unavailable.

Workers share nothing, so that a slow target delays no other. Must not know what is written.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from hotpool.clock import Clock
from hotpool.controllers.result import Result, Target
from hotpool.controllers.workqueue import WorkQueue
from hotpool.core.model import Key
from hotpool.errors import FencedError, NotLeaderError, StaleError, UnavailableError, WriteError
from hotpool.observability import hotplug_latency
from hotpool.observability.hotplug_latency import Seen
from hotpool.observability.metrics import APPLY, FAILURES, TARGET_UP

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 1.0
"""Pause between two attempts to connect, and between two drift checks while the target differs."""
STARTING: Final = "not compared yet"
"""Error of a target of which nothing is known yet."""
_FIRST_BACKOFF: Final = 0.2
_LONGEST_BACKOFF: Final = 30.0
_MOST_DOUBLINGS: Final = 10
_FINISH_SECONDS: Final = 3.0
"""More than the time-out of one write."""


@dataclass(frozen=True, slots=True)
class _Failure:
    attempts: int
    error: Exception


class Worker:
    """Work of one leader on one target."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self.target = target
        self.error = STARTING
        """Reason why the target does not hold the desired state; empty if it does, as far as is known.

        Of a target without drift checks, the reason why nothing can be written: an object that cannot be, which other
        writers may have made so, is in the metrics and the log.
        """
        TARGET_UP.labels(target.name).set(0)
        self._clock = clock
        self._queues = {kind: WorkQueue(capacity) for kind, capacity in target.concurrency.items()}
        self._untried: set[Key] = set()
        """Keys that nothing has changed and that were not tried yet. A drift check would count them as strays."""
        self._failed: dict[Key, _Failure] = {}
        self._seen: dict[Key, Seen] = {}
        """Key → first report that no write has followed yet."""
        self._connected = False
        self._outage = False
        """True after an attempt to connect that failed: what failed meanwhile need not wait any longer."""
        self._connect_at = 0.0
        """Not before: a second after the last connection unless a key succeeded since."""
        self._drift_at = float("inf")
        self._checking = False
        self._confirm_at = 0.0
        """Earliest time of the next drift check that follows a repair at once."""
        self._results: deque[Result] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: BaseException | None = None
        self._wake = asyncio.Event()

    def add(self, keys: Iterable[Key], at: float, seen: Seen | None = None) -> None:
        """Make keys due at a time (monotonic seconds), but those of other kinds. `seen`: the report behind it."""
        for key in keys:
            queue = self._queues.get(key.kind)
            if queue and queue.add(key, at):
                self._wake.set()
            if queue and seen:
                self._seen.setdefault(key, seen)

    def restore(self, keys: Iterable[Key]) -> None:
        """Reconcile keys that nothing has changed, behind those that changed."""
        for key in keys:
            if queue := self._queues.get(key.kind):
                self._untried.add(key)
                queue.add_idle(key)
        self._wake.set()

    async def run(self) -> AsyncGenerator[Result, None]:
        """Yield the results until leadership ends. Raises NotLeaderError and FencedError."""
        try:
            while self._ended is None:
                self._wake.clear()
                if not self._connected and self._clock() >= self._connect_at:
                    self._connect_at = float("inf")
                    self._start(self._connect())
                if self._connected:
                    self._start_due()
                while self._results:
                    yield self._results.popleft()
                await self._sleep()
            raise self._ended
        finally:
            await self._finish()

    @property
    def settled(self) -> bool:
        """True if every key was reconciled, and none is to be tried again."""
        return not self._untried and not self._failed

    async def _connect(self) -> None:
        try:
            stored = await self.target.connect()
        except Exception as error:  # noqa: BLE001 - raised by `run`, or the state of the target.
            if isinstance(error, (NotLeaderError, FencedError)) or not isinstance(error, WriteError):
                self._ended = error
            else:
                self._set_error(str(error))
                self._outage = True
        else:
            self._connected = True
            # What only a former leader wrote is removed before everything else is compared or written.
            self.add([key for key in stored if key not in self._untried], self._clock())
            self.restore(stored)
            if self._outage:
                self.add(self._failed, self._clock())
            self._outage = False
            self._check_by(self._clock())
            if self.error == STARTING and not self.target.drift_seconds:
                self._set_error("")
        self._connect_at = self._clock() + RETRY_SECONDS
        self._wake.set()

    def _start_due(self) -> None:
        now = self._clock()
        for queue in self._queues.values():
            for key, due in queue.take(now):
                self._start(self._reconcile(key, due))
        if now >= self._drift_at and self._may_check:
            self._checking = True
            self._start(self._check_drift())

    async def _sleep(self) -> None:
        times = [self._drift_at if self._may_check else float("inf")] if self._connected else [self._connect_at]
        times += [due for queue in self._queues.values() if self._connected and (due := queue.next_due()) is not None]
        if not self._results and not self._ended:
            await self._clock.wait(self._wake, min(times))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconcile(self, key: Key, due: float) -> None:
        """Reconcile one key. Every error except the loss of leadership is noted and retried."""
        await self._clock.pace()  # a plan takes milliseconds
        began, seen = self._clock(), self._seen.pop(key, None)
        try:
            result = await self.target.reconcile(key)
        except (NotLeaderError, FencedError) as error:
            self._ended = error
        except Exception as error:  # noqa: BLE001 - one key's failure must not end the others' work.
            self._fail(key, error, seen)
        else:
            self._results.append(result)
            if result.requeue_at is not None:
                self.add([key], result.requeue_at)
            if result.error:
                self._fail(key, result.error, seen)
            else:
                self._succeed(key, result, seen, began, due)
        finally:
            self._untried.discard(key)
            self._queues[key.kind].done(key)
            self._wake.set()

    def _succeed(self, key: Key, result: Result, seen: Seen | None, began: float, due: float) -> None:
        before = self.settled
        if not result.postponed:
            APPLY.labels(key.kind.value).observe(self._clock() - due)
            failure = self._failed.pop(key, None)
            if failure and isinstance(failure.error, UnavailableError):
                self.add(self._failed, self._clock())  # back again: the others need not wait any longer
        self._untried.discard(key)
        if self._connected:
            self._connect_at = 0.0
        if not self.target.drift_seconds:
            self._set_error("")
        if self.settled and not before:
            self._confirm()
        if seen and result.change:
            hotplug_latency.observe(self.target.name, result.change, seen, began, self._clock())
        elif seen and result.postponed:
            self._seen.setdefault(key, seen)

    def _fail(self, key: Key, error: Exception, seen: Seen | None) -> None:
        FAILURES.labels(type(error).__name__).inc()
        before = self._failed.get(key)
        attempts = before.attempts + 1 if before else 1
        self._failed[key] = _Failure(attempts, error)
        if seen:
            self._seen.setdefault(key, seen)
        at_once = isinstance(error, StaleError) and attempts == 1
        delay = 0.0 if at_once else min(_FIRST_BACKOFF * 2 ** min(attempts - 1, _MOST_DOUBLINGS), _LONGEST_BACKOFF)
        self.add([key], self._clock() + delay)
        if at_once:
            return
        words = {"target": self.target.name, "kind": key.kind.value, "name": key.name}
        if not isinstance(error, WriteError):
            log.error("reconciliation failed", **words, exc_info=error)
        elif not isinstance(error, UnavailableError) and (before is None or str(before.error) != str(error)):
            log.warning("write failed", **words, error=str(error))
        if self.target.drift_seconds or isinstance(error, UnavailableError):
            self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        self._set_error(str(error))
        self._check_by(self._clock() + RETRY_SECONDS)
        if isinstance(error, UnavailableError):
            self._connected = False

    @property
    def _may_check(self) -> bool:
        return not self._untried and not self._checking

    def _check_by(self, at: float) -> None:
        """Check for drift at `at` at the latest; one that runs sets the time of the next when it ends."""
        if self.target.drift_seconds:
            self._drift_at = min(self._drift_at, at)

    def _confirm(self) -> None:
        """Check at once what was repaired, at most once a second: another program may change it again and again."""
        at = max(self._clock(), self._confirm_at)
        if at < self._drift_at and not self._checking:
            self._confirm_at = at + RETRY_SECONDS
            self._check_by(at)

    async def _check_drift(self) -> None:
        try:
            found = await self.target.check_drift(lambda: self.settled)
        except (NotLeaderError, FencedError) as error:
            self._ended = error
        except Exception as error:
            if not isinstance(error, WriteError):
                log.exception("drift check failed", target=self.target.name)
            self._note_failure(error)
            self._connected = False
        else:
            if found:
                log.info("drift found, rewriting", target=self.target.name, keys=len(found))
                self.restore(found)
            elif self.settled:
                self._set_error("")
            pause = RETRY_SECONDS if found or self.error else self.target.drift_seconds
            self._drift_at = self._clock() + (pause or 0.0)
        finally:
            self._checking = False
            self._wake.set()

    def _set_error(self, error: str) -> None:
        """Note the state of the target; the empty result lets the reader of the results look at it."""
        if error == self.error:
            return
        self.error = error
        TARGET_UP.labels(self.target.name).set(not error)
        self._results.append(Result())
        if error:
            log.warning("target fails", target=self.target.name, error=error)
        else:
            log.info("target holds the desired state", target=self.target.name)

    async def _finish(self) -> None:
        """Wait for the writes in progress, then cancel the rest: a generator may have thousands of pools to write."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
