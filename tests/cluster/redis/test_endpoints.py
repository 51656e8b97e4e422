"""Endpoints in Redis, and the picks that answer them: attributes, families, strategies, counts, drift (E3, E6, E7)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.redis_fixture_lookup import (
    KEYS,
    NO_DRIFT,
    claimed_writer,
    expect_picked,
    names,
    node_of,
    reason_of,
)

from hotpool.core.model import Endpoint as Allowed
from hotpool.lookup import Counts, Endpoint, Lookup, NoMember, Picked, Reason, SyncLookup
from hotpool.projection import drift_rotation
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hotpool.projection.writer import RedisWriter

LLM = (True, None, ("a", "b"))
ASR = PoolServices(("asr",))
STRATEGIES: list[dict[str, Any]] = [{}, {"strategy": "least-loaded"}, {"key": "user-1"}]


def service(id_: str, type_: str, port: int, *addresses: str, protocol: str | None = None) -> Allowed:
    return Allowed(id_, type_, port, addresses or ("10.0.3.7",), (), protocol)


def node(name: str, *endpoints: Allowed) -> NodeDocument:
    types = sorted({item.type for item in endpoints})
    states = tuple((type_, True, None, tuple(e.service for e in endpoints if e.type == type_)) for type_ in types)
    return NodeDocument(name, states, encode_endpoints(endpoints))


def pool(
    ready: Collection[str],
    services: PoolServices = ASR,
    suspect: Collection[str] = (),
    draining: Collection[str] = (),
    name: str = "zh-en",
) -> PoolDocument:
    members = frozenset(ready), frozenset(suspect), frozenset(draining)
    return PoolDocument(name, f"uid-{name}", None, None, *members, services=services)


def model_pool(name: str, exceptions: Mapping[str, str], *ready: str) -> PoolDocument:
    return pool(ready, PoolServices(("llm",), filtered=True, exceptions=exceptions), name=name)


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    writer = await claimed_writer(client)
    await writer.stamp(complete=True)
    return writer


def counts_of(answer: Picked | NoMember) -> Counts:
    assert isinstance(answer, NoMember), answer
    return answer.counts


async def test_a_pick_returns_the_endpoints_of_all_required_types(writer: RedisWriter, lookup: Lookup) -> None:
    asr, nmt = service("fw", "asr", 6007, protocol="http"), service("m", "nmt", 5008)
    await writer.replace_pool(pool(["edge-1"], PoolServices(("asr", "nmt"))))
    await writer.replace_node(node("edge-1", asr, nmt, service("l", "llm", 8000)))
    picked = expect_picked(await lookup.pick("zh-en"))
    assert picked.endpoints == {
        "asr": (Endpoint("10.0.3.7", 6007, "http", "fw"),),
        "nmt": (Endpoint("10.0.3.7", 5008, None, "m"),),
    }
    assert picked.url("asr", scheme="ws", path="/stream") == "ws://10.0.3.7:6007/stream"
    asked = expect_picked(await lookup.pick("zh-en", types=["nmt", "llm"]))
    assert list(asked.endpoints) == ["nmt", "llm"]


@pytest.mark.parametrize("options", STRATEGIES)
async def test_two_services_on_one_node_in_two_pools_are_each_picked_by_their_own_port(
    writer: RedisWriter, lookup: Lookup, options: Any
) -> None:
    await writer.replace_pool(model_pool("llama", {"edge-1": "a"}, "edge-1"))
    await writer.replace_pool(model_pool("qwen", {"edge-1": "b"}, "edge-1"))
    await writer.replace_node(node("edge-1", service("a", "llm", 8001), service("b", "llm", 8002)))
    for name, port in (("llama", 8001), ("qwen", 8002)):
        for wish in ({}, {"endpoint": True}, {"types": ["llm"]}, {"family": 4}, {"reserve": 5}):
            picked = expect_picked(await lookup.pick(name, **options, **wish))
            assert [found.port for found in picked.endpoints["llm"]] == [port]


async def test_a_new_service_is_never_answered_in_a_pool_that_it_does_not_meet(
    writer: RedisWriter, lookup: Lookup
) -> None:
    """The node is written first: it brings the exception of the pool, whose own write is still to come."""
    await writer.replace_pool(model_pool("llama", {}, "edge-1"))
    await writer.replace_node(node("edge-1", service("a", "llm", 8001)))
    both = node("edge-1", service("a", "llm", 8001), service("b", "llm", 8002))
    await writer.replace_node(both, {"llama": "a", "gone": "a"})
    assert [e.port for e in expect_picked(await lookup.pick("llama")).endpoints["llm"]] == [8001]
    drift = await writer.check_drift({"llama": model_pool("llama", {"edge-1": "a"}, "edge-1")}, {"edge-1": both})
    assert drift == dataclasses.replace(NO_DRIFT, pools=frozenset({"llama"}))  # of the former version
    await writer.replace_node(node("edge-1", service("b", "llm", 8002)), {"llama": "-"})
    assert reason_of(await lookup.pick("llama", endpoint=True)) is Reason.NO_ENDPOINT
    assert expect_picked(await lookup.pick("llama")).endpoints == {}


async def test_an_exception_of_a_pool_that_redis_does_not_hold_leaves_no_key(
    client: Client, writer: RedisWriter
) -> None:
    await writer.replace_node(node("edge-1", service("a", "llm", 8001)), {"gone": "-"})
    assert await client.execute_command("EXISTS", KEYS.services("gone")) == 0


async def test_a_changed_port_is_one_write_of_one_field_and_the_old_port_is_gone(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    for number in range(20):
        await writer.replace_pool(pool(["edge-1"], name=f"p{number}"))
    await writer.replace_node(node("edge-1", service("fw", "asr", 6007)))
    await client.execute_command("CONFIG", "RESETSTAT")
    await writer.replace_node(node("edge-1", service("fw", "asr", 6009)))
    stats = await client.execute_command("INFO", "commandstats")
    assert stats["cmdstat_fcall"]["calls"] == 1
    assert stats["cmdstat_hset"]["calls"] == 2  # the node's types, and its endpoints
    for number in range(20):
        answer = expect_picked(await lookup.pick(f"p{number}", endpoint=True))
        assert [found.port for found in answer.endpoints["asr"]] == [6009]


async def test_a_family_selects_the_address(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["v4", "v6", "both"]))
    await writer.replace_node(node("v4", service("fw", "asr", 1, "10.0.3.7")))
    await writer.replace_node(node("v6", service("fw", "asr", 1, "fd00::7")))
    await writer.replace_node(node("both", service("fw", "asr", 1, "fd00::8", "10.0.3.8")))
    for family, expected in ((4, {"v4": "10.0.3.7", "both": "10.0.3.8"}), (6, {"v6": "fd00::7", "both": "fd00::8"})):
        found = {}
        for _ in range(60):
            picked = expect_picked(await lookup.pick("zh-en", family=family))  # type: ignore[arg-type]
            found[picked.node] = picked.endpoints["asr"][0].address
        assert found == expected
    preferred = expect_picked(await lookup.pick("zh-en", exclude=["v4", "v6"])).endpoints["asr"]
    assert preferred == (Endpoint("fd00::8", 1, None, "fw"),)


@pytest.mark.parametrize("options", STRATEGIES)
async def test_a_pick_that_asks_passes_over_members_without_endpoint(
    client: Client, writer: RedisWriter, lookup: Lookup, options: Any
) -> None:
    await writer.replace_pool(pool(names(30), suspect=["s"]))
    for name in ("edge-3", "edge-4"):
        await writer.replace_node(node(name, service("fw", "asr", 6007)))
    await writer.replace_node(node("edge-5", service("m", "nmt", 5008)))
    for _ in range(20):
        assert node_of(await lookup.pick("zh-en", endpoint=True, **options)) in {"edge-3", "edge-4"}
        assert node_of(await lookup.pick("zh-en", endpoint=True, exclude=["edge-3"], **options)) == "edge-4"
    await client.execute_command("CONFIG", "RESETSTAT")
    await lookup.pick("zh-en", endpoint=True, **options)
    assert (await client.execute_command("INFO", "commandstats"))["cmdstat_fcall_ro"]["calls"] == 1
    plain = {node_of(await lookup.pick("zh-en")) for _ in range(300)}
    assert len(plain) > 20


async def test_a_pick_that_asks_is_uniform_over_the_members_with_endpoints(client: Client, writer: RedisWriter) -> None:
    usable = sorted(names(40))[::4]
    await writer.replace_pool(pool(names(40)))
    for name in usable:
        await writer.replace_node(node(name, service("fw", "asr", 6007)))
    chances = iter([(place + 0.5) / 800 for place in range(800)])
    lookup = Lookup(client, namespace="speech", chance=lambda: next(chances))
    shares = Counter([node_of(await lookup.pick("zh-en", endpoint=True)) for _ in range(800)])
    assert shares == Counter(dict.fromkeys(usable, 80))


async def test_an_affinity_returns_to_its_node_when_that_has_endpoints_again(
    writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(names(20)))
    documents = {name: node(name, service("fw", "asr", 6007)) for name in names(20)}
    for document in documents.values():
        await writer.replace_node(document)
    keys = [f"user-{number}" for number in range(40)]
    before = {key: node_of(await lookup.pick("zh-en", key=key, endpoint=True)) for key in keys}
    gone = before["user-0"]
    await writer.replace_node(NodeDocument(gone, ()))
    during = {key: node_of(await lookup.pick("zh-en", key=key, endpoint=True)) for key in keys}
    assert {key for key in keys if during[key] != before[key]} == {key for key in keys if before[key] == gone}
    assert gone not in during.values()
    await writer.replace_node(documents[gone])
    assert {key: node_of(await lookup.pick("zh-en", key=key, endpoint=True)) for key in keys} == before


async def test_the_least_loaded_member_with_an_endpoint_is_picked(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(10)))
    for name in ("edge-3", "edge-4"):
        await writer.replace_node(node(name, service("fw", "asr", 6007)))
    await lookup.report_load({"edge-3": 5, "edge-4": 2}, source="d", seconds=60)
    assert node_of(await lookup.pick("zh-en", strategy="least-loaded", endpoint=True, reserve=60)) == "edge-4"


async def test_several_services_of_a_type_are_drawn_and_affinity_keeps_to_one(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    services = [service(f"s{number}", "asr", 6000 + number) for number in range(4)]
    await writer.replace_pool(pool(["edge-1"]))
    await writer.replace_node(node("edge-1", *services))
    chances = iter([(place + 0.5) / 400 for place in range(400)])
    swept = Lookup(client, namespace="speech", chance=lambda: next(chances))
    answers = [expect_picked(await swept.pick("zh-en")).endpoints["asr"] for _ in range(400)]
    assert Counter(answer[0].port for answer in answers) == Counter({6000 + number: 100 for number in range(4)})
    assert all(sorted(found.port for found in answer) == [6000, 6001, 6002, 6003] for answer in answers)
    keys = [f"user-{number}" for number in range(60)]

    async def first(key: str) -> int:
        return expect_picked(await lookup.pick("zh-en", key=key)).endpoints["asr"][0].port

    before = {key: await first(key) for key in keys}
    assert before == {key: await first(key) for key in keys}
    assert set(before.values()) == {6000, 6001, 6002, 6003}
    await writer.replace_node(node("edge-1", *services[1:]))
    assert {key for key in keys if await first(key) != before[key]} == {key for key in keys if before[key] == 6000}


async def test_members_without_an_endpoint_are_counted(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a", "b", "c"], suspect=["s"], draining=["d"]))
    await writer.replace_node(node("a", service("m", "nmt", 5008)))
    answer = await lookup.pick("zh-en", endpoint=True, exclude=["b"])
    assert reason_of(answer) is Reason.NO_ENDPOINT
    assert counts_of(answer) == Counts(members=5, ready=3, suspect=1, draining=1, excluded=1, no_endpoint=3)
    await writer.replace_node(node("s", service("fw", "asr", 6007)))
    assert expect_picked(await lookup.pick("zh-en", endpoint=True)).state == "Suspect"
    await writer.replace_node(node("c", service("fw", "asr", 6007, "10.0.0.1")))
    assert expect_picked(await lookup.pick("zh-en", family=4)).state == "Ready"
    assert counts_of(await lookup.pick("zh-en", family=6)).no_endpoint == 4
    assert reason_of(await lookup.pick("zh-en", endpoint=True, exclude=["a", "b", "c", "s"])) is Reason.ALL_EXCLUDED


async def test_one_member_with_an_endpoint_among_a_thousand_is_found(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(1000)))
    await writer.replace_node(node("edge-700", service("fw", "asr", 6007)))
    for options in STRATEGIES * 3:
        assert node_of(await lookup.pick("zh-en", types=["asr"], **options)) == "edge-700"
    assert counts_of(await lookup.pick("zh-en", family=6)).no_endpoint == 1000
    await writer.replace_pool(pool(names(3000)))
    assert counts_of(await lookup.pick("zh-en", family=6)).no_endpoint == 1064


async def test_a_plain_pick_of_a_pool_that_requires_endpoints_asks_for_them(
    writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["a", "b"], PoolServices(("asr",), endpoint_required=True)))
    await writer.replace_node(node("b", service("fw", "asr", 6007)))
    assert {node_of(await lookup.pick("zh-en")) for _ in range(20)} == {"b"}
    await writer.drop_node("b")
    assert reason_of(await lookup.pick("zh-en")) is Reason.NO_ENDPOINT


async def test_a_pool_without_types_needs_the_types_of_the_pick(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"], PoolServices()))
    await writer.replace_node(node("a", service("fw", "asr", 6007)))
    assert expect_picked(await lookup.pick("zh-en")).endpoints == {}
    assert reason_of(await lookup.pick("zh-en", endpoint=True)) is Reason.NO_ENDPOINT
    assert expect_picked(await lookup.pick("zh-en", types=["asr"])).url("asr") == "http://10.0.3.7:6007"


async def test_a_stale_projection_gives_no_endpoint(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"]))
    await writer.replace_node(node("a", service("fw", "asr", 6007)))
    await client.execute_command("HINCRBY", KEYS.meta, "stampMs", -60_000)
    assert reason_of(await lookup.pick("zh-en", endpoint=True, max_age=30)) is Reason.STALE


async def test_endpoints_go_with_their_node_and_services_with_their_pool(client: Client, writer: RedisWriter) -> None:
    await writer.replace_pool(model_pool("llama", {"edge-1": "a"}, "edge-1"))
    await writer.replace_node(node("edge-1", service("a", "llm", 8001), service("b", "llm", 8002)))
    assert await client.execute_command("EXISTS", KEYS.endpoints, KEYS.services("llama")) == 2
    await writer.drop_node("edge-1")
    await writer.drop_pool("llama")
    assert await client.execute_command("EXISTS", KEYS.endpoints, KEYS.services("llama")) == 0


@pytest.mark.parametrize("size", [40, 600])
async def test_exceptions_of_small_and_large_pools_follow_each_write(
    client: Client, writer: RedisWriter, size: int
) -> None:
    members = sorted(names(size))
    exceptions: dict[str, str] = {}
    for step in ({members[0]: "a", members[1]: "a,b"}, dict.fromkeys(members, "b"), {members[2]: "-"}, {}):
        exceptions = step
        document = model_pool("llama", exceptions, *members)
        await writer.replace_pool(document)
        stored = await client.execute_command("HGETALL", KEYS.services("llama"))
        assert {key.decode(): value.decode() for key, value in stored.items()} == exceptions
        assert await writer.check_drift({"llama": document}, {}) == NO_DRIFT
    assert await client.execute_command("KEYS", "*stage*") == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("HDEL", KEYS.endpoints, "edge-1"), (set(), {"edge-1"}, set())),
        (("HSET", KEYS.endpoints, "edge-1", "llm|a|9|"), (set(), {"edge-1"}, set())),
        (("HSET", KEYS.endpoints, "edge-1", "llm|a|8009||10.0.3.7 llm|b|8002||10.0.3.7"), (set(), {"edge-1"}, set())),
        (("HSET", KEYS.endpoints, "stranger", "llm|a|9||10.0.3.7"), (set(), set(), {"stranger"})),
        (("DEL", KEYS.endpoints), (set(), {"edge-1"}, set())),
        (("SET", KEYS.endpoints, "x"), (set(), {"edge-1"}, set())),
        (("HDEL", KEYS.services("llama"), "edge-1"), ({"llama"}, set(), set())),
        (("HSET", KEYS.services("llama"), "edge-1", "b"), ({"llama"}, set(), set())),
        (("HSET", KEYS.services("llama"), "edge-2", "b"), ({"llama"}, set(), set())),
        (("SET", KEYS.services("llama"), "x"), ({"llama"}, set(), set())),
    ],
)
async def test_foreign_changes_of_endpoints_are_found_and_repaired(
    client: Client, lookup: Lookup, words: tuple[str, ...], found: tuple[set[str], set[str], set[str]]
) -> None:
    writer = await claimed_writer(client)
    document = model_pool("llama", {"edge-1": "a"}, "edge-1", "edge-2")
    edge = node("edge-1", service("a", "llm", 8001), service("b", "llm", 8002))
    await writer.replace_pool(document)
    await writer.replace_node(edge)
    assert await writer.check_drift({"llama": document}, {"edge-1": edge}) == NO_DRIFT
    if words[0] == "SET":
        await client.execute_command("DEL", words[1])
    await client.execute_command(*words)
    drift = await writer.check_drift({"llama": document}, {"edge-1": edge})
    assert tuple(map(set, (drift.pools, drift.nodes, drift.stray_nodes))) == found
    for _ in drift.pools:
        await writer.replace_pool(document)
    for _ in drift.nodes:
        await writer.replace_node(edge)
    for name in drift.stray_nodes:
        await writer.drop_node(name)
    assert await writer.check_drift({"llama": document}, {"edge-1": edge}) == NO_DRIFT
    assert expect_picked(await lookup.pick("llama", endpoint=True)).url("llm") == "http://10.0.3.7:8001"


async def test_every_check_finds_a_node_that_lost_its_endpoints(
    client: Client, writer: RedisWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents are compared in rotation; this node's turn is later."""
    monkeypatch.setattr(drift_rotation, "NODES_PER_ROUND", 1)
    nodes = {name: node(name, service("fw", "asr", 6007)) for name in ("edge-1", "edge-2")}
    for document in nodes.values():
        await writer.replace_node(document)
    await client.execute_command("HDEL", KEYS.endpoints, "edge-1")
    assert (await writer.check_drift({}, nodes)).nodes == {"edge-1"}


