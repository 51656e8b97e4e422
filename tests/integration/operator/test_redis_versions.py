"""A Redis that is too old, seen by the operator and by both look-up clients (requirements E4, E6)."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from tests.support.leadership import FixedLeadership
from tests.support.old_redis import VERSION, old_redis

from hotpool.errors import RejectedError
from hotpool.lookup import Lookup, LookupUnavailableError, SyncLookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.writer import RedisWriter

TEXT = f"this Redis (version {VERSION}) has no functions: Redis 7.0 or later, or Valkey 7.2 or later, is needed"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with old_redis() as address:
        yield address


async def test_the_operator_names_the_version_that_it_found_and_the_one_it_needs(url: str) -> None:
    client = connect(url)
    with pytest.raises(RejectedError) as caught:
        await RedisWriter(client, FixedLeadership(), namespace="speech").claim(1)
    await client.aclose()
    assert str(caught.value) == TEXT
    assert REGISTRY.get_sample_value("hotpool_redis_failures_total", {"reason": "version"})


async def test_both_look_up_clients_name_the_version_that_they_found_and_the_one_they_need(url: str) -> None:
    async with Lookup.from_url(url, namespace="speech") as lookup:
        with pytest.raises(LookupUnavailableError, match=f"^{re.escape(TEXT)}$"):
            await lookup.pick("zh-en")
        with pytest.raises(LookupUnavailableError, match=f"^{re.escape(TEXT)}$"):
            await lookup.transitions("edge-1")
    with SyncLookup.from_url(url, namespace="speech") as blocking:
        with pytest.raises(LookupUnavailableError, match=f"^{re.escape(TEXT)}$"):
            await asyncio.to_thread(blocking.pick, "zh-en")
        with pytest.raises(LookupUnavailableError, match=f"^{re.escape(TEXT)}$"):
            await asyncio.to_thread(blocking.transitions, "edge-1")
