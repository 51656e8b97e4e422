"""The examples in Node and Go of docs/how-to/look-up.md run unchanged, with the client libraries that they name (E6).

The libraries are downloaded once into the cache folder. A missing program is a failure.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import DOCUMENTED_READY, claimed_writer, node_loads, write_documented_fleet
from tests.support.redis_page import PAGE

from hotpool.projection.connection.async_connection import connect
from localfleet.redis_server import RedisServer
from localkube.console import Console
from localkube.golang import environment, find_go
from localkube.paths import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE_LIBRARY = "ioredis@5"
GO_LIBRARY = "github.com/redis/go-redis/v9@v9.23.0"
GO_NEEDED = (1, 24)
INSTALL_SECONDS = 600.0
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server with the pool of the page."""
    with RedisServer() as running:
        asyncio.run(_project(running.url))
        yield running


async def _project(url: str) -> None:
    client = connect(url)
    await write_documented_fleet(await claimed_writer(client))
    await client.aclose()


async def _loads(url: str) -> dict[str, float]:
    client = connect(url)
    try:
        return await node_loads(client)
    finally:
        await client.aclose()


def _example(language: str) -> str:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return found[0]


def _folder(name: str) -> Path:
    folder = cache_folder() / "examples" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: install Node 18 or later"
    return found


def _run(*words: str, folder: Path, url: str = "") -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env={**environment(), "REDIS_URL": url, "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_in_node_runs(server: RedisServer) -> None:
    folder = _folder("node")
    if not (folder / "node_modules" / "ioredis").exists():
        _run(_program("npm"), "install", "--no-audit", "--no-fund", NODE_LIBRARY, folder=folder)
    (folder / "pick.mjs").write_text(_example("javascript"), encoding="utf-8")
    output = _run(_program("node"), "pick.mjs", folder=folder, url=server.url)
    assert re.sub(r"age: \d+", "age: 1", " ".join(output.split())) == (
        "{ node: 'edge-021', service: 'faster-whisper', address: '10.0.3.21:6007', appProtocol: 'http', "
        "state: 'Ready', version: '1', age: 1, complete: true }"
    )


def test_the_example_in_go_runs(server: RedisServer) -> None:
    folder, go = _folder("go"), str(find_go(GO_NEEDED, Console()))
    (folder / "main.go").write_text(_example("go"), encoding="utf-8")
    if not (folder / "go.mod").exists():
        _run(go, "mod", "init", "example", folder=folder)
    _run(go, "get", GO_LIBRARY, folder=folder)
    node, address, reservation, *rest = _run(go, "run", ".", folder=folder, url=server.url).split()
    assert (node in DOCUMENTED_READY, len(reservation), rest) == (True, 32, ["<nil>"])
    assert address == f"10.0.3.{int(node[-3:])}:6007"
    assert asyncio.run(_loads(server.url)) == {node: 1}
