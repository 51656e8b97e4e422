"""Run the sessions, ACL rules and examples of docs/reference/redis.md and of the design note on affinity (E4, E6)."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError
from tests.support.redis_fixture_lookup import (
    DOCUMENTED_READY,
    KEYS,
    Ring,
    claimed_writer,
    expect_picked,
    node_of,
    pool,
    write_documented_fleet,
)
from tests.support.redis_page import DOCS, OPERATOR, PAGE, acl_rules, format_reply, sessions, without_times

from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, ReportEffect, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import PoolServices
from hotpool.projection.functions import LIBRARY, library_source
from hotpool.projection.keys import score
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpool.projection.connection.async_connection import Client

NOTE = (DOCS / "design" / "0004-affinity-by-multi-probe-hashing.md").read_text(encoding="utf-8")
CLUSTER = ["+cluster|slots", "+cluster|shards", "+command"]
USERS = {user: rules for user, rules in acl_rules().items() if user != OPERATOR}  # tested in test_acl.py
READING: dict[str, Callable[[SyncLookup], Any]] = {
    "uniform": lambda lookup: lookup.pick("zh-en", exclude=["edge-017"], max_age=3600),
    "least loaded": lambda lookup: lookup.pick("zh-en", strategy="least-loaded"),
    "affinity": lambda lookup: lookup.pick("zh-en", key="user-42"),
    "endpoints": lambda lookup: lookup.pick("zh-en", types=["asr"]),
    "passing over members": lambda lookup: lookup.pick("zh-en", family=6),
    "by key": lambda lookup: lookup.pick_key("speech", "zh-en"),
    "several pools": lambda lookup: lookup.pick_key("speech", ["missing", "zh-en"]),
    "members": lambda lookup: lookup.members("zh-en"),
    "capability": lambda lookup: lookup.capability("edge-017"),
    "transitions": lambda lookup: lookup.transitions("edge-017"),
}
WRITING: dict[str, Callable[[SyncLookup], Any]] = {
    "reserve": lambda lookup: lookup.pick("zh-en", strategy="least-loaded", reserve=60),
    "renew": lambda lookup: lookup.renew("id", 60),
    "release": lambda lookup: lookup.release("id"),
    "report": lambda lookup: lookup.report_load({"edge-017": 1}, source="a", seconds=60),
    "failure": lambda lookup: lookup.report_failure(expect_picked(lookup.pick("zh-en"))) is ReportEffect.EJECTED,
    "wait": lambda lookup: not expect_none(lookup.pick("missing", wait=0.05)).wait_denied,
    "success": lambda lookup: lookup.report_success(expect_picked(lookup.pick("zh-en"))) is ReportEffect.COUNTED,
}
METHODS = {"hotpool-reader": READING, "hotpool-dispatcher": READING | WRITING}


def expect_none(answer: Picked | NoMember) -> NoMember:
    assert isinstance(answer, NoMember), answer
    return answer


async def project(client: Client) -> None:
    await write_documented_fleet(await claimed_writer(client))


def open_as(server: RedisServer, user: str, rules: list[str], *, damaged: bool = False) -> SyncLookup:
    """Return a look-up with these ACL rules. One stored load has expired; that of `id` has not."""
    with Redis.from_url(server.url) as admin:
        admin.acl_setuser(user, reset=True)
        admin.execute_command("ACL", "SETUSER", user, *rules)
        admin.delete(*KEYS.load, *KEYS.failures)
        load, entries, expiries = KEYS.load
        admin.zadd(load, {"edge-017": 1, "edge-021": 1})
        admin.hset(entries, mapping={"expired": "edge-017 1", "id": "edge-021 1"})
        admin.zadd(expiries, {"expired": 1, "id": 9e12})
        if damaged:
            admin.delete(expiries)
    return SyncLookup.from_url(f"redis://{user}:CHANGE-ME@127.0.0.1:{server.port}/0", namespace="speech")


async def test_the_documented_redis_cli_sessions_match_the_server(server: RedisServer, client: Client) -> None:
    await project(client)
    documented = sessions(PAGE)
    assert len(documented) == 13
    with Redis.from_url(server.url) as plain:
        for command, answer in documented:
            reply = plain.execute_command(*shlex.split(command))
            assert without_times(format_reply(reply)) == without_times(answer), command


async def test_the_documented_python_example_runs(
    server: RedisServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    await project(client)
    program = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102 - our own page.
    await names["dispatch"](server.url)
    line, endpoint, url = capsys.readouterr().out.splitlines()
    number = next(int(node[-3:]) for node in DOCUMENTED_READY if line.startswith(f"{node} Ready 1 "))
    assert endpoint.startswith(f"Endpoint(address='10.0.3.{number}', port=6007, app_protocol='http'")
    assert url == f"ws://10.0.3.{number}:6007/stream"


def test_the_page_lists_every_function_of_dispatchers_and_the_library_name() -> None:
    registered = re.findall(r"register\('(\w+)', \w+, \{(.*?)\}\)", library_source()[0])
    writers = {"claim", "stamp", "stage", "stage_services", "swap", "replace", "drop_pool", "drop_index"}
    writers |= {"replace_node", "drop_node", "append_history", "waiters"}
    documented = {(name, verb) for verb, name in re.findall(r"^\| (FCALL|FCALL_RO) `(\w+)` \|", PAGE, re.MULTILINE)}
    calls = {(name, "FCALL_RO" if "no-writes" in flags else "FCALL") for name, flags in registered}
    assert {name for name, _ in documented} == {
        "pick",
        "pick_trial",
        "pick_first",
        "pick_first_trial",
        "reserve_first",
        "wait",
        "report_outcome",
        "denied_commands",
        "find",
        "reserve",
        "renew",
        "release",
        "report",
        "members",
        "capability",
    }
    assert documented <= calls
    assert not writers & {name for name, _ in documented}
    assert set(re.findall(r"\bhotpool_\d+", PAGE)) == {LIBRARY}


async def test_the_worked_example_of_affinity_matches_the_server(client: Client, lookup: Lookup) -> None:
    await project(client)
    rows = dict(re.findall(r"^\| (.*?) \| `?(\w+)`? \|$", NOTE, re.MULTILINE))
    assert {name: int(rows[f"place of `{name}`"]) for name in DOCUMENTED_READY} == {
        name: score(name) for name in DOCUMENTED_READY
    }
    digest = rows["SHA-1 of `user-42`"]
    first, step = int(rows[f"first probe, `{digest[:13]}`"]), int(rows[f"step, `{digest[13:26]}`"])
    assert (first, step) == (int(digest[:13], 16), int(digest[13:26], 16))
    number = int(next(name for name in rows if name.startswith("nearest")).split()[2])
    probe, (what, distance) = (
        (first + number * step) % (1 << 52),
        next(item for item in rows.items() if item[0].startswith("its distance")),
    )
    node = re.findall(r"`(.*)`", what)[0]
    assert probe == int(rows[f"nearest, probe {number} (the first is 0)"])
    assert (score(node) - probe) % (1 << 52) == int(distance)
    assert node == Ring(DOCUMENTED_READY).node("user-42") == node_of(await lookup.pick("zh-en", key="user-42"))


def rules_suffice(server: RedisServer, user: str, rules: list[str]) -> bool:
    """Return True if these rules suffice for every method, and for load keys of which one is missing."""
    try:
        for method in METHODS[user].values():
            with open_as(server, user, rules) as lookup:
                result = method(lookup)
                assert result or isinstance(result, NoMember) or method is WRITING["report"]
        if METHODS[user] is not READING:
            with open_as(server, user, rules, damaged=True) as lookup:
                assert not WRITING["release"](lookup)
    except (LookupUnavailableError, AssertionError):
        return False
    return True


def without(rules: list[str], word: str) -> list[str]:
    """Return the rules without one permission, in whichever rule it is."""
    return [fewer for rule in rules if (fewer := re.sub(rf"(\(?){re.escape(word)}(?: |$|(?=\)))", r"\1", rule).strip())]


@pytest.mark.parametrize("user", USERS)
async def test_the_acl_rules_suffice_and_each_permission_is_needed(
    server: RedisServer, client: Client, user: str
) -> None:
    await project(client)
    assert rules_suffice(server, user, USERS[user])
    permissions = {permission for rule in USERS[user] for permission in re.findall(r"\+\w+|%RW?~[^ )]+", rule)}
    assert len(permissions) > 11
    assert [
        permission for permission in permissions if rules_suffice(server, user, without(USERS[user], permission))
    ] == []


WRITES = [
    ("SET", KEYS.meta, "x"),
    ("DEL", KEYS.pool("zh-en")[0]),
    ("UNLINK", KEYS.pool("zh-en")[1]),
    ("HSET", KEYS.meta, "term", "9"),
    ("HDEL", KEYS.index, "speech/zh-en"),
    ("HSET", KEYS.endpoints, "edge-017", "asr|fw|1||10.0.3.9"),
    ("HDEL", KEYS.endpoints, "edge-017"),
    ("HSET", KEYS.services("zh-en"), "edge-017", "-"),
    ("ZADD", KEYS.pool("zh-en")[1], "1", "mine"),
    ("ZREM", KEYS.pool("zh-en")[1], "edge-017"),
    ("FLUSHALL",),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "DELETE", LIBRARY),
    ("EVAL", "return redis.call('DEL', KEYS[1])", "1", KEYS.meta),
    ("KEYS", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
]
SERVICES = KEYS.services("zh-en")
POOL = (KEYS.meta, KEYS.pools, KEYS.index, *KEYS.pool("zh-en"), SERVICES)
STAGED = KEYS.staged("zh-en", 3, 99)
NODE = (KEYS.meta, KEYS.nodes, KEYS.node("edge-017"), KEYS.history("edge-017"), KEYS.endpoints)
FACTS = ("3", "99", "zh-en", "u1", "digest", "", "", "0", "0", "0", ":asr")
_BASE = ("3", "1", replace(pool(DOCUMENTED_READY, ["edge-033"]), services=PoolServices(("asr",))).digest)
CHANGE = (*FACTS[:7], str(len(DOCUMENTED_READY)), "0", "0", ":asr", *_BASE, "", "", "", "", "edge-033", "", "", "")
FUNCTIONS = {
    "claim": ((KEYS.meta,), ("9", "me", "cluster", "0")),
    "stamp": ((KEYS.meta, *KEYS.load), ("3", "1")),
    "stage": ((KEYS.meta, STAGED[0]), ("3", "60000", "1 mine")),
    "stage_services": ((KEYS.meta, STAGED[3]), ("3", "60000", "mine fw")),
    "swap": ((*POOL[:-1], *STAGED[:3], SERVICES, STAGED[3]), (*FACTS, "0")),
    "replace": (POOL, (*FACTS, "1 mine", "", "", "mine fw")),
    "change": (POOL, CHANGE),
    "exchange": (POOL, CHANGE),
    "drop_pool": (POOL, ("3", "99", "zh-en")),
    "drop_index": ((KEYS.meta, KEYS.index), ("3", "speech/zh-en")),
    "replace_node": (NODE, ("3", "99", "edge-017", "digest", "asr|fw|1||10.0.3.9", "0", "asr", "{}")),
    "drop_node": (NODE, ("3", "99", "edge-017", "1")),
    "append_history": ((NODE[0], *NODE[2:4]), ("3", "{}")),
}


@pytest.mark.parametrize("user", USERS)
async def test_users_of_dispatchers_cannot_change_the_projection(
    server: RedisServer, client: Client, user: str
) -> None:
    await project(client)
    owned = [key for key in await client.execute_command("KEYS", "*") if b":load" not in key]
    before = [await client.execute_command("DUMP", key) for key in owned]
    open_as(server, user, USERS[user]).close()
    with Redis.from_url(f"redis://{user}:CHANGE-ME@127.0.0.1:{server.port}/0") as theirs:
        for words in WRITES:
            with pytest.raises(NoPermissionError):
                theirs.execute_command(*words)
        for name, (keys, arguments) in FUNCTIONS.items():
            with pytest.raises(ResponseError, match=r"permission|can't"):
                theirs.execute_command("FCALL", f"{LIBRARY}_{name}", len(keys), *keys, *arguments)
    assert sorted(owned) == sorted(key for key in await client.execute_command("KEYS", "*") if b":load" not in key)
    assert [await client.execute_command("DUMP", key) for key in owned] == before


async def test_the_refused_calls_write_with_sufficient_permissions(client: Client) -> None:
    """Check that the arguments of the test above are valid, so only missing permissions refused the calls."""
    for name, (keys, arguments) in FUNCTIONS.items():
        await client.execute_command("FLUSHALL")
        await project(client)
        before = await client.execute_command("INFO", "persistence")
        await client.execute_command("FCALL", f"{LIBRARY}_{name}", len(keys), *keys, *arguments)
        after = await client.execute_command("INFO", "persistence")
        assert after["rdb_changes_since_last_save"] > before["rdb_changes_since_last_save"], name


@pytest.mark.parametrize("user", USERS)
async def test_the_acl_rules_with_the_documented_additions_suffice_in_cluster_mode(user: str) -> None:
    added = re.findall(r"also need `(.*?)`", PAGE)[0].split()
    assert added == CLUSTER
    with RedisServer(cluster=True) as server:
        client = connect(server.url, cluster=True)
        await project(client)
        open_as(server, user, [*USERS[user], *added]).close()
        url = f"redis://{user}:CHANGE-ME@127.0.0.1:{server.port}/0"
        async with Lookup.from_url(url, namespace="speech", cluster=True) as lookup:
            assert node_of(await lookup.pick_key("speech", "zh-en")) in DOCUMENTED_READY
        with SyncLookup.from_url(url, namespace="speech", cluster=True) as sync_lookup:
            assert expect_picked(sync_lookup.pick("zh-en", key="user-42")).node in DOCUMENTED_READY
        await client.aclose()
