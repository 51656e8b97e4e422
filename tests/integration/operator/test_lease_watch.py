"""The Lease watch against a real HTTP server that sends more than fits one read (requirement C2)."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from hotpool.clock import Clock
from hotpool.core.model import Heartbeat
from hotpool.kube import lease_watch
from hotpool.kube.lease_watch import LeaseWatch

LINES = 6000
PADDING = "x" * 600


def line(number: int) -> bytes:
    spec = {"holderIdentity": "i/1", "leaseDurationSeconds": 45, "renewTime": f"t{number}"}
    metadata = {"name": f"hotpool-node-n{number}", "resourceVersion": str(number + 2), "labels": {"padding": PADDING}}
    return json.dumps({"type": "MODIFIED", "object": {"metadata": metadata, "spec": spec}}).encode() + b"\n"


class RecordingObserver:
    """Records heartbeats."""

    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []

    def on_heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        self.beats += beats

    def on_probe_received(self, renewed: str) -> None:
        raise AssertionError(f"no probe was sent: {renewed}")

    def on_watch_lost(self) -> None:
        raise AssertionError("the watch is connected")

    def on_watch_restored(self, *, listed: bool = True) -> None:
        pass


async def serve(request: web.Request) -> web.StreamResponse:
    if "watch" not in request.query:
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
    stream = web.StreamResponse()
    await stream.prepare(request)
    await stream.write(b"".join(map(line, range(LINES))))
    await asyncio.Event().wait()
    return stream


@pytest.mark.timeout(30)
async def test_a_backlog_is_read_with_few_pauses_and_no_line_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_watch, "_BATCH_PAUSE_SECONDS", 0.5)
    app = web.Application()
    app.router.add_get("/apis/coordination.k8s.io/v1/namespaces/fleet/leases", serve)
    observer = RecordingObserver()
    pauses: list[float] = []
    pause = lease_watch._pause  # noqa: SLF001 - the pauses are private.

    async def counted(response: object) -> None:
        pauses.append(asyncio.get_running_loop().time())
        await pause(response)

    monkeypatch.setattr(lease_watch, "_pause", counted)
    async with TestServer(app) as server:
        api = client.ApiClient(client.Configuration(host=str(server.make_url("/")).rstrip("/")))
        async with api, asyncio.TaskGroup() as group:
            running = group.create_task(LeaseWatch(api, "fleet", observer, Clock()).run())
            while len(observer.beats) < LINES:  # noqa: ASYNC110 - ended by the hang guard.
                await asyncio.sleep(0.01)
            running.cancel()
    assert [beat.node for beat in observer.beats] == [f"n{number}" for number in range(LINES)]
    assert len(pauses) <= LINES * len(line(0)) / lease_watch.BACKLOG_BYTES / 4
