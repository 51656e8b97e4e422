"""The agent's way to a fake API server, through a relay that breaks it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from aiohttp import web
from tests.support.fake_api import FakeApi, fake_api

from localfleet.relay import Relay

NAMES: Final = ("asr", "nmt", "tts", "semantic")
HURRIED: Final[dict[str, Any]] = {"debounce": 0.05, "request_seconds": 0.5, "backoff_seconds": 0.05}


class Line:
    """The agent's way to the API server, and what may be asked of it."""

    def __init__(self, api: FakeApi, relay: Relay, folder: Path) -> None:
        self.api = api
        self.relay = relay
        api.url = f"http://127.0.0.1:{relay.port}"
        self.kubeconfig = api.kubeconfig(folder)
        self.most = 0

    def connections(self) -> int:
        """The agent's connections to the relay: its ends, not the relay's."""
        found = [
            one
            for one in psutil.Process().net_connections("tcp4")
            if one.raddr and one.raddr.port == self.relay.port and one.status == psutil.CONN_ESTABLISHED
        ]
        return len(found)

    async def count(self) -> None:
        """Remember the most connections ever seen, until cancelled."""
        while True:
            self.most = max(self.most, self.connections())
            await asyncio.sleep(0.02)


@asynccontextmanager
async def line(folder: Path) -> AsyncIterator[Line]:
    """A server, and a whole line to it."""
    async with fake_api() as api:
        port = int(api.url.rpartition(":")[2])
        # Its thread forwards to the loop of this test: entered and left without blocking that loop.
        relay = Relay(port)
        await asyncio.to_thread(relay.__enter__)
        made = Line(api, relay, folder)
        counting = asyncio.create_task(made.count())
        try:
            yield made
        finally:
            counting.cancel()
            await asyncio.to_thread(relay.__exit__)


def stored(api: FakeApi) -> dict[str, bool]:
    """Which types are ready in the stored report."""
    report = api.report("n1") or {"capabilities": []}
    return {item["type"]: item["ready"] for item in report["capabilities"]}


def stamps(api: FakeApi) -> list[tuple[int, int]]:
    """Epoch and sequence of each report that was accepted."""
    return [(write.report["epoch"], write.report["sequence"]) for write in api.writes]


def is_write(request: web.Request) -> bool:
    """Whether a report is written."""
    return request.path.endswith("/status")
