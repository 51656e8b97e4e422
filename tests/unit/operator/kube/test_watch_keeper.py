"""Proof of life of watches in simulated time: who is named, what is given up, and stalls of the loop (C3)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.simulated_fleet import SimulatedLoop, now, simulated
from yarl import URL

from hotpool.kube.watch_keeper import WatchKeeper

POOLS = "http://api/apis/hotpool.dev/v1alpha1/namespaces/fleet/nodepools"
OPEN_SECONDS = 10.0
"""Duration of an idle watch until the server ends it."""


class Response:
    """An open response of the server."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.content = SimpleNamespace(total_bytes=0)
        self.closed = False

    def close(self) -> None:
        """Record that the client closed it."""
        self.closed = True


async def send(keeper: WatchKeeper, answer: Callable[[], Awaitable[Response]], query: str = "?watch=true") -> Response:
    """Send a request through the keeper; the server answers it with a response."""

    async def handler(_request: Any) -> Any:
        return await answer()

    request: Any = SimpleNamespace(url=URL(POOLS + query))
    return cast("Response", await keeper.follow(request, handler))


async def at_once() -> Response:
    return Response()


async def never() -> Response:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


@asynccontextmanager
async def running(*kinds: str) -> AsyncIterator[WatchKeeper]:
    """Run a keeper of these kinds."""
    keeper = WatchKeeper()
    task = asyncio.create_task(keeper.run(kinds))
    await asyncio.sleep(0)
    yield keeper
    task.cancel()


def stall(seconds: float) -> None:
    """Let the loop's time pass without a turn of the loop."""
    cast("SimulatedLoop", asyncio.get_running_loop())._clock.now += seconds  # noqa: SLF001 - the simulation's clock.


@simulated
async def test_a_watch_is_silent_until_its_first_successful_response() -> None:
    async with running("nodepools") as keeper:
        assert keeper.problem() == "no response or data for 10 s: nodepools"
        await send(keeper, at_once, query="")
        refused = await send(keeper, lambda: asyncio.sleep(0, Response(403)))
        assert (refused.status, keeper.is_up("nodepools")) == (403, False)
        await send(keeper, at_once)
        assert (keeper.problem(), keeper.is_up("nodepools")) == ("", True)


@simulated
async def test_an_idle_watch_that_the_server_ends_and_opens_again_is_never_named() -> None:
    async with running("nodepools") as keeper:
        for _ in range(30):
            response = await send(keeper, at_once)
            await asyncio.sleep(OPEN_SECONDS)
            assert (keeper.problem(), response.closed) == ("", False)


@simulated
async def test_a_silent_watch_is_named_then_closed_within_15_s_and_named_until_the_next_response() -> None:
    async with running("nodepools", "leases") as keeper:
        response = await send(keeper, at_once)
        begun = now()
        while keeper.is_up("nodepools"):  # noqa: ASYNC110 - in simulated time.
            await asyncio.sleep(0.1)
        assert 10 <= now() - begun <= 11.5
        assert not response.closed
        while not response.closed:
            assert "nodepools" in keeper.problem()
            await asyncio.sleep(0.1)
        assert 12 <= now() - begun <= 13
        assert "nodepools" in keeper.problem()
        await send(keeper, at_once)
        assert "nodepools" not in keeper.problem()


@simulated
async def test_data_are_a_proof_of_life() -> None:
    async with running("nodepools") as keeper:
        response = await send(keeper, at_once)
        for _ in range(30):
            await asyncio.sleep(OPEN_SECONDS)
            response.content.total_bytes += 1
            await asyncio.sleep(1.5)
            assert (keeper.problem(), response.closed) == ("", False)


@simulated
async def test_a_watch_request_without_a_response_is_given_up_within_15_s_and_each_gets_its_own_time() -> None:
    async with running("nodepools") as keeper:
        for _ in range(3):
            begun = now()
            with pytest.raises(TimeoutError):
                await send(keeper, never)
            assert 12 <= now() - begun <= 14.5  # with the pause since the former request
        assert not keeper.is_up("nodepools")


@simulated
async def test_other_requests_have_no_limit() -> None:
    async with running("nodepools") as keeper:
        task = asyncio.create_task(send(keeper, never, query=""))
        await asyncio.sleep(100)
        assert not task.done()
        task.cancel()


@simulated
async def test_a_response_that_ended_is_not_closed_while_its_kind_is_listed_again() -> None:
    async with running("nodepools") as keeper:
        response = await send(keeper, at_once)
        response.closed = True
        response.close = lambda: pytest.fail("closed twice")  # type: ignore[method-assign]
        await asyncio.sleep(60)
        assert not keeper.is_up("nodepools")


@simulated
async def test_watches_that_end_at_once_are_requested_at_most_once_a_second() -> None:
    async with running("nodepools") as keeper:
        begun = now()
        for _ in range(61):
            await send(keeper, at_once)
        assert 60 <= now() - begun <= 90


@simulated
async def test_a_stall_of_the_loop_is_no_silence() -> None:
    async with running("nodepools") as keeper:
        response = await send(keeper, at_once)
        await asyncio.sleep(5)
        stall(15)
        await asyncio.sleep(3)
        assert (keeper.problem(), response.closed) == ("", False)
        pending = asyncio.create_task(send(keeper, never))
        await asyncio.sleep(2)
        stall(15)
        await asyncio.sleep(3)
        assert not pending.done()
        pending.cancel()
