"""v1 Nodes from their stream to what is written, and in what people ask (requirements C5, C7, D2, D4, D9, F2, F5)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client
from tests.support.builders import condition, kube_node_object, node_object, pool_object, report, requires, service
from tests.support.read_api import ReadApi, read_api, viewer_rules
from tests.support.simulated_fleet import FakeApi, Fleet, operator, refusing, simulated, until
from typer.testing import CliRunner

from hotpool.__main__ import app
from hotpool.api.meta import ELECTION_LEASE, KUBE_NODES_ANNOTATION
from hotpool.core.model import Kind
from hotpool.kube import list_watch
from hotpool.kube.node_watch import NodeWatch

Json = dict[str, Any]

SITE = {"nodeSelector": {"matchLabels": {"site": "a"}}}


def small(*, cordoned: bool = False) -> FakeApi:
    """A v1 Node in site a with an agent, and an agent outside; a pool of all and a pool of the site."""
    api = FakeApi()
    api.put(kube_node_object("n0", labels={"site": "a"}, cordoned=cordoned))
    for name in ("n0", "n1"):
        api.put(node_object(name, report(service("q", "llm"))))
    api.put(pool_object("llm", requires=requires("llm")))
    api.put(pool_object("here", requires=SITE))
    return api


def owners(api: FakeApi, name: str) -> list[str]:
    return [o["uid"] for o in api.objects[Kind.NODE][name]["metadata"].get("ownerReferences") or []]


def made_again(api: FakeApi, name: str) -> str:
    """The v1 Node is deleted and another one has its name, while nobody watches; the uid of the new one."""
    feed, api.feed = api.feed, None
    del api.objects[Kind.KUBE_NODE][name]
    again = api.put(kube_node_object(name, labels={"site": "a"}))
    api.feed = feed
    return str(again["metadata"]["uid"])


@simulated
async def test_a_cordon_is_published_at_once_and_ends() -> None:
    api = small()
    async with operator(api, follows=True) as fleet:
        await fleet.beating(2)
        assert api.members("here") == {"n0": "Ready"}
        api.edit(Kind.KUBE_NODE, "n0", {"spec": {"unschedulable": True}})
        assert await until(lambda: api.members("here") == {"n0": "Draining"}) < 0.1
        await until(lambda: api.conditions(Kind.NODE, "n0")["Draining"] == ("True", "Cordoned"))
        assert api.members("llm") == {"n0": "Draining", "n1": "Ready"}
        api.edit(Kind.KUBE_NODE, "n0", {"spec": {"unschedulable": None}})
        await until(lambda: api.members("llm") == {"n0": "Ready", "n1": "Ready"})


@simulated
async def test_what_the_kubelet_says_each_five_minutes_is_neither_written_nor_asked() -> None:
    api = small(cordoned=True)
    async with operator(api, follows=True) as fleet:
        await fleet.beating(15)
        writes, asked = len(api.writes), api.requests.copy()
        for beat in range(20):
            api.edit(Kind.KUBE_NODE, "n0", {"status": {"images": [f"{beat}"]}})
            await fleet.beating(1)
        assert (len(api.writes), api.requests) == (writes, asked)


@simulated
async def test_without_the_setting_a_node_means_nothing_and_is_not_asked_for() -> None:
    api = small(cordoned=True)
    api.fault = refusing(403, kind=Kind.KUBE_NODE)
    async with operator(api) as fleet:
        await fleet.beating(15)
        assert api.members("llm") == {"n0": "Ready", "n1": "Ready"}
        assert (api.members("here"), owners(api, "n0")) == ({}, [])


@simulated
async def test_a_node_owns_the_capability_of_its_name_and_takes_it_along() -> None:
    api = small()
    async with operator(api, follows=True) as fleet:
        await fleet.beating(15)
        assert (owners(api, "n0"), owners(api, "n1")) == (["uid-kube-n0"], [])
        writes = len(api.writes)
        await fleet.beating(15)
        assert len(api.writes) == writes
        api.delete(Kind.KUBE_NODE, "n0")
        await until(lambda: api.members("llm") == {"n1": "Ready"})
        assert "n0" not in api.objects[Kind.NODE]


@simulated
async def test_after_a_restart_the_owner_is_known_and_nothing_is_written() -> None:
    api = small(cordoned=True)
    async with operator(api, follows=True) as fleet:
        await fleet.beating(12)
    writes = len(api.writes)
    async with operator(api, follows=True) as fleet:
        await fleet.beating(12)
        assert len(api.writes) == writes


@simulated
async def test_a_node_that_only_a_deaf_stream_still_knows_owns_nothing() -> None:
    api = small()
    del api.objects[Kind.NODE]["n0"]
    async with operator(api, follows=True) as fleet:
        uid = made_again(api, "n0")
        api.put(node_object("n0", report(service("q", "llm"))))
        assert await until(lambda: owners(api, "n0") == [uid]) < 1
        assert fleet.state.kube_nodes["n0"].meta.uid == uid
        assert [w.verb for w in api.written(Kind.NODE, "n0")].count("patch") == 1


@simulated
async def test_an_owner_is_not_given_while_the_api_server_cannot_be_asked() -> None:
    api = small()
    del api.objects[Kind.NODE]["n0"]
    async with operator(api, follows=True) as fleet:
        api.fault = refusing(403, kind=Kind.KUBE_NODE)
        api.put(node_object("n0", report(service("q", "llm"))))
        await fleet.beating(40)
        assert (owners(api, "n0"), api.members("here")) == ([], {"n0": "Ready"})
        api.fault = None
        await until(lambda: owners(api, "n0") == ["uid-kube-n0"])


@simulated
async def test_the_audit_finds_what_the_stream_missed_and_asks_before_it_believes() -> None:
    api = small(cordoned=True)
    async with operator(api, follows=True) as fleet:
        await fleet.beating(15)  # the first audit is over
        feed, api.feed = api.feed, None
        api.edit(Kind.KUBE_NODE, "n0", {"spec": {"unschedulable": None}})
        await fleet.reconciler.resync.run()
        assert fleet.state.pools["here"].members == {"n0": "Ready"}
        gone = api.objects[Kind.KUBE_NODE].pop("n0")
        api.fault = refusing(503, kind=Kind.KUBE_NODE, verb="get")
        await fleet.reconciler.resync.run()
        assert fleet.state.pools["here"].members == {"n0": "Ready"}
        api.fault = None
        await fleet.reconciler.resync.run()
        assert fleet.state.pools["here"].members == {}
        api.objects[Kind.KUBE_NODE]["n0"] = gone
        api.feed = feed


@simulated
async def test_nothing_is_written_before_nodes_are_listed() -> None:
    api = small(cordoned=True)
    async with operator(api, follows=True) as fleet:
        await fleet.beating(12)
    assert api.members("here") == {"n0": "Draining"}
    writes = len(api.writes)
    api.fault = refusing(403, kind=Kind.KUBE_NODE)
    fleet = Fleet(api, follows=True)
    fleet.leases_listed()
    fleet.watch()
    opening = asyncio.create_task(fleet.reconciler.open_gate())
    await asyncio.sleep(600)
    assert (fleet.state.gate_open, opening.done(), len(api.writes)) == (False, False, writes)
    api.fault = None
    await opening
    await fleet.lead()
    await fleet.beating(12)
    assert (api.members("here"), len(api.writes)) == ({"n0": "Draining"}, writes)
    await fleet.stop()


# The stream, against a real HTTP server.


class Server:
    """Lists Nodes in pages of one, and sends the lines that it is given."""

    def __init__(self) -> None:
        self.nodes: dict[str, Json] = {}
        self.refused = 0
        self.lists: list[str] = []
        self.watches: list[str] = []
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.refused:
            return web.json_response({"kind": "Status", "message": "as told"}, status=self.refused)
        if "watch" in request.query:
            return await self._watch(request)
        self.lists.append(request.query.get("continue", ""))
        found, start = sorted(self.nodes), int(request.query.get("continue", "0"))
        more = str(start + 1) if start + 1 < len(found) else ""
        metadata = {"resourceVersion": f"{100 + len(self.lists)}", "continue": more}
        return web.json_response({"metadata": metadata, "items": [self.nodes[n] for n in found[start : start + 1]]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches.append(request.query["resourceVersion"])
        stream = web.StreamResponse()
        await stream.prepare(request)
        while (line := await self.lines.get()) is not None:
            await stream.write(line)
        return stream

    def send(self, event: str, body: Json) -> None:
        self.lines.put_nowait(json.dumps({"type": event, "object": body}).encode() + b"\n")


class Heard:
    """What the stream fed."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, str]] = []
        self.bodies: list[Json] = []

    def feed(self, kind: Kind, event: str | None, body: Any) -> None:
        assert kind is Kind.KUBE_NODE
        self.events.append((event, body["metadata"]["name"]))
        self.bodies.append(body)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 - ended by the hang guard.
            await asyncio.sleep(0.01)


@asynccontextmanager
async def streaming(server: Server) -> AsyncIterator[tuple[NodeWatch, Heard]]:
    routes, heard = web.Application(), Heard()
    routes.router.add_get("/api/v1/nodes", server.answer)
    async with TestServer(routes) as http:
        api = client.ApiClient(client.Configuration(host=str(http.make_url("/")).rstrip("/")))
        async with api:
            stream = NodeWatch(api, heard.feed)
            running = asyncio.create_task(stream.run())
            try:
                yield stream, heard
            finally:
                running.cancel()
                server.lines.put_nowait(None)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_watch, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(list_watch, "_LONGEST_DELAY", 0.02)


@pytest.mark.timeout(30)
async def test_nodes_are_listed_in_pages_and_only_what_matters_is_kept() -> None:
    server = Server()
    server.nodes = {name: kube_node_object(name, labels={"site": "a"}) for name in ("n0", "n1", "n2")}
    async with streaming(server) as (stream, heard):
        await stream.listed.wait()
        await heard.until(lambda: bool(server.watches))
        assert (server.lists, server.watches, stream.error) == (["", "1", "2"], ["103"], "")
        assert heard.events == [(None, "n0"), (None, "n1"), (None, "n2")]
        metadata = {"name": "n0", "uid": "uid-kube-n0", "resourceVersion": "1", "labels": {"site": "a"}}
        assert heard.bodies[0] == {"metadata": metadata, "spec": {"unschedulable": False}}
        server.send("MODIFIED", kube_node_object("n1", version=110, cordoned=True))
        server.send("BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": "115"}})
        server.send("DELETED", kube_node_object("n2", version=120))
        await heard.until(lambda: len(heard.events) == 5)
        assert heard.events[3:] == [("MODIFIED", "n1"), ("DELETED", "n2")]
        assert heard.bodies[3]["spec"] == {"unschedulable": True}


@pytest.mark.timeout(30)
async def test_a_watch_that_ends_goes_on_from_its_last_line_and_an_expired_one_is_listed_anew() -> None:
    server = Server()
    server.nodes = {"n0": kube_node_object("n0")}
    async with streaming(server) as (stream, heard):
        await stream.listed.wait()
        server.send("BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": "115"}})
        server.lines.put_nowait(None)
        await heard.until(lambda: server.watches == ["101", "115"])
        server.send("ERROR", {"kind": "Status", "code": 410, "metadata": {}})
        await heard.until(lambda: len(server.lists) == 2)
        assert heard.events == [(None, "n0")] * 2


@pytest.mark.timeout(30)
async def test_a_refusal_is_told_and_tried_again_for_ever() -> None:
    server = Server()
    server.nodes, server.refused = {"n0": kube_node_object("n0")}, 403
    async with streaming(server) as (stream, heard):
        await heard.until(lambda: "403" in stream.error)
        assert "cannot list nodes: 403 Forbidden: as told" in stream.error
        assert not stream.listed.is_set()
        server.refused = 0
        await stream.listed.wait()
        server.refused = 403
        server.lines.put_nowait(None)
        await heard.until(lambda: "cannot watch nodes: 403" in stream.error or "cannot list nodes" in stream.error)
        assert heard.events == [(None, "n0")]
        server.refused = 0
        await heard.until(lambda: not stream.error)


