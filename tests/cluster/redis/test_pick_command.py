"""`hotpool pick` against a real server: strategies, maximum age, exit codes (E2, E6, F5)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tests.support.redis_fixture_lookup import KEYS, Ring, claimed_writer, names, pool
from tests.support.redis_fleet import until

from hotpool.cli.program import app
from hotpool.projection.documents import NodeDocument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from click.testing import Result

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer


@pytest.fixture
async def pick(server: RedisServer, client: Client) -> Callable[..., Awaitable[Result]]:
    """Return a function that runs the command on a server with a pool of nine Ready nodes."""
    writer = await claimed_writer(client)
    await writer.replace_pool(pool(names(9), ["s"]))

    async def run(*words: str) -> Result:
        line = ["pick", "zh-en", "--redis", server.url, "-n", "speech", *words]
        return await asyncio.to_thread(CliRunner().invoke, app, line)

    return run


async def test_the_command_picks_by_every_strategy(client: Client, pick: Callable[..., Awaitable[Result]]) -> None:
    for strategy in ((), ("--strategy", "uniform"), ("--strategy", "least-loaded")):
        result = await pick(*strategy)
        assert (result.exit_code, result.stdout.strip() in names(9)) == (0, True)
    await client.execute_command("ZADD", KEYS.load[0], *(part for node in names(9) - {"edge-4"} for part in (1, node)))
    assert (await pick("--strategy", "least-loaded")).stdout == "edge-4\n"
    for options in (["--key", "user-1"], ["--key", "user-1", "--strategy", "affinity"]):
        assert (await pick(*options)).stdout.strip() == Ring(names(9)).node("user-1")
    found = json.loads((await pick("--key", "user-1", "--exclude", "edge-4", "-o", "json")).stdout)
    assert found["node"] == Ring(names(9) - {"edge-4"}).node("user-1")


@pytest.mark.parametrize("pools", [(), ("any-en",), ("--wait", "0.01")])
async def test_a_namespace_without_a_fleet_is_named_with_the_options_that_choose_another(
    pick: Callable[..., Awaitable[Result]], pools: tuple[str, ...]
) -> None:
    result = await pick("-n", "other", *pools)
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == (
        "no fleet in namespace other: FleetUnknown, no operator has written to this Redis for it; "
        "see -n, --prefix and --redis\n"
    )


async def test_a_generated_pool_is_picked_by_generator_and_key(server: RedisServer, client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(replace(pool(["a"], name="speech-zh-en-1a2b3c4d"), key="zh-en"))

    async def run(*words: str) -> Result:
        line = ["pick", *words, "--redis", server.url, "-n", "speech"]
        return await asyncio.to_thread(CliRunner().invoke, app, line)

    assert (await run("speech/zh-en")).stdout == "a\n"
    assert (await run("speech/sw-zu", "speech/zh-en")).stdout == "a\n"
    unknown = await run("speech/sw-zu")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("no member of pool speech/sw-zu: PoolUnknown; ")
    assert unknown.stderr.endswith("`hotpool why --pool speech/sw-zu` names similar and deleted pools\n")
    for words in (("speech/zh-en", "zh-en"), ("speech/zh-en", "other/zh-en"), ("speech/",), ("/zh-en",)):
        refused = await run(*words)
        assert (refused.exit_code, "GENERATOR/KEY of one generator" in refused.stderr) == (2, True), words


async def test_the_first_of_several_pools_that_has_a_node_is_picked(pick: Callable[..., Awaitable[Result]]) -> None:
    found = json.loads((await pick("any-en", "--exclude", "edge-4", "-o", "json")).stdout)
    assert (found["pool"], found["node"] in names(9)) == ("zh-en", True)
    result = await pick("any-en", *(word for node in [*names(9), "s"] for word in ("--exclude", node)))
    assert (result.exit_code, result.stdout) == (1, "")
    excluded, unknown = result.stderr.splitlines()
    assert excluded == "no member of pool zh-en: AllExcluded"
    assert unknown.startswith("no member of pool any-en: PoolUnknown; see -n (namespace speech) and --prefix; ")
    assert unknown.endswith("`hotpool why --pool any-en` names similar and deleted pools")


async def test_the_command_waits_for_a_node(client: Client, pick: Callable[..., Awaitable[Result]]) -> None:
    everyone = [word for node in [*names(9), "s"] for word in ("--exclude", node)]
    assert (await pick(*everyone, "--wait", "0.1")).stderr == "no member of pool zh-en: AllExcluded\n"
    waiting = asyncio.ensure_future(pick(*everyone, "--wait", "60"))
    await until(lambda: client.execute_command("EXISTS", KEYS.waiting[0]))
    await (await claimed_writer(client, 4)).replace_pool(pool(names(9) | {"new"}, ["s"]))
    assert (await waiting).stdout == "new\n"
    assert (await pick("--wait", "-1")).exit_code == 2


async def test_the_command_reports_the_age_of_a_projection_that_is_too_old(
    client: Client, pick: Callable[..., Awaitable[Result]]
) -> None:
    result = await pick("--max-age", "30")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "no member of pool zh-en: Stale, of unknown age, incomplete\n"
    seconds = int((await client.execute_command("TIME"))[0])
    await client.execute_command("HSET", KEYS.meta, "stampMs", (seconds - 100) * 1000, "complete", 1)
    result = await pick("--max-age", "30", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["reason"]) == (1, "Stale")
    assert (await pick("--max-age", "200")).exit_code == 0


async def test_the_endpoint_of_a_type_is_printed_as_address_and_port(
    client: Client, pick: Callable[..., Awaitable[Result]]
) -> None:
    result = await pick("--endpoint", "asr")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "no member of pool zh-en: NoEndpoint: 10 of 10 members looked at, none has an endpoint of type asr; "
    )
    writer = await claimed_writer(client, 4)
    await writer.replace_node(NodeDocument("edge-4", (), "asr|fw|6007|http|10.0.3.7,fd00::7 nmt|m|5008||fd00::7"))
    for words, line in (
        (("--endpoint", "asr"), "10.0.3.7:6007"),
        (("--endpoint", "asr", "--family", "6", "--key", "user-1"), "[fd00::7]:6007"),
        (("--endpoint", "nmt"), "[fd00::7]:5008"),
    ):
        result = await pick(*words)
        assert (result.exit_code, result.stdout) == (0, f"{line}\n")
    found = json.loads((await pick("--endpoint", "asr", "-o", "json")).stdout)
    endpoint = {"address": "10.0.3.7", "port": 6007, "app_protocol": "http", "service": "fw"}
    assert (found["node"], found["endpoints"]) == ("edge-4", {"asr": [endpoint]})
    result = await pick("--endpoint", "nmt", "--family", "4")
    assert result.exit_code == 1
    assert "none has an IPv4 endpoint of type nmt" in result.stderr
    refused = json.loads((await pick("--endpoint", "tts", "-o", "json")).stdout)
    assert (refused["reason"], refused["counts"]["no_endpoint"]) == ("NoEndpoint", 10)


@pytest.mark.parametrize(
    "words",
    [
        ("--family", "4"),
        ("--endpoint", "asr", "--family", "5"),
        ("--endpoint", "ASR"),
        ("--endpoint", ""),
        ("--strategy", "best"),
        ("--strategy", "affinity"),
        ("--strategy", "uniform", "--key", "user-1"),
        ("--key", ""),
        ("--max-age", "-1"),
        ("--max-age", "nan"),
    ],
)
async def test_invalid_options_are_usage_errors(pick: Callable[..., Awaitable[Result]], words: tuple[str, ...]) -> None:
    result = await pick(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr
