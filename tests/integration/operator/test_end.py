"""End of `hotpool operator` by a signal at each stage of its start, while the API server returns nothing."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, web
from tests.support.agent_run import eventually
from tests.support.not_run import not_run
from tests.support.read_api import ReadApi

from hotpool.api.meta import SCHEMA_REVISION, SCHEMA_REVISION_ANNOTATION
from localfleet.ports import free_port

PROGRAM = str(Path(sys.executable).with_name("hotpool"))
DEADLINE_SECONDS = 120.0
ANSWERED = ("/apis/apiextensions.k8s.io/", "/api/v1/namespaces/fleet")


class StallingApi:
    """API server that returns definitions, its namespace, and nothing else. `stalled`: paths without a response."""

    def __init__(self) -> None:
        self.stalled: set[str] = set()
        self.changed = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        if not request.path.startswith(ANSWERED):
            self.stalled.add(request.path)
            self.changed.set()
            await asyncio.Event().wait()
        name = request.path.rpartition("/")[2]
        metadata = {"name": name, "annotations": {SCHEMA_REVISION_ANNOTATION: f"{SCHEMA_REVISION}"}}
        return web.json_response({"metadata": metadata, "spec": {"group": "hotpool.dev", "versions": []}})

    async def until_listed(self) -> None:
        """Return when kopf has begun to list objects. Raises TimeoutError."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while "/apis" not in self.stalled:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def stalling_api() -> AsyncIterator[StallingApi]:
    """Return a running StallingApi."""
    api, app = StallingApi(), web.Application()
    app.router.add_route("*", "/{tail:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield api
    await runner.cleanup()


@asynccontextmanager
async def operator(server: str, folder: Path, inside: Sequence[str] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the program until it serves /healthz; kill it at the end if it still runs. `inside`: what executes it."""
    api = ReadApi()
    api.url = server
    listen = f"127.0.0.1:{free_port()}"
    words = ("operator", "-n", "fleet", "--kubeconfig", str(api.kubeconfig(folder)), "--listen", listen)
    child = await asyncio.create_subprocess_exec(*inside, PROGRAM, *words, env={**os.environ})
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await _serves(f"http://{listen}/healthz")
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _serves(url: str) -> None:
    async with ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except ClientError:
                await asyncio.sleep(0.05)


async def exit_code(child: asyncio.subprocess.Process, number: signal.Signals) -> int:
    """Send the signal and return the exit code."""
    child.send_signal(number)
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_operator_that_waits_for_an_unreachable_api_server(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with operator(f"http://127.0.0.1:{free_port()}", tmp_path) as child:
        assert await exit_code(child, number) == 0


async def test_a_signal_ends_an_operator_whose_request_for_definitions_gets_no_response(tmp_path: Path) -> None:
    connected = asyncio.Event()
    silent = await asyncio.start_server(lambda *_: connected.set(), "127.0.0.1", 0)
    async with silent, operator(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}", tmp_path) as child:
        await connected.wait()
        assert await exit_code(child, signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_operator_whose_first_lists_get_no_response(
    stalling_api: StallingApi, tmp_path: Path, number: signal.Signals
) -> None:
    async with operator(stalling_api.url, tmp_path) as child:
        await stalling_api.until_listed()
        assert await exit_code(child, number) == 0


async def test_an_operator_whose_user_has_no_name_lists_objects(
    stalling_api: StallingApi, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """OpenShift runs pods as users that no database has."""
    inside = ("unshare", "--user", "--map-user=1000680000", "env", "-u", "USER", "-u", "LOGNAME", "-u", "USERNAME")
    if await (await asyncio.create_subprocess_exec(*inside, "true")).wait():
        not_run(request, "a user namespace needs a kernel that allows it")
        return
    async with operator(stalling_api.url, tmp_path, inside) as child:
        await stalling_api.until_listed()
        assert await exit_code(child, signal.SIGTERM) == 0


async def test_a_signal_ends_an_operator_whose_exec_plugin_hangs(tmp_path: Path) -> None:
    api, started = ReadApi(), tmp_path / "started"
    api.url = "https://127.0.0.1:1"
    config = api.kubeconfig(tmp_path)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never",
        "command": "sh",
        "args": ["-c", f"touch {started}; exec sleep 600"],
    }
    content = json.loads(config.read_text(encoding="utf-8"))
    content["users"][0]["user"] = {"exec": plugin}
    config.write_text(json.dumps(content), encoding="utf-8")
    words = ("operator", "-n", "fleet", "--kubeconfig", str(config), "--listen", "127.0.0.1:0")
    child = await asyncio.create_subprocess_exec(PROGRAM, *words)
    try:
        await eventually(started.exists, DEADLINE_SECONDS)
        assert await exit_code(child, signal.SIGTERM) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