async def test_a_damaged_entry_is_no_endpoint_to_a_pick(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"]))
    for value in ("x", "asr|fw|port||10.0.3.7", "asr|fw|6007||", "asr|fw|6007|http", "|||||"):
        await client.execute_command("HSET", KEYS.endpoints, "a", value)
        assert expect_picked(await lookup.pick("zh-en")).endpoints == {}
        assert reason_of(await lookup.pick("zh-en", endpoint=True)) is Reason.NO_ENDPOINT


@pytest.mark.parametrize(
    "words",
    [("uniform", "0.5", "5:asr"), ("uniform", "0.5", "asr"), ("uniform", "0.5", ":a|b")],
)
async def test_invalid_arguments_and_too_few_keys_are_refused(client: Client, words: Any) -> None:
    await claimed_writer(client)
    keys = (KEYS.meta, *KEYS.pool("zh-en")[:3], KEYS.endpoints, KEYS.services("zh-en"))
    for given, arguments in ((keys, words), (keys[:4], ("uniform", "0.5"))):
        with pytest.raises(Exception, match="BADARGUMENT"):
            await client.execute_command("FCALL_RO", "hotpool_4_pick", len(given), *given, *arguments)


async def test_a_new_claim_keeps_endpoints_and_a_flush_loses_them(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    document, edge = pool(["a"]), node("a", service("fw", "asr", 6007))
    await writer.replace_pool(document)
    await writer.replace_node(edge)
    successor = await claimed_writer(client, 4)
    assert node_of(await lookup.pick("zh-en", endpoint=True)) == "a"
    await client.execute_command("FLUSHALL")
    assert reason_of(await lookup.pick("zh-en", endpoint=True)) is Reason.FLEET_UNKNOWN
    await successor.claim(4)
    await successor.replace_pool(document)
    assert reason_of(await lookup.pick("zh-en", endpoint=True)) is Reason.NO_ENDPOINT
    await successor.replace_node(edge)
    assert node_of(await lookup.pick("zh-en", endpoint=True)) == "a"


async def test_a_late_write_of_a_former_leader_changes_no_endpoint(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["a"]))
    await writer.replace_node(node("a", service("fw", "asr", 6007)))
    arguments = ("3", "1", "a", "digest", "asr|fw|1||10.0.3.7", "0")
    keys = (KEYS.meta, KEYS.nodes, KEYS.node("a"), KEYS.history("a"), KEYS.endpoints)
    for version, term, error in ((1, 3, "STALEVERSION"), (9, 2, "STALETERM")):
        words = (str(term), str(version), *arguments[2:])
        with pytest.raises(Exception, match=error):
            await client.execute_command("FCALL", "hotpool_4_replace_node", 5, *keys, *words)
    assert expect_picked(await lookup.pick("zh-en")).endpoints["asr"][0].port == 6007


async def test_a_redis_cluster_answers_endpoints() -> None:
    with RedisServer(cluster=True) as server:
        client = connect(server.url, cluster=True)
        writer = await claimed_writer(client)
        await writer.replace_pool(model_pool("llama", {"a": "x"}, "a", *names(600)))
        await writer.replace_node(node("a", service("x", "llm", 8001), service("y", "llm", 8002)), {"llama": "x"})
        async with Lookup.from_url(server.url, namespace="speech", cluster=True) as lookup:
            picked = expect_picked(await lookup.pick("llama", types=["llm"], key="user-1", reserve=5))
            assert (picked.node, [found.port for found in picked.endpoints["llm"]]) == ("a", [8001])
        with SyncLookup.from_url(server.url, namespace="speech", cluster=True) as sync_lookup:
            assert expect_picked(sync_lookup.pick("llama", endpoint=True)).url("llm") == "http://10.0.3.7:8001"
        await client.aclose()
