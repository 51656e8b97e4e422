"""Endless list-and-watch, as client-go's ListWatch. Must not know the content of the objects."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import takewhile
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec
import structlog
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.clock import Clock
from hotpool.common.backoff import Backoff
from hotpool.kube.client import ApiUnavailable, asked
from hotpool.kube.reader import pages
from hotpool.kube.rest import CONNECTION_ERRORS, WireObject, error_text, read, send
from hotpool.kube.watch_keeper import WATCH_SECONDS

log = structlog.get_logger(__name__)

LONGEST_SECONDS: Final = 2.0 * WATCH_SECONDS
"""Limit of a watch that sends data and does not end."""
_CHUNK: Final = 1 << 20
_TOO_MANY: Final = 429
_FIRST_SERVER_ERROR: Final = 500
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 5.0
_STEADY_SECONDS: Final = 5.0
"""Duration of a watch after which the next one begins without a delay."""


T = TypeVar("T", bound=WireObject)


class Line(msgspec.Struct, Generic[T]):
    """Line of a watch, or listed object (type None). That of a BOOKMARK has only a version, of an ERROR nothing."""

    type: str | None
    object: T


class ListWatch(Generic[T]):
    """Endless list-and-watch of one resource. A subclass receives the objects and the state of the watch."""

    def __init__(self, api: ApiClient, url_path: str, model: type[T], clock: Clock, **selectors: str) -> None:
        self._api = api
        self._clock = clock
        self._path = url_path
        self._name = url_path.rpartition("/")[2]
        self._selectors = selectors
        self._item: Callable[[msgspec.Raw], T] = msgspec.json.Decoder(model).decode
        self._line: Callable[[bytes], Line[T]] = msgspec.json.Decoder(Line[model]).decode  # type: ignore[valid-type]
        self._open = False
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled. Retry with growing, jittered delay."""
        await run_forever(self._list, self._watch, self._on_error)

    def _on_error(self, error: BaseException, delay: float) -> None:
        self._open = False
        problem = str(error) if isinstance(error, ApiUnavailable) else error_text(error)
        log.warning("watch lost", kind=self._name, error=problem, retry_seconds=round(delay, 1))
        self._disconnected(problem)

    def _disconnected(self, problem: str) -> None:
        """Note that the watch is lost."""

    def _opened(self, *, listed: bool) -> None:
        """Note that the watch is open, after a complete listing or where it broke."""

    def _receive(self, line: Line[T]) -> None:
        """Receive an object of a list, or a line of a watch that is not of type ERROR."""

    async def _deliver(self, lines: Iterable[Line[T]]) -> None:
        """Receive one page of a list, or some lines of a watch."""
        for line in lines:
            await self._clock.pace()
            self._receive(line)

    async def _pause(self, response: Any, received: int) -> None:
        """Pause after a chunk of `received` bytes."""

    async def _list(self) -> str:
        """List all objects and return the version to watch from."""
        version = ""
        async for items, listed in pages(self._api, self._path, self._selectors):
            version = listed
            await self._deliver(Line(None, self._item(item)) for item in items)
        self._open = True
        self._opened(listed=True)
        self.listed.set()
        return version

    async def _watch(self, version: str) -> str:
        """Read one watch to its end. Return the version to continue from, or an empty string to list again."""
        query = self._selectors | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        response = await send(self._api, "GET", self._path, query=query, seconds=LONGEST_SECONDS)
        if response.status >= 400:  # noqa: PLR2004 - HTTP's own number.
            await asked(read(response), "watch", self._name)
        if not self._open:
            self._open = True
            self._opened(listed=False)
        rest = b""
        async for chunk in _chunks(response):
            *lines, rest = (rest + chunk).split(b"\n")
            decoded = [self._line(line) for line in lines if line]
            events = [*takewhile(lambda event: event.type != "ERROR", decoded)]
            await self._deliver(events)
            if len(events) < len(decoded):
                return ""
            version = events[-1].object.metadata.resourceVersion if events else version
            await self._pause(response, len(chunk))
        return version


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
    backoff, now = Backoff(_FIRST_DELAY, _LONGEST_DELAY), asyncio.get_running_loop().time
    version = ""
    while True:
        try:
            version = version or await list_all()
            opened = now()
            version = await watch(version)
            if now() - opened < _STEADY_SECONDS:
                await asyncio.sleep(backoff.pause())
            else:
                backoff.reset()
        except (ApiUnavailable, ApiException, *CONNECTION_ERRORS, msgspec.DecodeError) as error:
            version = version if _is_served_later(error) else ""
            delay = backoff.pause()
            on_error(error, delay)
            await asyncio.sleep(delay)


def _is_served_later(error: BaseException) -> bool:
    """Return True if the watch may be continued from its version: no connection, or an API server too busy for it."""
    status = getattr(error, "status", None)
    return isinstance(error, CONNECTION_ERRORS) or status == _TOO_MANY or (status or 0) >= _FIRST_SERVER_ERROR


async def _chunks(response: Any) -> AsyncIterator[bytes]:
    """Yield the chunks of an open watch until it ends or breaks, or is replaced because it is silent. Close it."""
    try:
        with suppress(*CONNECTION_ERRORS):
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk
    finally:
        response.close()
