"""Endless list-and-watch, as client-go's ListWatch. Must not know the content of the lines."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

import msgspec
from kubernetes.aio.client.exceptions import ApiException

from hotpool.kube.client import ApiUnavailable
from hotpool.kube.rest import CONNECTION_ERRORS
from hotpool.kube.watch_keeper import WATCH_SECONDS

LONGEST_SECONDS = 2.0 * WATCH_SECONDS
"""Limit of a watch that sends data and does not end."""
_CHUNK = 1 << 20
_TOO_MANY = 429
_FIRST_SERVER_ERROR = 500
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 5.0
_STEADY_SECONDS = 5.0
"""Duration of a watch after which the next one begins without a delay."""


async def run_forever(
    list_all: Callable[[], Awaitable[str]],
    watch: Callable[[str], Awaitable[str]],
    on_error: Callable[[BaseException, float], None],
) -> NoReturn:
    """List, then watch from the returned version. Each watch returns the version to continue from; empty: list again.

    A failed watch is continued from its version, unless the API server refused that.
    `on_error` receives the error and the delay in seconds before the next attempt. The delay grows and is jittered. It
    is short again only after a steady watch: a server that ends or refuses every watch must not be flooded with lists.
    """
    pace = _Pace()
    version = ""
    while True:
        try:
            version = version or await list_all()
            opened = pace.now()
            version = await watch(version)
            await pace.wait_after_watch(opened)
        except (ApiUnavailable, ApiException, *CONNECTION_ERRORS, msgspec.DecodeError) as error:
            version = version if _is_served_later(error) else ""
            on_error(error, pace.delay)
            await pace.wait()


def _is_served_later(error: BaseException) -> bool:
    """Return True if the watch may be continued from its version: no connection, or an API server too busy for it."""
    status = getattr(error, "status", None)
    return isinstance(error, CONNECTION_ERRORS) or status == _TOO_MANY or (status or 0) >= _FIRST_SERVER_ERROR


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


async def chunks(response: Any) -> AsyncIterator[bytes]:
    """Yield the chunks of an open watch until it ends or breaks, or is replaced because it is silent. Close it."""
    try:
        with suppress(*CONNECTION_ERRORS):
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk
    finally:
        response.close()
