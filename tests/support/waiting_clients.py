"""Clients of either kind whose picks wait, on a real server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.redis_fixture_lookup import KEYS, expect_picked
from tests.support.redis_fleet import until

from hotpool.lookup import Lookup, NoMember, Picked, Reservation, SyncLookup
from hotpool.projection.lookup import sync_wait_room, wait_room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

LONG = 60.0
WAKEUPS, WAITERS = KEYS.waiting


class Dispatcher:
    """A client of either kind, used from asyncio."""

    def __init__(self, kind: type[Lookup | SyncLookup], url: str) -> None:
        self.lookup: Any = kind.from_url(url, namespace="speech")
        self._threads = ThreadPoolExecutor(16)

    async def pick(self, pool: Any = "zh-en", **options: Any) -> Picked | NoMember:
        found: Picked | NoMember = await self._call(self.lookup.pick, pool, **options)
        return found

    async def pick_key(self, pair: Any, **options: Any) -> Picked | NoMember:
        found: Picked | NoMember = await self._call(self.lookup.pick_key, "speech", pair, **options)
        return found

    async def close(self) -> None:
        await self._call(self.lookup.close)

    def waiters(self) -> int:
        """Return the number of waiting picks."""
        queue = self.lookup._room._queue  # noqa: SLF001 - nothing outside shows how many wait.
        return sum(len(group.waiters) for group in queue.groups.values())

    def is_idle(self) -> bool:
        """Return True if no waiting pick tries again."""
        queue = self.lookup._room._queue  # noqa: SLF001 - as above.
        return not any(group.dirty for group in queue.groups.values())

    async def _call(self, method: Callable[..., Any], *words: Any, **options: Any) -> Any:
        if isinstance(self.lookup, Lookup):
            return await method(*words, **options)
        call = partial(method, *words, **options)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


async def reads(client: Client, number: int = 1) -> None:
    """Wait until so many clients read lines."""

    async def blocked() -> bool:
        return int((await client.execute_command("INFO", "clients"))["blocked_clients"]) >= number

    await until(blocked)


@asynccontextmanager
async def waiting(client: Client, pick: Awaitable[Picked | NoMember]) -> AsyncIterator[asyncio.Future[Any]]:
    """Run a pick in the block, which begins when the pick waits and ends when it is served."""
    task = asyncio.ensure_future(pick)
    try:
        await reads(client)
        assert not task.done()
        yield task
        await asyncio.wait_for(task, 20)
    finally:
        task.cancel()


async def reserved(lookup: Lookup, **options: Any) -> Reservation:
    found = expect_picked(await lookup.pick("zh-en", reserve=LONG, **options)).reservation
    assert found is not None
    return found


@pytest.fixture
def lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let waiting picks try again because of a line or a due time alone, not at intervals."""
    for module in (wait_room, sync_wait_room):
        monkeypatch.setattr(module, "REFRESH_SECONDS", 1000.0)


@pytest.fixture(params=[Lookup, SyncLookup])
async def dispatcher(request: pytest.FixtureRequest, server: RedisServer) -> AsyncIterator[Dispatcher]:
    created = Dispatcher(request.param, server.url)
    yield created
    await created.close()
