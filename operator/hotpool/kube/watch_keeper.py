"""Proof of life of the watches (requirement C3): a silent watch is replaced, and named while it is silent.

The API server ends each watch after WATCH_SECONDS, so an idle one, too, gets a response that often. Bookmarks prove
nothing, because an idle kind has none in this time. Must not know the content of the watches.
"""

import asyncio
import random
from collections.abc import Iterable
from typing import Final, NoReturn

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

WATCH_SECONDS: Final = 8
"""Time after which the API server ends a watch."""
SILENT_SECONDS: Final = 10.0
"""Time without a proof of life after which a watch is named."""
REPLACE_SECONDS: Final = 12.0
"""Time without a response or data after which a request is given up. With two ticks it is below the 15 s of C3."""
_TICK_SECONDS: Final = 1.0
_LONGEST_TICK_SECONDS: Final = 2.0
"""Time that one tick may count. A stall of our own loop is no silence: the sockets are read only after it."""
_FLOOR_SECONDS: Final = 1.0
"""Shortest time between two requests of a kind, before jitter."""
_OK: Final = 200


class WatchKeeper:
    """Watches of one connection, by kind (plural of the API). `follow` is an aiohttp middleware of its sessions."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}

    async def follow(self, request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        """Send a request. Raises TimeoutError if it is a watch and has no response for REPLACE_SECONDS."""
        if "watch" not in request.url.query:
            return await handler(request)
        return await self._watch(request.url.name).open(request, handler)

    async def run(self, kinds: Iterable[str]) -> NoReturn:
        """Look at the watches until cancelled. Those of `kinds` are silent until their first response."""
        for kind in kinds:
            self._watch(kind)
        clock = asyncio.get_running_loop().time
        looked = clock()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            looked, elapsed = clock(), min(clock() - looked, _LONGEST_TICK_SECONDS)
            for watch in self._watches.values():
                watch.tick(elapsed)

    def is_up(self, kind: str) -> bool:
        """Return True while the watch of a kind has a proof of life."""
        return self._watch(kind).silence < SILENT_SECONDS

    def problem(self) -> str:
        """Return a text that names the silent watches, empty if there is none."""
        silent = ", ".join(kind for kind in self._watches if not self.is_up(kind))
        return f"no response or data for {SILENT_SECONDS:g} s: {silent}" if silent else ""

    def _watch(self, kind: str) -> "_Watch":
        return self._watches.setdefault(kind, _Watch(kind))


class _Watch:
    """The watch of one kind: one request at a time.

    Silence is ended here and not by a time limit around the reader, which would cancel the reader's own work when it
    expires in a stall. `silence`: seconds since the last proof of life.
    """

    def __init__(self, kind: str) -> None:
        self.silence = SILENT_SECONDS
        self._kind = kind
        self._waited = 0.0
        """Seconds since the request was sent or last brought data."""
        self._sending: asyncio.Timeout | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._received = 0
        self._next = 0.0

    async def open(self, request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        """Send the request, not too soon after the former one, and follow its response."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._next - clock())
        self._next = clock() + _FLOOR_SECONDS * random.uniform(1, 1.5)  # noqa: S311 - jitter, no secret.
        self._waited, self._response = 0.0, None
        try:
            async with asyncio.timeout(None) as self._sending:
                response = await handler(request)
        finally:
            self._sending = None
        if response.status == _OK:
            self._response, self._received = response, 0
            self.silence = self._waited = 0.0
        return response

    def tick(self, elapsed: float) -> None:
        """Look for new data; count the seconds without, and give up the request after too many."""
        received = self._response.content.total_bytes if self._response else 0
        if received != self._received:
            self._received = received
            self.silence = self._waited = 0.0
            return
        self.silence += elapsed
        self._waited += elapsed
        if self._waited >= REPLACE_SECONDS:
            self._give_up()

    def _give_up(self) -> None:
        self._waited = 0.0
        if self._sending:
            self._sending.reschedule(0)
        elif self._response and not self._response.closed:
            self._response.close()  # the reader gets a ClientConnectionError
        else:
            return
        import structlog  # noqa: PLC0415 - loads rich; commands start without it

        log = structlog.get_logger(__name__)
        log.warning("watch silent; replacing it", kind=self._kind, silent_seconds=round(self.silence, 1))
