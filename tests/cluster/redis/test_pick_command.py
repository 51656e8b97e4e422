"""`hotpool pick` against a real server: strategies, the bound on age, exit codes (requirements E2, E6, F5)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import KEYS, Ring, claimed, names, pool
from typer.testing import CliRunner

from hotpool.__main__ import app

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typer.testing import Result

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer


@pytest.fixture
async def pick(server: RedisServer, client: Client) -> Callable[..., Awaitable[Result]]:
    """Runs the command on a server that holds a pool of nine."""
    writer = await claimed(client)
    await writer.replace_pool(pool(names(9), ["s"]))

    async def run(*words: str) -> Result:
        line = ["pick", "zh-en", "--redis", server.url, "-n", "speech", *words]
        return await asyncio.to_thread(CliRunner().invoke, app, line)

    return run


async def test_the_command_picks_by_every_strategy(client: Client, pick: Callable[..., Awaitable[Result]]) -> None:
    for strategy in ((), ("--strategy", "uniform"), ("--strategy", "least-loaded")):
        done = await pick(*strategy)
        assert (done.exit_code, done.stdout.strip() in names(9)) == (0, True)
    await client.execute_command("ZADD", KEYS.load[0], *(part for node in names(9) - {"edge-4"} for part in (1, node)))
    assert (await pick("--strategy", "least-loaded")).stdout == "edge-4\n"
    for how in (["--key", "user-1"], ["--key", "user-1", "--strategy", "affinity"]):
        assert (await pick(*how)).stdout.strip() == Ring(names(9)).node("user-1")
    found = json.loads((await pick("--key", "user-1", "--exclude", "edge-4", "-o", "json")).stdout)
    assert found["node"] == Ring(names(9) - {"edge-4"}).node("user-1")


async def test_the_command_tells_how_old_the_projection_is_that_it_refuses(
    client: Client, pick: Callable[..., Awaitable[Result]]
) -> None:
    done = await pick("--max-age", "30")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "no member of pool zh-en: Stale, of unknown age, incomplete\n"
    seconds = int((await client.execute_command("TIME"))[0])
    await client.execute_command("HSET", KEYS.meta, "stampMs", (seconds - 100) * 1000, "complete", 1)
    done = await pick("--max-age", "30", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["reason"]) == (1, "Stale")
    assert (await pick("--max-age", "200")).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--strategy", "best"),
        ("--strategy", "affinity"),
        ("--strategy", "uniform", "--key", "user-1"),
        ("--key", ""),
        ("--max-age", "-1"),
        ("--max-age", "nan"),
    ],
)
async def test_wrong_wishes_are_wrong_usage(pick: Callable[..., Awaitable[Result]], words: tuple[str, ...]) -> None:
    done = await pick(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr
