"""v1 Nodes from their watch to writes, and in `why` and `diff` (requirements C5, C7, D2, D4, D9, F2, F5)."""

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
from click.testing import CliRunner
from kubernetes.aio import client
from tests.support.builders import condition, kube_node_object, node_object, pool_object, report, requires, service
from tests.support.read_api import ReadApi, read_api, viewer_rules
from tests.support.simulated_fleet import FakeApi, Fleet, operator, refusing, simulated, until

from hotpool.api.meta import ELECTION_LEASE, KUBE_NODES_ANNOTATION
from hotpool.cli.program import app
from hotpool.clock import Clock
from hotpool.core.model import Kind
from hotpool.kube import list_watch
from hotpool.kube.node_watch import NodeWatch

Json = dict[str, Any]

SITE = {"nodeSelector": {"matchLabels": {"site": "a"}}}


def two_nodes(*, cordoned: bool = False) -> FakeApi:
    """Return an API server: a v1 Node in site a with an agent, an agent outside, pools of all and of the site."""
    api = FakeApi()
    api.put(kube_node_object("n0", labels={"site": "a"}, cordoned=cordoned))
    for name in ("n0", "n1"):
        api.put(node_object(name, report(service("q", "llm"))))
    api.put(pool_object("llm", requires=requires("llm")))
    api.put(pool_object("here", requires=SITE))
    return api


def owners(api: FakeApi, name: str) -> list[str]:
    return [o["uid"] for o in api.objects[Kind.NODE][name]["metadata"].get("ownerReferences") or []]


def recreate_node(api: FakeApi, name: str) -> str:
    """Delete a v1 Node and create another one of its name, without events; return the uid of the new one."""
    feed, api.feed = api.feed, None
    del api.objects[Kind.KUBE_NODE][name]
    recreated = api.put(kube_node_object(name, labels={"site": "a"}))
    api.feed = feed
    return str(recreated["metadata"]["uid"])


@simulated
async def test_a_cordon_and_its_end_are_published_at_once() -> None:
    api = two_nodes()
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(2)
        assert api.members("here") == {"n0": "Ready"}
        api.edit(Kind.KUBE_NODE, "n0", {"spec": {"unschedulable": True}})
        assert await until(lambda: api.members("here") == {"n0": "Draining"}) < 0.1
        await until(lambda: api.conditions(Kind.NODE, "n0")["Draining"] == ("True", "Cordoned"))
        assert api.members("llm") == {"n0": "Draining", "n1": "Ready"}
        api.edit(Kind.KUBE_NODE, "n0", {"spec": {"unschedulable": None}})
        await until(lambda: api.members("llm") == {"n0": "Ready", "n1": "Ready"})


@simulated
async def test_status_updates_of_a_kubelet_cause_no_request() -> None:
    api = two_nodes(cordoned=True)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(15)
        writes, requests = len(api.writes), api.requests.copy()
        for beat in range(20):
            api.edit(Kind.KUBE_NODE, "n0", {"status": {"images": [f"{beat}"]}})
            await fleet.beating(1)
        assert (len(api.writes), api.requests) == (writes, requests)


@simulated
async def test_without_the_setting_v1_nodes_are_neither_read_nor_used() -> None:
    api = two_nodes(cordoned=True)
    api.fault = refusing(403, kind=Kind.KUBE_NODE)
    async with operator(api) as fleet:
        await fleet.beating(15)
        assert api.members("llm") == {"n0": "Ready", "n1": "Ready"}
        assert (api.members("here"), owners(api, "n0")) == ({}, [])


@simulated
async def test_a_node_owns_the_capability_of_its_name_and_its_deletion_deletes_it() -> None:
    api = two_nodes()
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(15)
        assert (owners(api, "n0"), owners(api, "n1")) == (["uid-kube-n0"], [])
        writes = len(api.writes)
        await fleet.beating(15)
        assert len(api.writes) == writes
        api.delete(Kind.KUBE_NODE, "n0")
        await until(lambda: api.members("llm") == {"n1": "Ready"})
        assert "n0" not in api.objects[Kind.NODE]


@simulated
async def test_a_restart_with_stored_owners_writes_nothing() -> None:
    api = two_nodes(cordoned=True)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(12)
    writes = len(api.writes)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(12)
        assert len(api.writes) == writes


@simulated
async def test_a_deleted_node_that_a_stale_watch_still_has_becomes_no_owner() -> None:
    api = two_nodes()
    del api.objects[Kind.NODE]["n0"]
    async with operator(api, kube_nodes=True) as fleet:
        uid = recreate_node(api, "n0")
        api.put(node_object("n0", report(service("q", "llm"))))
        assert await until(lambda: owners(api, "n0") == [uid]) < 1
        assert fleet.cache.kube_nodes["n0"].meta.uid == uid
        assert [w.verb for w in api.written(Kind.NODE, "n0")].count("patch") == 1