# What people ask.


class Done:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Awaitable[Done]]
LEASE: Json = {"kind": "Lease", "metadata": {"name": ELECTION_LEASE, "annotations": {KUBE_NODES_ANNOTATION: "true"}}}
POOL = yaml.safe_dump({**pool_object("here", requires=requires("asr")), "metadata": {"name": "here"}})
ASKED = (("why", "n0", "here"), ("why", "--pool", "here"), ("why", "--node", "n0"), ("diff", "-f", "-"))


@pytest.fixture
async def reads() -> AsyncIterator[ReadApi]:
    """The small fleet, of which the operator follows v1 Nodes."""
    async with read_api() as api:
        api.put(LEASE, kube_node_object("n0", labels={"site": "a"}, cordoned=True), pool_object("here", requires=SITE))
        for name in ("n0", "n1"):
            api.put(node_object(name, report(service("q", "llm")), conditions=[condition()]))
        yield api


@pytest.fixture
def hotpool(reads: ReadApi, tmp_path: Path) -> Run:
    """Runs `hotpool` in this process, beside the server."""
    words_for = ("--kubeconfig", str(reads.kubeconfig(tmp_path)))

    async def run(*words: str) -> Done:
        runner = CliRunner(env={"COLUMNS": "80"})
        result = await asyncio.to_thread(runner.invoke, app, [*words, *words_for], input=POOL)
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


async def test_why_and_diff_see_what_the_operator_sees(hotpool: Run, reads: ReadApi) -> None:
    found = json.loads((await hotpool("why", "n0", "here", "-o", "json")).out)
    assert found["verdict"] == {"state": "Draining", "criterion": None}
    assert found["remarks"][0]["remedies"] == ["kubectl uncordon n0"]
    assert json.loads((await hotpool("why", "n1", "here", "-o", "json")).out)["verdict"]["criterion"] == "NodeSelector"
    survey = json.loads((await hotpool("why", "--pool", "here", "-o", "json")).out)
    assert (survey["pending"], survey["out"]) == (1, 1)
    (of_node,) = json.loads((await hotpool("why", "--node", "n0", "-o", "json")).out)["pools"]
    assert of_node["verdict"]["state"] == "Draining"
    (change,) = json.loads((await hotpool("diff", "-f", "-", "-o", "json")).out)["pools"]
    assert (change["membersAfter"], [item["node"] for item in change["leaves"]]) == (0, ["n0"])
    reads.put({**LEASE, "metadata": {"name": ELECTION_LEASE, "annotations": {KUBE_NODES_ANNOTATION: "false"}}})
    assert json.loads((await hotpool("why", "n0", "here", "-o", "json")).out)["verdict"]["criterion"] == "NodeSelector"


@pytest.mark.parametrize("words", ASKED)
async def test_who_may_not_read_nodes_is_told_so_instead_of_a_wrong_answer(
    hotpool: Run, reads: ReadApi, words: tuple[str, ...]
) -> None:
    reads.refused = {"nodes": 403}
    done = await hotpool(*words)
    assert (done.code, done.out, len(done.err.splitlines())) == (4, "", 1)
    assert "the operator follows v1 Nodes" in done.err
    assert "ClusterRole hotpool-fleet-viewer" in done.err
    reads.objects["leases"].clear()
    assert (await hotpool(*words)).code in {0, 1}


async def test_the_commands_ask_of_nodes_exactly_what_the_viewer_may(hotpool: Run, reads: ReadApi) -> None:
    for words in ASKED:
        await hotpool(*words)
    (rule,) = viewer_rules("ClusterRole")
    assert {verb for verb, group, what in reads.asked if (group, what) == ("", "nodes")} == set(rule["verbs"])
