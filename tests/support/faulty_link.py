"""The agent's connection to a fake API server, through a relay that injects faults."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from aiohttp import web
from tests.support.fake_api import FakeApi, fake_api

from localfleet.relay import Relay

SERVICE_NAMES: Final = ("asr", "nmt", "tts", "semantic")
SHORT_TIMES: Final[dict[str, Any]] = {"debounce": 0.05, "request_seconds": 0.5, "backoff_seconds": 0.05}


class FaultyLink:
    """A fake API server behind a relay, and the agent's kubeconfig for it. `most`: the most connections so far."""

    def __init__(self, api: FakeApi, relay: Relay, folder: Path) -> None:
        self.api = api
        self.relay = relay
        api.url = f"http://127.0.0.1:{relay.port}"
        self.kubeconfig = api.kubeconfig(folder)
        self.most = 0

    def connections(self) -> int:
        """Return the number of the agent's connections to the relay: its ends, not the relay's."""
        port, connections = self.relay.port, psutil.Process().net_connections("tcp4")
        return sum(bool(c.raddr) and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in connections)

    async def count(self) -> None:
        """Record the largest number of connections, until cancelled."""
        while True:
            self.most = max(self.most, self.connections())
            await asyncio.sleep(0.02)


@asynccontextmanager
async def faulty_link(folder: Path) -> AsyncIterator[FaultyLink]:
    """Run a server, and a relay to it without faults."""
    async with fake_api() as api:
        port = int(api.url.rpartition(":")[2])
        # The relay's thread forwards to the loop of this test, which start and stop must not block.
        relay = Relay(port)
        await asyncio.to_thread(relay.__enter__)
        link = FaultyLink(api, relay, folder)
        counting = asyncio.create_task(link.count())
        try:
            yield link
        finally:
            counting.cancel()
            await asyncio.to_thread(relay.__exit__)


def ready_types(api: FakeApi) -> dict[str, bool]:
    """Return type → ready of the stored report."""
    report = api.report("n1") or {"capabilities": []}
    return {item["type"]: item["ready"] for item in report["capabilities"]}


def report_versions(api: FakeApi) -> list[tuple[int, int]]:
    """Return epoch and sequence of each accepted report."""
    return [(write.report["epoch"], write.report["sequence"]) for write in api.writes]


def is_write(request: web.Request) -> bool:
    """Return True for the write of a report."""
    return request.path.endswith("/status")
