"""Files and programs that hang do not silence the agent (requirements A12, B8, B9)."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.agent_process import finish, spawn
from tests.support.agent_run import agent_running, eventually, write_catalogue
from tests.support.fake_api import FakeApi
from tests.support.hangs import busy_threads, hanging_file, held_open

from hotpool.common.kubeconfig import Target, TargetError
from hotpool_agent.catalogue.loader import CatalogueError
from hotpool_agent.control.protocol import Request, send
from hotpool_agent.kube.http_client import KubeHttpClient
from hotpool_agent.paths import socket_path

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"
PLUGIN = """\
import json, os, pathlib, signal, sys
mode = pathlib.Path(sys.argv[1]).read_text()
if mode == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
if mode == "fail":
    sys.exit("log in again")
status = {"token": mode}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


@asynccontextmanager
async def process_running(
    folder: Path, kubeconfig: Path, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an agent as a process of its own, because a loop that hangs would stop the test."""
    words = ["--catalogue", str(write_catalogue(folder, NMT)), "--node", "n1", "--kubeconfig", str(kubeconfig)]
    process = await spawn(environment, "run", *words, "--interval", "1", "--debounce", "0.1")
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await finish(process)


async def request(folder: Path, request_: Request) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(send, socket_path(folder / "state" / "n1"), request_), 30)


async def test_credentials_on_a_file_system_that_hangs_stop_neither_heartbeats_nor_the_end_of_the_agent(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    token = tmp_path / "token"
    token.write_text("first", encoding="utf-8")
    kubeconfig = api.kubeconfig(tmp_path, {"tokenFile": str(token)})
    async with process_running(tmp_path, kubeconfig, environment) as process:
        await api.until(lambda: api.beats, seconds=60)
        with hanging_file(token):
            beats = len(api.beats)
            await api.until(lambda: len(api.beats) >= beats + 3, seconds=30)
            status = await request(tmp_path, Request(op="status"))
            assert "does not respond" in status["problems"]["credentials"]
            await request(tmp_path, Request(op="start", id="idle"))
            await api.until(lambda: (api.report("n1") or {})["summary"] == "1/1", seconds=30)
        token.write_text("second", encoding="utf-8")
        await api.until(lambda: api.connected() == {"second"}, seconds=30)
        with hanging_file(token):
            beats = len(api.beats)
            await api.until(lambda: len(api.beats) > beats, seconds=30)
            process.send_signal(signal.SIGTERM)
            assert (await finish(process)).code == 0
    assert (api.report("n1") or {})["leaving"]


async def test_a_plugin_that_hangs_is_killed_and_the_former_credential_stays_in_use(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotpool.common.exec_plugin.PLUGIN_SECONDS", 3.0)
    mode, script = tmp_path / "mode", tmp_path / "plugin.py"
    mode.write_text("first", encoding="utf-8")
    script.write_text(PLUGIN, encoding="utf-8")
    kubeconfig = plugin_kubeconfig(api, script, mode)
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: api.beats and api.connected() == {"first"}, seconds=30)
        mode.write_text("stop", encoding="utf-8")
        # The kubeconfig changes, so the plugin runs again.
        kubeconfig.write_text(kubeconfig.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        await eventually(lambda: stopped(script))
        hung, beats = stopped(script), len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2, seconds=30)
        assert api.connected() == {"first"}
        await eventually(lambda: "no credential within 3 s" in it.agent.health().problems.get("credentials", ""), 30)
        await eventually(lambda: not hung & stopped(script))
        mode.write_text("second", encoding="utf-8")
        await api.until(lambda: api.connected() == {"second"}, seconds=30)
        await eventually(lambda: it.agent.health().problems == {})
        await it.shut_down()


async def test_a_plugin_that_fails_is_named_with_its_own_error_and_tried_again(api: FakeApi, tmp_path: Path) -> None:
    mode, script = tmp_path / "mode", tmp_path / "plugin.py"
    mode.write_text("fail", encoding="utf-8")
    script.write_text(PLUGIN, encoding="utf-8")
    api.allowed = {"good"}
    async with agent_running(tmp_path, plugin_kubeconfig(api, script, mode), NMT) as it:
        await eventually(lambda: "exit code 1: log in again" in it.agent.health().problems.get("credentials", ""))
        await eventually(lambda: "log in again" in it.agent.health().problems.get("report", ""))
        mode.write_text("good", encoding="utf-8")
        await api.until(lambda: api.report("n1"), seconds=30)
        await it.shut_down()


async def test_a_catalogue_on_a_file_system_that_hangs_is_an_error_of_the_reload(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotpool_agent.app._CATALOGUE_SECONDS", 0.3)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await it.until("idle", "Stopped")
        await api.until(lambda: api.beats)
        with hanging_file(tmp_path / "n1.yaml"), held_open(tmp_path / "n1.yaml"):
            for message in ("not done in 0.3 s", "an earlier reading still waits"):
                with pytest.raises(CatalogueError, match=message):
                    await it.agent.reload()
            assert "an earlier reading" in it.agent.health().problems["catalogue"]
        write_catalogue(tmp_path, NMT)
        await eventually(lambda: not busy_threads())
        await it.agent.reload()
        assert it.agent.health().problems.get("catalogue") is None
        await it.shut_down()


async def test_a_catalogue_that_is_a_pipe_without_a_writer_is_refused_and_the_next_one_is_read(
    api: FakeApi, tmp_path: Path
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await it.until("idle", "Stopped")
        with hanging_file(tmp_path / "n1.yaml"), pytest.raises(CatalogueError, match="must be a mapping"):
            async with asyncio.timeout(10):
                await it.agent.reload()
        write_catalogue(tmp_path, NMT)
        assert await it.agent.reload() == "added 0, removed 0, replaced 0, revised 0"
        await it.shut_down()


async def test_a_kubeconfig_that_hangs_at_the_start_is_an_error(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = api.kubeconfig(tmp_path)
    monkeypatch.setattr("hotpool_agent.kube.http_client._LOAD_SECONDS", 0.3)
    client = KubeHttpClient(Target(str(path)), 1.0)
    with hanging_file(path), pytest.raises(TargetError, match="cannot be read within"):
        await client.open()


def plugin_kubeconfig(api: FakeApi, script: Path, mode: Path) -> Path:
    """Write a kubeconfig whose user has an exec plugin."""
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script), str(mode)]}
    return api.kubeconfig(script.parent, {"exec": run})


def stopped(script: Path) -> set[int]:
    """Return the stopped processes of the plugin."""
    found = (process for process in psutil.Process().children(recursive=True) if str(script) in _command(process))
    return {process.pid for process in found if process.status() == psutil.STATUS_STOPPED}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