@simulated
async def test_an_owner_is_not_set_while_the_node_cannot_be_read() -> None:
    api = two_nodes()
    del api.objects[Kind.NODE]["n0"]
    async with operator(api, kube_nodes=True) as fleet:
        api.fault = refusing(403, kind=Kind.KUBE_NODE)
        api.put(node_object("n0", report(service("q", "llm"))))
        await fleet.beating(40)
        assert (owners(api, "n0"), api.members("here")) == ([], {"n0": "Ready"})
        api.fault = None
        await until(lambda: owners(api, "n0") == ["uid-kube-n0"])


@simulated
async def test_a_resync_finds_missed_events_and_confirms_a_deletion_by_a_get() -> None:
    api = two_nodes(cordoned=True)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(15)  # the first resync is over
        feed, api.feed = api.feed, None
        api.edit(Kind.KUBE_NODE, "n0", {"spec": {"unschedulable": None}})
        await fleet.manager.compare()
        assert fleet.cache.pools["here"].members == {"n0": "Ready"}
        deleted = api.objects[Kind.KUBE_NODE].pop("n0")
        api.fault = refusing(503, kind=Kind.KUBE_NODE, verb="get")
        await fleet.manager.compare()
        assert fleet.cache.pools["here"].members == {"n0": "Ready"}
        api.fault = None
        await fleet.manager.compare()
        assert fleet.cache.pools["here"].members == {}
        api.objects[Kind.KUBE_NODE]["n0"] = deleted
        api.feed = feed


@simulated
async def test_nothing_is_written_before_nodes_are_listed() -> None:
    api = two_nodes(cordoned=True)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(12)
    assert api.members("here") == {"n0": "Draining"}
    writes = len(api.writes)
    api.fault = refusing(403, kind=Kind.KUBE_NODE)
    fleet = Fleet(api, kube_nodes=True)
    fleet.list_leases()
    fleet.watch()
    opening = asyncio.create_task(fleet.manager.open_gate())
    await asyncio.sleep(600)
    assert (fleet.cache.gate_open, opening.done(), len(api.writes)) == (False, False, writes)
    api.fault = None
    await opening
    await fleet.lead()
    await fleet.beating(12)
    assert (api.members("here"), len(api.writes)) == ({"n0": "Draining"}, writes)
    await fleet.stop()


# The watch, against a real HTTP server.


class Server:
    """Lists Nodes in pages of one, and sends the lines of a queue."""

    def __init__(self) -> None:
        self.nodes: dict[str, Json] = {}
        self.refused = 0
        self.lists: list[str] = []
        self.watches: list[str] = []
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.refused:
            return web.json_response({"kind": "Status", "message": "refused by the test"}, status=self.refused)
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


