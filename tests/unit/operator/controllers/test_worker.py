"""The worker of a target in simulated time: connections, retries, drift checks and its error."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from types import MappingProxyType

import pytest
from structlog.testing import capture_logs
from tests.support.simulated_fleet import simulated, until

from hotpool.clock import Clock
from hotpool.controllers.result import Result
from hotpool.controllers.worker import RETRY_SECONDS, STARTING, Worker
from hotpool.core.model import Key, Kind
from hotpool.errors import RejectedError, RetryableError, StaleError, UnavailableError, WriteError
from hotpool.observability.metrics import REGISTRY

pytestmark = pytest.mark.timeout(60)

A, B = Key(Kind.POOL, "a"), Key(Kind.POOL, "b")


class ScriptedTarget:
    """A target that fails as the test says."""

    name = "scripted"
    concurrency: Mapping[Kind, int] = MappingProxyType({Kind.POOL: 4})

    def __init__(self, drift_seconds: float | None = 5.0) -> None:
        self.drift_seconds = drift_seconds
        self.away: UnavailableError | None = None
        """Raised by each attempt to connect."""
        self.failures: dict[Key, Exception] = {}
        self.outdated: set[Key] = set()
        """Keys whose next write is based on an outdated object."""
        self.unexpected: Exception | None = None
        """Raised by each drift check."""
        self.drift: list[Key] = []
        self.check_may_end = asyncio.Event()
        self.check_may_end.set()
        self.connections = self.checks = 0
        self.reconciled: list[Key] = []
        self.settled: list[bool] = []
        """Result of `settled` at the end of each check."""

    async def connect(self) -> Collection[Key]:
        self.connections += 1
        if self.away:
            raise self.away
        return ()

    async def reconcile(self, key: Key) -> Result:
        self.reconciled.append(key)
        if key in self.outdated:
            self.outdated.remove(key)
            raise StaleError("changed", key.kind, key.name)
        if key in self.failures:
            raise self.failures[key]
        return Result()

    async def check_drift(self, settled: Callable[[], bool]) -> Collection[Key]:
        self.checks += 1
        if self.unexpected:
            raise self.unexpected
        await self.check_may_end.wait()
        self.settled.append(settled())
        return self.drift


@asynccontextmanager
async def working(target: ScriptedTarget) -> AsyncIterator[Worker]:
    """Run a worker that has reconciled `a` and checked for drift."""
    time = asyncio.get_running_loop().time
    worker = Worker(target, Clock(time, time))
    worker.restore([A])

    async def run() -> None:
        async with aclosing(worker.run()) as results:
            async for _ in results:
                pass

    task = asyncio.create_task(run())
    try:
        await until(lambda: worker.error != STARTING)
        yield worker
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def change(worker: Worker, *keys: Key) -> None:
    """Make keys due, and let them be reconciled."""
    worker.add(keys, asyncio.get_running_loop().time())
    await asyncio.sleep(0.01)


@simulated
async def test_a_target_that_accepts_connections_but_no_write_is_tried_once_a_second() -> None:
    target = ScriptedTarget()
    async with working(target) as worker:
        target.failures[A] = UnavailableError("no right to write")
        target.drift = [A]
        await change(worker, A)
        before = target.connections, target.checks, len(target.reconciled)
        await asyncio.sleep(20)
        tried = target.connections - before[0], target.checks - before[1], len(target.reconciled) - before[2]
        assert max(tried) <= 2 * 20 / RETRY_SECONDS
        assert min(tried) >= 0.5 * 20 / RETRY_SECONDS
        assert worker.error == "no right to write"


@simulated
async def test_a_failure_during_a_drift_check_that_finds_nothing_stays_the_error() -> None:
    target = ScriptedTarget()
    async with working(target) as worker:
        target.check_may_end.clear()
        checks = target.checks
        await until(lambda: target.checks > checks)
        target.failures[A] = RetryableError("full")
        await change(worker, A)
        target.check_may_end.set()
        await asyncio.sleep(0.01)
        assert worker.error == "full"
        assert target.settled[-1] is False


@simulated
async def test_one_drift_check_runs_at_a_time() -> None:
    target = ScriptedTarget()
    async with working(target) as worker:
        target.check_may_end.clear()
        checks = target.checks
        await until(lambda: target.checks > checks)
        target.failures[A] = UnavailableError("cut")
        await change(worker, A)
        await asyncio.sleep(10)
        assert target.connections > 3
        assert target.checks == checks + 1


@simulated
async def test_an_unexpected_error_of_a_drift_check_ends_no_later_check() -> None:
    target = ScriptedTarget()
    async with working(target) as worker:
        target.unexpected = KeyError("surprise")
        await until(lambda: "surprise" in worker.error)
        target.unexpected = None
        assert await until(lambda: not worker.error) <= RETRY_SECONDS + 0.1


@simulated
async def test_a_repair_is_confirmed_at_once_at_most_once_a_second() -> None:
    target = ScriptedTarget()
    async with working(target):
        await asyncio.sleep(2 * RETRY_SECONDS)
        target.drift = [A]
        checks = target.checks
        await until(lambda: target.checks > checks)
        await asyncio.sleep(0.05)
        assert target.checks == checks + 2
        checks = target.checks
        await asyncio.sleep(20)
        assert target.checks - checks <= 2 * 20 / RETRY_SECONDS


@simulated
async def test_the_failure_of_a_key_is_logged_once_and_retried_until_it_succeeds() -> None:
    target = ScriptedTarget(drift_seconds=None)
    async with working(target) as worker:
        target.failures[B] = RetryableError("refused")
        with capture_logs() as lines:
            await change(worker, B)
            await asyncio.sleep(10)
        assert [line["event"] for line in lines] == ["write failed"]
        del target.failures[B]
        await until(lambda: worker.settled)


@simulated
async def test_the_metric_of_a_target_shows_whether_it_holds_the_desired_state() -> None:
    def up() -> float | None:
        return REGISTRY.get_sample_value("hotpool_target_up", {"target": "scripted"})

    target = ScriptedTarget()
    time = asyncio.get_running_loop().time
    Worker(target, Clock(time, time))
    assert up() == 0
    async with working(target) as worker:
        assert up() == 1
        target.failures[A] = RetryableError("refused")
        await change(worker, A)
        assert up() == 0
        target.failures.clear()
        await until(lambda: not worker.error)
        assert up() == 1


@simulated
async def test_a_write_to_an_outdated_object_is_retried_at_once_and_is_no_error_of_the_target() -> None:
    target = ScriptedTarget(drift_seconds=None)
    async with working(target) as worker:
        target.outdated.add(B)
        with capture_logs() as lines:
            await change(worker, B)
        assert target.reconciled[-2:] == [B, B]
        assert (worker.error, worker.settled, lines) == ("", True, [])


@simulated
@pytest.mark.parametrize("error", [RejectedError("invalid"), RetryableError("500 for this object alone")])
async def test_the_failure_of_an_object_is_no_error_of_a_target_without_drift_checks(error: WriteError) -> None:
    target = ScriptedTarget(drift_seconds=None)
    async with working(target) as worker:
        target.failures[B] = error
        await change(worker, B)
        assert worker.error == ""
        target.failures[A] = UnavailableError("away")
        await change(worker, A)
        assert worker.error == "away"
        del target.failures[A]
        await until(lambda: worker.error == "")
        assert not worker.settled
