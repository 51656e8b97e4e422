"""Pace of lists and watches in simulated time, against a server that refuses or ends every watch."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from tests.support.simulated_fleet import simulated

from hotpool.kube import list_watch
from hotpool.kube.client import ApiUnavailable

MINUTE = 60.0


async def counts(watch: Callable[[], str], seconds: float = MINUTE) -> Counter[str]:
    """Return the numbers of lists, watches and errors in a time."""
    seen: Counter[str] = Counter()

    async def list_all() -> str:
        seen["list"] += 1
        return "1"

    async def watch_once(_version: str) -> str:
        seen["watch"] += 1
        return watch()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await list_watch.run_forever(list_all, watch_once, lambda *_: seen.update(["error"]))
    return seen


@simulated
async def test_a_server_that_forbids_every_watch_is_not_flooded_with_lists() -> None:
    def refuse() -> str:
        raise ApiUnavailable("forbidden", 403)

    seen = await counts(refuse)
    assert seen["list"] == seen["watch"] == seen["error"]
    assert 10 <= seen["list"] <= 25


@simulated
@pytest.mark.parametrize("error", [ApiUnavailable("too busy", 429), ApiUnavailable("ill", 500), OSError("no route")])
async def test_a_watch_that_fails_is_continued_without_a_list(error: Exception) -> None:
    def fail() -> str:
        raise error

    seen = await counts(fail)
    assert (seen["list"], seen["watch"]) == (1, seen["error"])
    assert 10 <= seen["watch"] <= 25


@simulated
async def test_a_server_that_ends_every_watch_at_once_is_not_flooded_with_watches() -> None:
    seen = await counts(lambda: "1")
    assert (seen["list"], seen["error"]) == (1, 0)
    assert 10 <= seen["watch"] <= 25


@simulated
async def test_a_server_whose_watches_expire_at_once_is_not_flooded_with_lists() -> None:
    assert 10 <= (await counts(lambda: ""))["list"] <= 25


@simulated
async def test_a_watch_after_a_steady_one_begins_without_a_delay() -> None:
    opened: list[float] = []

    async def list_all() -> str:
        return "1"

    async def steady(_version: str) -> str:
        opened.append(asyncio.get_running_loop().time())
        await asyncio.sleep(MINUTE)
        return "1"

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10 * MINUTE - 1):
            await list_watch.run_forever(list_all, steady, lambda *_: None)
    assert [at - opened[0] for at in opened] == [MINUTE * number for number in range(10)]
