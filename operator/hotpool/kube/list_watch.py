"""What the raw streams share: list, watch for ever, and read a watch in chunks.

Must not know what the lines mean.
"""

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
    broke: Callable[[BaseException, float], None],
) -> NoReturn:
    """List, then watch from the version that is returned; again and again from what each watch returns, empty: list.

    `broke` is told of trouble and of the delay before the next attempt, which grows and is jittered.
    """
    delay = _FIRST_DELAY
    while True:
        try:
            version = await list_all()
            delay = _FIRST_DELAY
            while version:
                version = await watch(version)
        except (ApiUnavailable, ApiException, *CONNECTION_ERRORS, msgspec.DecodeError) as error:
            broke(error, delay)
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


async def chunks(answer: Any, quiet_seconds: float) -> AsyncIterator[bytes]:
    """What an open watch brings, until it ends (then closed). Raises TimeoutError when it is quiet for so long."""
    arriving = answer.content.iter_chunked(_CHUNK)
    try:
        while True:
            async with asyncio.timeout(quiet_seconds):
                chunk = await anext(arriving, None)
            if chunk is None:
                return
            yield chunk
    finally:
        answer.close()