class ReceivedEvents:
    """The events that the watch delivered."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, str]] = []
        self.bodies: list[Json] = []

    def feed(self, kind: Kind, event: str | None, body: Any) -> None:
        assert kind is Kind.KUBE_NODE
        self.events.append((event, body["metadata"]["name"]))
        self.bodies.append(body)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - ended by the hang guard.
            await asyncio.sleep(0.01)


@asynccontextmanager
async def streaming(server: Server) -> AsyncIterator[tuple[NodeWatch, ReceivedEvents]]:
    routes, received = web.Application(), ReceivedEvents()
    routes.router.add_get("/api/v1/nodes", server.answer)
    async with TestServer(routes) as http:
        api = client.ApiClient(client.Configuration(host=str(http.make_url("/")).rstrip("/")))
        async with api:
            watch = NodeWatch(api, received.feed, Clock())
            running = asyncio.create_task(watch.run())
            try:
                yield watch, received
            finally:
                running.cancel()
                server.lines.put_nowait(None)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_watch, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(list_watch, "_LONGEST_DELAY", 0.02)


@pytest.mark.timeout(30)
async def test_nodes_are_listed_in_pages_and_reduced_to_the_needed_fields() -> None:
    server = Server()
    server.nodes = {name: kube_node_object(name, labels={"site": "a"}) for name in ("n0", "n1", "n2")}
    async with streaming(server) as (watch, received):
        await watch.listed.wait()
        await received.until(lambda: bool(server.watches))
        assert (server.lists, server.watches, watch.error) == (["", "1", "2"], ["103"], "")
        assert received.events == [(None, "n0"), (None, "n1"), (None, "n2")]
        metadata = {"name": "n0", "uid": "uid-kube-n0", "resourceVersion": "1", "labels": {"site": "a"}}
        spec, status = (
            {"unschedulable": False, "taints": None},
            {key: server.nodes["n0"]["status"][key] for key in ("conditions", "addresses")},
        )
        assert received.bodies[0] == {"metadata": metadata, "spec": spec, "status": status}
        server.send("MODIFIED", kube_node_object("n1", version=110, cordoned=True))
        server.send("BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": "115"}})
        server.send("DELETED", kube_node_object("n2", version=120))
        await received.until(lambda: len(received.events) == 5)
        assert received.events[3:] == [("MODIFIED", "n1"), ("DELETED", "n2")]
        assert received.bodies[3]["spec"]["unschedulable"] is True


@pytest.mark.timeout(30)
async def test_a_watch_resumes_from_its_last_line_and_an_expired_one_starts_with_a_new_list() -> None:
    server = Server()
    server.nodes = {"n0": kube_node_object("n0")}
    async with streaming(server) as (watch, received):
        await watch.listed.wait()
        server.send("BOOKMARK", {"kind": "Node", "metadata": {"resourceVersion": "115"}})
        server.lines.put_nowait(None)
        await received.until(lambda: server.watches == ["101", "115"])
        server.send("ERROR", {"kind": "Status", "code": 410, "metadata": {}})
        await received.until(lambda: len(server.lists) == 2)
        await received.until(lambda: received.events == [(None, "n0")] * 2)


@pytest.mark.timeout(30)
async def test_a_refusal_is_reported_and_retried_without_end() -> None:
    server = Server()
    server.nodes, server.refused = {"n0": kube_node_object("n0")}, 403
    async with streaming(server) as (watch, received):
        await received.until(lambda: "403" in watch.error)
        assert "cannot list nodes: 403 Forbidden: refused by the test" in watch.error
        assert not watch.listed.is_set()
        server.refused = 0
        await watch.listed.wait()
        server.refused = 403
        server.lines.put_nowait(None)
        await received.until(lambda: "cannot watch nodes: 403" in watch.error or "cannot list nodes" in watch.error)
        assert received.events == [(None, "n0")]
        server.refused = 0
        await received.until(lambda: not watch.error)


# Commands.


class Result:
    """The result of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Awaitable[Result]]
LEASE: Json = {"kind": "Lease", "metadata": {"name": ELECTION_LEASE, "annotations": {KUBE_NODES_ANNOTATION: "true"}}}
POOL = yaml.safe_dump({**pool_object("here", requires=requires("asr")), "metadata": {"name": "here"}})
COMMANDS = (("why", "n0", "here"), ("why", "--pool", "here"), ("why", "--node", "n0"), ("diff", "-f", "-"))


@pytest.fixture
async def reads() -> AsyncIterator[ReadApi]:
    """A readable API server with the two nodes, whose operator watches v1 Nodes."""
    async with read_api() as api:
        api.put(LEASE, kube_node_object("n0", labels={"site": "a"}, cordoned=True), pool_object("here", requires=SITE))
        for name in ("n0", "n1"):
            api.put(node_object(name, report(service("q", "llm")), conditions=[condition()]))
        yield api


@pytest.fixture
def hotpool(reads: ReadApi, tmp_path: Path) -> Run:
    """A function that runs `hotpool` in this process with that server."""
    options = ("--kubeconfig", str(reads.kubeconfig(tmp_path)))

    async def run(*words: str) -> Result:
        runner = CliRunner(env={"COLUMNS": "80"})
        result = await asyncio.to_thread(runner.invoke, app, [*words, *options], input=POOL)
        return Result(result.exit_code, result.stdout, result.stderr)

    return run


async def test_why_and_diff_use_v1_nodes_as_the_operator_does(hotpool: Run, reads: ReadApi) -> None:
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


@pytest.mark.parametrize("words", COMMANDS)
async def test_a_user_without_the_right_to_read_nodes_gets_an_error_instead_of_a_wrong_answer(
    hotpool: Run, reads: ReadApi, words: tuple[str, ...]
) -> None:
    reads.refused = {"nodes": 403}
    done = await hotpool(*words)
    assert (done.code, done.out, len(done.err.splitlines())) == (4, "", 1)
    assert "the operator uses v1 Nodes" in done.err
    assert "ClusterRole hotpool-fleet-viewer" in done.err
    reads.objects["leases"].clear()
    assert (await hotpool(*words)).code in {0, 1}


async def test_the_commands_need_exactly_the_viewers_rights_on_nodes(hotpool: Run, reads: ReadApi) -> None:
    for words in COMMANDS:
        await hotpool(*words)
    (rule,) = viewer_rules("ClusterRole")
    assert {verb for verb, group, plural in reads.requests if (group, plural) == ("", "nodes")} == set(rule["verbs"])
