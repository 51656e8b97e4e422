"""A cancelled call of Redis ends, whatever it was about to do (E6): a client that is closed must not hang."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import KEYS, claimed_writer, pool

from hotpool.projection.functions import Functions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hotpool.lookup import Lookup
    from hotpool.projection.connection.async_connection import Client

TURNS = range(40)
"""Turns of the event loop after which a call is cancelled: more than one call takes."""


async def ends(call: Callable[[], Awaitable[object]], turns: int) -> bool:
    """Return True if a task that repeats the call ends when it is cancelled after so many turns of the loop."""
    calls = 0

    async def repeat() -> None:
        nonlocal calls
        while calls < len(TURNS):
            calls += 1
            await call()

    task = asyncio.create_task(repeat())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


CALLS: dict[str, Callable[[Client, Lookup], Awaitable[object]]] = {
    "a pick": lambda _, lookup: lookup.pick("zh-en"),
    "a pipeline": lambda _, lookup: lookup.histories(["edge-1"]),
    "a function of the operator": lambda client, _: Functions(client, may_load=False).read("overview", [KEYS.meta]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_that_is_cancelled_at_any_moment_ends(
    client: Client, lookup: Lookup, call: Callable[[Client, Lookup], Awaitable[object]]
) -> None:
    await (await claimed_writer(client)).replace_pool(pool(["edge-1"]))
    await call(client, lookup)
    assert [turns for turns in TURNS if not await ends(partial(call, client, lookup), turns)] == []
