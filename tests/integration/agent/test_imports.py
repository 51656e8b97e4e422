"""Imports of the program, and their time: it starts fast, stays small, and reads no module file later (A2, F5)."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.agent_process import Command, finish, spawn
from tests.support.agent_run import write_catalogue
from tests.support.fake_api import FakeApi, Fault, is_report

from hotpool_agent.control.protocol import Request, RequestError, send
from hotpool_agent.paths import socket_path

SLEEP = "- {id: a, type: asr, autoStart: true, run: {command: [sleep, '600']}}\n"
MORE = (
    SLEEP
    + "- {id: b, type: asr, port: 1, observe: {http: {path: /}}}\n"
    + "- {id: c, type: asr, observe: {file: {path: f}}}\n"
    + "- {id: d, type: asr, observe: {process: {name: f}}}\n"
)
HEAVY = {"aiohttp", "asyncio", "hotpool.api.meta", "kubernetes", "psutil", "pydantic_settings", "rich", "structlog"}
NOT_BARE = {"kubernetes.aio.dynamic", "kubernetes.client", "requests", "urllib3", "websocket"}
UNUSED = NOT_BARE | {"dbus_fast", "grpc", "kubernetes"}


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in which Python writes the name of each imported module to standard error."""
    return environment | {"PYTHONPROFILEIMPORTTIME": "1"}


def imported(trace: str) -> set[str]:
    """Return the modules that were imported or searched."""
    return {line.rpartition("|")[2].strip() for line in trace.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("option", ["--version", "--help"])
async def test_version_and_help_do_not_import_pydantic(hotpool_agent: Command, option: str) -> None:
    result = await hotpool_agent(option)
    modules = imported(result.err)
    assert (result.code, "click" in modules) == (0, True)
    assert modules & (HEAVY | {"pydantic", "hotpool_agent.cli.common"}) == set()


@pytest.mark.parametrize(
    "arguments",
    ["start s", "stop s", "restart s", "reload", "status", "report", "logs s", "run --help", "check --help"],
)
async def test_a_command_imports_no_part_of_the_agent(hotpool_agent: Command, arguments: str) -> None:
    modules = imported((await hotpool_agent(*arguments.split())).err)
    assert "hotpool_agent.cli.common" in modules
    assert modules & HEAVY == set()


async def test_an_agent_imports_nothing_after_its_first_report(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    catalogue, trace = write_catalogue(tmp_path, SLEEP), tmp_path / "trace"
    arguments = ["run", "--catalogue", str(catalogue), "--node", "n1", "--kubeconfig", str(api.kubeconfig(tmp_path))]
    with trace.open("wb") as file:
        process = await spawn(environment, *arguments, "--interval", "1", "--debounce", "0.1", errors=file)
    try:
        await api.until(lambda: api.report("n1"), seconds=30)
        at_first = imported(trace.read_text(encoding="utf-8"))
        await _cause_many_changes(api, tmp_path)
    finally:
        process.send_signal(signal.SIGTERM)
        await finish(process)
    assert (api.report("n1") or {})["leaving"]
    assert {"hotpool_agent.app", "aiohttp.client"} <= at_first
    assert at_first & UNUSED == set()
    assert imported(trace.read_text(encoding="utf-8")) - at_first == set()


async def _cause_many_changes(api: FakeApi, folder: Path) -> None:
    """Crash a service, fail requests, change the catalogue, with errors, too, and send local commands."""

    async def command(request: Request) -> dict[str, object]:
        response = await asyncio.to_thread(send, socket_path(folder / "state" / "n1"), request)
        return response if isinstance(response, dict) else {}

    def service(report: dict[str, object] | None, name: str) -> dict[str, object]:
        services: object = (report or {}).get("services") or []
        assert isinstance(services, list)
        return next((item for item in services if item["id"] == name), {})

    await api.until(lambda: service(api.report("n1"), "a").get("state") == "Running", seconds=30)
    api.faults += [Fault(is_report, code=500), Fault(is_report, kind="lost")]
    api.end_watches()
    os.kill(int(str(service(api.report("n1"), "a")["pid"])), signal.SIGKILL)
    await api.until(lambda: service(api.report("n1"), "a").get("restarts") == 1, seconds=30)
    write_catalogue(folder, MORE)
    await command(Request(op="reload"))
    write_catalogue(folder, "- [{\n")
    with pytest.raises(RequestError, match="not valid YAML"):
        await command(Request(op="reload"))
    write_catalogue(folder, "", head="servises: []\n")
    with pytest.raises(RequestError, match="did you mean 'services'"):
        await command(Request(op="reload"))
    await command(Request(op="restart", id="a"))
    assert (await command(Request(op="status")))["node"] == "n1"
    await api.until(lambda: service(api.report("n1"), "d").get("state") == "Stopped", seconds=30)


def test_importing_a_part_of_the_agent_leaves_the_kubernetes_client_complete() -> None:
    script = "import hotpool_agent.kube.node_resources, kubernetes; kubernetes.client.CoreV1Api"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_bare_import_gives_the_asyncio_client_under_all_its_names() -> None:
    script = (
        "import sys\n"
        "from hotpool.common.bare_kubernetes import import_bare_kubernetes\n"
        "import_bare_kubernetes()\n"
        "import kubernetes.aio.client\n"
        "from kubernetes.aio import client, config\n"
        "assert kubernetes.aio.client.ApiClient is client.ApiClient\n"
        "assert config.load_kube_config and client.CoreV1Api\n"
        f"assert not {NOT_BARE!r} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
