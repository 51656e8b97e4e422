"""Reservations, failure reports and drains from begin to end, with either client (E8, E9, C5).

Sentinel and a Redis Cluster are in test_failover.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.dispatch_life import expect_life

from hotpool.lookup import Lookup, SyncLookup

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer


async def test_the_asynchronous_client(client: Client, lookup: Lookup) -> None:
    await expect_life(client, lookup)


async def test_the_blocking_client(client: Client, server: RedisServer) -> None:
    with SyncLookup.from_url(server.url, namespace="speech") as lookup:
        await expect_life(client, lookup)
