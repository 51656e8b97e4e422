"""Picks that wait, with cancellations, lost connections and wake-ups at the worst moment, on a real server (E10)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from tests.support.capacity_fleet import asr, slots_in_use, write_fleet
from tests.support.redis_fixture_lookup import claimed_writer, node_of
from tests.support.redis_fleet import until
from tests.support.waiting_clients import LONG, WAITERS, WAKEUPS, Dispatcher, reads, reserved, waiting

from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Reason
from hotpool.projection.lookup import sync_wait_room, wait_room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("lines_only")


async def test_a_cancelled_waiter_leaves_no_task_connection_or_reservation(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    held = await reserved(lookup)
    before = asyncio.all_tasks()
    async with Lookup.from_url(server.url, namespace="speech") as other:
        pick = asyncio.create_task(other.pick("zh-en", reserve=LONG, wait=LONG))
        await reads(client)
        pick.cancel()
        await asyncio.gather(pick, return_exceptions=True)
        await until(lambda: asyncio.all_tasks() == before)
        await until(lambda: _none_reads(client))
    for key in (WAKEUPS, WAITERS):
        assert 0 < await client.execute_command("PTTL", key) <= 15_000
    assert await lookup.release(held)
    assert await slots_in_use(client) == {}


async def _none_reads(client: Client) -> bool:
    return int((await client.execute_command("INFO", "clients"))["blocked_clients"]) == 0


class Held(Redis):
    """A client that calls `before` ahead of each function of a name, once."""

    name = ""
    before: Callable[[], Awaitable[Any]] | None = None

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        if self.before and str(words[1]).endswith(self.name):
            call, self.before = self.before, None
            await call()
        return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def held_lookup(server: RedisServer, name: str, before: Callable[[], Awaitable[Any]]) -> AsyncIterator[Lookup]:
    client = Held(host="127.0.0.1", port=server.port)
    client.name, client.before = name, before
    async with Lookup(client, namespace="speech") as lookup:
        yield lookup


async def test_a_slot_released_between_the_pick_and_the_first_read_is_not_lost(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    held = await reserved(lookup)
    async with held_lookup(server, "_wait", lambda: lookup.release(held)) as waiter:
        async with asyncio.timeout(20):
            assert node_of(await waiter.pick("zh-en", reserve=LONG, wait=LONG)) == "edge-1"


async def test_a_slot_released_before_another_request_joins_is_not_lost(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    """Its line was read, and could help none, before the second request of the client joined."""
    await write_fleet(client, {"edge-1": asr(1)})
    held = await reserved(lookup)
    async with Lookup.from_url(server.url, namespace="speech") as waiter:
        other = asyncio.create_task(waiter.pick("new", wait=LONG))
        await reads(client)
        attempt = waiter._room._run  # noqa: SLF001 - the moment between a pick and the wait.

        async def release_after(steps: Any) -> Any:
            answer = await attempt(steps)
            if isinstance(answer, NoMember) and answer.reason is Reason.FULL and await lookup.release(held):
                await asyncio.sleep(0.05)
            return answer

        waiter._room._run = release_after  # noqa: SLF001
        async with asyncio.timeout(20):
            assert node_of(await waiter.pick("zh-en", reserve=LONG, wait=LONG)) == "edge-1"
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_a_waiter_that_is_cancelled_when_it_is_woken_passes_the_wake_up_on(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    held = await reserved(lookup)
    async with Lookup.from_url(server.url, namespace="speech") as waiter:
        first = asyncio.create_task(waiter.pick("zh-en", reserve=LONG, wait=LONG))
        await reads(client)
        second = asyncio.create_task(waiter.pick("zh-en", reserve=LONG, wait=LONG))
        await asyncio.sleep(0)
        run = waiter._room._run  # noqa: SLF001 - the moment in which the first one has the turn.

        async def cancel_first(steps: Any) -> Any:
            if not first.cancelling():
                first.cancel()
            return await run(steps)

        [group] = waiter._room._queue.groups.values()  # noqa: SLF001
        await until(lambda: len(group.waiters) == 2 and not group.dirty)
        waiter._room._run = cancel_first  # noqa: SLF001
        await lookup.release(held)
        async with asyncio.timeout(20):
            assert node_of(await second) == "edge-1"
        assert first.cancelled()
    assert await slots_in_use(client) == {"edge-1 fw": 1}


async def test_a_reader_whose_connection_is_cut_or_whose_stream_is_lost_goes_on(
    client: Client, lookup: Lookup, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (wait_room, sync_wait_room):
        monkeypatch.setattr(module, "REFRESH_SECONDS", 0.3)
    await write_fleet(client, {"edge-1": asr(3)})
    held = [await reserved(lookup) for _ in range(3)]

    cut, lost, garbage = ("CLIENT", "KILL", "TYPE", "normal"), ("UNLINK", WAKEUPS), ("SET", WAKEUPS, "garbage")
    for fault, reservation in zip((cut, lost, garbage), held, strict=True):
        async with waiting(client, dispatcher.pick(reserve=LONG, wait=LONG)) as pick:
            await client.execute_command(*fault)
            await lookup.release(reservation)
            assert node_of(await pick) == "edge-1"


async def test_a_closed_client_ends_its_waiting_picks(client: Client, dispatcher: Dispatcher) -> None:
    await claimed_writer(client)
    pick = asyncio.create_task(dispatcher.pick("new", wait=LONG))
    await reads(client)
    await dispatcher.close()
    with pytest.raises(LookupUnavailableError, match="closed while a pick waited"):
        await pick
