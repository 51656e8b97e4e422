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


async def run_forever(
    list_all: Callable[[], Awaitable[str]],
    watch: Callable[[str], Awaitable[str]],
    on_error: Callable[[BaseException, float], None],
) -> NoReturn:
    """List, then watch from the returned version. Each watch returns the version to continue from; empty: list again.

    `on_error` receives the error and the delay in seconds before the next attempt. The delay grows and is jittered.
    """
    delay = _FIRST_DELAY
    while True:
        try:
            version = await list_all()
            delay = _FIRST_DELAY
            while version:
                version = await watch(version)
        except (ApiUnavailable, ApiException, *CONNECTION_ERRORS, msgspec.DecodeError) as error:
            on_error(error, delay)
        await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret.
        delay = min(2 * delay, _LONGEST_DELAY)


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
