"""The watches of all kinds, by kopf and raw, against a real HTTP server that ends them or falls silent (C3)."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kopf._cogs.aiokits import aiotasks
from tests.support.builders import kube_node_object
from tests.support.jumping_clock import jump, jumping
from tests.support.recording_api import discovery

from hotpool.api.meta import LEASE_PREFIX
from hotpool.clock import Clock
from hotpool.common.kubeconfig import Target
from hotpool.core.model import CUSTOM_KINDS
from hotpool.kube import custom_resource_watch, list_watch, watch_keeper
from hotpool.kube.client import Connection, connected
from hotpool.kube.lease_watch import LeaseWatch
from hotpool.kube.node_watch import NodeWatch

Json = dict[str, Any]
ALL = {*(kind.value for kind in CUSTOM_KINDS), "leases", "nodes"}
LISTED = "5"
LIMIT = str(watch_keeper.WATCH_SECONDS)
OBJECTS = 200
TURNS = 1500


class Server:
    """Serves empty lists of version 5, and watches as `watch` says; `watch` gets kind, number and stream."""

    def __init__(self, watch: Callable[[str, int, web.StreamResponse], Any]) -> None:
        self.lists: Counter[str] = Counter()
        self.watches: dict[str, list[tuple[str, str]]] = defaultdict(list)
        """Kind → version and time limit of each watch."""
        self._watch = watch

    async def handle(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.rpartition("/")[2]
        if kind not in ALL or request.path.count("/") < 3:
            return web.json_response(discovery(request.path))
        if "watch" not in request.query:
            self.lists[kind] += 1
            return web.json_response({"metadata": {"resourceVersion": LISTED}, "items": []})
        self.watches[kind].append((request.query["resourceVersion"], request.query.get("timeoutSeconds", "")))
        stream = web.StreamResponse()
        with suppress(ConnectionError):
            await stream.prepare(request)
            await self._watch(kind, len(self.watches[kind]), stream)
        return stream


class Received:
    """Receives what all watches deliver. `names`: kind → names of objects."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = defaultdict(list)

    def on_object(self, kind: Any, _event: str | None, body: Any) -> None:
        self.names[kind.value].append(body["metadata"]["name"])

    def on_heartbeats(self, beats: Any) -> None:
        self.names["leases"] += [beat.node for beat in beats]

    def on_probe_received(self, renewed: str) -> None:
        raise AssertionError(f"no probe was sent: {renewed}")

    def on_watch_lost(self) -> None:
        pass

    def on_watch_restored(self, *, listed: bool = True) -> None:
        pass


def event(kind: str, name: str, version: int) -> bytes:
    """Return a line of a watch: the object of the kind was added."""
    if kind == "leases":
        spec = {"holderIdentity": "i/1", "leaseDurationSeconds": 45, "renewTime": "t1"}
        body: Json = {"metadata": {"name": f"{LEASE_PREFIX}{name}", "uid": name}, "spec": spec}
    elif kind == "nodes":
        body = kube_node_object(name)
    else:
        body = {"kind": "X", "apiVersion": "hotpool.dev/v1alpha1", "metadata": {"name": name, "uid": name}}
    body["metadata"]["resourceVersion"] = str(version)
    return json.dumps({"type": "ADDED", "object": body}).encode() + b"\n"


def kubeconfig(folder: Path, url: str) -> str:
    path = folder / "kubeconfig"
    clusters, contexts = [{"name": "c", "cluster": {"server": url}}], [{"name": "c", "context": {"cluster": "c"}}]
    content = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": clusters, "contexts": contexts}
    path.write_text(json.dumps(content))
    return str(path)


