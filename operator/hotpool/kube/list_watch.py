"""Endless list-and-watch, as client-go's ListWatch. Must not know the content of the lines."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import msgspec
from kubernetes.aio.client.exceptions import ApiException

from hotpool.kube.client import ApiUnavailable
from hotpool.kube.rest import CONNECTION_ERRORS

WATCH_SECONDS = 300
_CHUNK = 1 << 20
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 5.0
_STEADY_SECONDS = 10.0
"""Duration of a watch after which the next one begins without a delay."""


async def run_forever(
    list_all: Callable[[], Awaitable[str]],
    watch: Callable[[str], Awaitable[str]],
    on_error: Callable[[BaseException, float], None],
) -> NoReturn:
    """List, then watch from the returned version. Each watch returns the version to continue from; empty: list again.

    `on_error` receives the error and the delay in seconds before the next attempt. The delay grows and is jittered. It
    is short again only after a steady watch: a server that ends or refuses every watch must not be flooded with lists.
    """
    pace = _Pace()
    while True:
        try:
            version = await list_all()
            while version:
                opened = pace.now()
                version = await watch(version)
                await pace.wait_after_watch(opened)
        except (ApiUnavailable, ApiException, *CONNECTION_ERRORS, msgspec.DecodeError) as error:
            on_error(error, pace.delay)
            await pace.wait()


class _Pace:
    """Growing, jittered delay between requests."""

    def __init__(self) -> None:
        self.delay = _FIRST_DELAY
        self.now = asyncio.get_running_loop().time

    async def wait(self) -> None:
        """Wait, and double the next delay."""
        delay, self.delay = self.delay, min(2 * self.delay, _LONGEST_DELAY)
        await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret.

    async def wait_after_watch(self, opened: float) -> None:
        """Wait after a watch, opened at that loop time, unless it was steady."""
        if self.now() - opened < _STEADY_SECONDS:
            await self.wait()
        else:
            self.delay = _FIRST_DELAY


def watch_from(version: str) -> dict[str, str]:
    """Return the query of a watch that begins after this version."""
    return {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(WATCH_SECONDS),
    }


async def chunks(response: Any, idle_seconds: float) -> AsyncIterator[bytes]:
    """Yield the chunks of an open watch, then close it. Raises TimeoutError after `idle_seconds` without data."""
    incoming = response.content.iter_chunked(_CHUNK)
    try:
        while True:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(incoming, None)
            if chunk is None:
                return
            yield chunk
    finally:
        response.close()