@asynccontextmanager
async def watching(server: Server, folder: Path) -> AsyncIterator[tuple[Connection, Received, asyncio.Task[None]]]:
    """Run the watches of all kinds; yield also the task of kopf."""
    routes, received, stop = web.Application(), Received(), asyncio.Event()
    routes.router.add_route("GET", "/{tail:.*}", server.handle)
    http = TestServer(routes)
    await http.start_server(shutdown_timeout=0.1)
    url = str(http.make_url("/")).rstrip("/")
    async with connected(Target(kubeconfig(folder, url))) as connection:
        parts = [
            connection.watches.run(sorted(ALL)),
            LeaseWatch(connection.api, "fleet", received, Clock()).run(),
            NodeWatch(connection.api, received.on_object, Clock()).run(),
        ]
        tasks = [asyncio.ensure_future(part) for part in parts]
        handlers = custom_resource_watch.registry(received.on_object, connection)
        kopf = asyncio.create_task(
            custom_resource_watch.watch(
                handlers, "fleet", handle_signals=lambda: None, ready=asyncio.Event(), stop=stop
            )
        )
        try:
            yield connection, received, kopf
        finally:
            for task in tasks:
                task.cancel()
            stop.set()
            await http.close()
            await kopf


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the condition. The limit is counted in turns: a test that is interrupted from outside hangs in kopf."""
    for _ in range(TURNS):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition does not come")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten times: a watch is silent after 0.4 s and given up after 0.8 s."""
    values = {"_TICK": 0.05, "_LONGEST_TICK": 0.1, "SILENT": 0.4, "REPLACE": 0.8, "_FLOOR": 0.05}
    for name, seconds in values.items():
        monkeypatch.setattr(watch_keeper, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(list_watch, "_FIRST_DELAY", 0.05)


@pytest.mark.usefixtures("fast")
async def test_idle_watches_that_the_server_ends_are_continued_without_a_list_and_never_silent(tmp_path: Path) -> None:
    async def end(_kind: str, _number: int, _stream: web.StreamResponse) -> None:
        await asyncio.sleep(0.1)

    server = Server(end)
    async with watching(server, tmp_path) as (connection, _, _):
        await until(lambda: set(server.watches) == ALL and not connection.watches.problem())
        await until(lambda: all(len(watches) >= 6 for watches in server.watches.values()))
        assert server.lists == dict.fromkeys(ALL, 1)
        assert {watch for watches in server.watches.values() for watch in watches} == {(LISTED, LIMIT)}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("headers", [True, False])
async def test_silent_watches_of_all_kinds_are_named_and_replaced_without_a_list(
    tmp_path: Path, *, headers: bool
) -> None:
    async def fall_silent(kind: str, number: int, stream: web.StreamResponse) -> None:
        if number > 1:
            await stream.write(event(kind, "n1", 7))
        await asyncio.Event().wait()

    class Mute(Server):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            if not headers and "watch" in request.query and not self.watches[request.path.rpartition("/")[2]]:
                self.watches[request.path.rpartition("/")[2]].append((LISTED, LIMIT))
                await asyncio.Event().wait()
            return await super().handle(request)

    server = Mute(fall_silent)
    async with watching(server, tmp_path) as (connection, received, _):
        await until(lambda: set(server.watches) == ALL)
        named: set[str] = set()

        def replaced() -> bool:
            named.update(kind for kind in ALL if kind in connection.watches.problem())
            return all(received.names[kind] for kind in ALL)

        await until(replaced)
        assert named == ALL
        assert server.lists == dict.fromkeys(ALL, 1)
        assert {watches[1][0] for watches in server.watches.values()} == {LISTED}


@jumping
async def test_a_stall_of_the_loop_while_kopf_passes_an_event_on_ends_no_watch(tmp_path: Path) -> None:
    """After a stall all due timers fire, whatever the task is doing that they cancel."""

    async def burst(kind: str, _number: int, stream: web.StreamResponse) -> None:
        await until(lambda: set(server.watches) == ALL)
        for number in range(OBJECTS):
            await stream.write(event(kind, f"n{number}", 10 + number))
        await asyncio.Event().wait()

    spawn = aiotasks.Scheduler.spawn

    async def stalled(scheduler: Any, coro: Any, *, name: str | None = None) -> None:
        if "nodepools" in str(name) and "'n10'" in str(name):
            jump(400)
        await asyncio.sleep(0)
        await spawn(scheduler, coro, name=name)

    server = Server(burst)
    with mock.patch.object(aiotasks.Scheduler, "spawn", stalled):
        async with watching(server, tmp_path) as (connection, received, kopf):
            await until(lambda: kopf.done() or {len(set(received.names[kind])) for kind in ALL} == {OBJECTS})
            assert not kopf.done()
            await until(lambda: not connection.watches.problem())
            assert server.lists == dict.fromkeys(ALL, 1)
