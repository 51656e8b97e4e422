"""Commands of the real program against a fake dispatcher behind the socket (requirements A2, A10).

Requirements A1, A3, B1, B9.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.agent_process import Command, daemon
from tests.support.agent_run import supervised
from tests.support.fake_api import FakeApi, Fault

from hotpool_agent.control import socket_server
from hotpool_agent.control.protocol import AgentUnreachableError, Request, RequestError, send
from hotpool_agent.paths import socket_path
from localfleet.ports import free_port

BROKEN = "- {id: broken, type: tts, autoStart: true, run: {command: ['false']}}\n"
NMT = (
    "- {id: idle, type: nmt, run: {command: [sleep, '600']},\n"
    "   attributes: {languages: ['no', en], tier: ['on', '1e3'], rules: [{kind: any_to_en, languages: ['no']}]}}\n"
)


class FakeDispatcher:
    """Recorder of requests that returns or raises `result`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.result: Any = "done"

    async def dispatch(self, request: Request) -> Any:
        self.requests.append(request)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[FakeDispatcher]:
    dispatcher = FakeDispatcher()
    server = await socket_server.serve(socket_path(tmp_path / "state" / "n1"), dispatcher.dispatch)
    yield dispatcher
    server.close()


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
async def test_a_command_names_the_service_and_waits_unless_no_wait_is_given(
    agent: FakeDispatcher, hotpool_agent: Command, command: str
) -> None:
    agent.result = "s: Running"
    result = await hotpool_agent(command, "s", "--node", "n1")
    assert (result.code, result.out, result.err) == (0, "s: Running\n", "")
    await hotpool_agent(command, "s", "--node", "n1", "--no-wait")
    assert [asdict(request) for request in agent.requests] == [
        {"op": command, "id": "s", "wait": True},
        {"op": command, "id": "s", "wait": False},
    ]


async def test_reload_prints_the_changes_or_every_error_of_the_catalogue(
    agent: FakeDispatcher, hotpool_agent: Command
) -> None:
    agent.result = "added: a; removed: b"
    result = await hotpool_agent("reload", "--node", "n1")
    assert (result.code, result.out) == (0, "added: a; removed: b\n")
    agent.result = RequestError("c.yaml:3: x\nc.yaml:9: y")
    refused = await hotpool_agent("reload", "--node", "n1")
    assert (refused.code, refused.out, refused.err) == (1, "", "c.yaml:3: x\nc.yaml:9: y\n")
    assert [request.op for request in agent.requests] == ["reload", "reload"]


@pytest.mark.parametrize(
    "words", [["status"], ["report"], ["reload"], ["restart", "s"], ["start", "s"], ["stop", "s"], ["drain"]]
)
async def test_without_an_agent_every_request_ends_with_3(hotpool_agent: Command, words: list[str]) -> None:
    result = await hotpool_agent(*words, "--node", "n1")
    assert (result.code, result.out) == (3, "")
    assert "no agent responds at " in result.err


async def test_an_incomplete_response_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"ok": true, "resu')
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    with pytest.raises(AgentUnreachableError, match="ended before it responded"):
        await asyncio.to_thread(send, path, Request(op="status"))
    server.close()


async def test_report_prints_the_wire_form_that_the_api_server_gets_next(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, NMT):
        stored = api.report("n1") or {}
        plain = json.loads((await hotpool_agent("report", "--node", "n1", "-o", "json")).out)
        assert plain == {**stored, "sequence": plain["sequence"], "time": plain["time"]} | _nulls(plain)
        assert plain["sequence"] > stored["sequence"]
        text = (await hotpool_agent("report", "--node", "n1")).out
        again = yaml.safe_load(text)
        # In YAML 1.1, which kubectl reads, an unquoted `no` would be false.
        assert again == {**plain, "time": again["time"], "sequence": again["sequence"]}
        assert list(again) == list(plain)
        assert again["services"][0]["languages"] == ["no", "en"]


def _nulls(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the null values at the top level, which a merge patch does not store."""
    return {key: value for key, value in plain.items() if value is None}


async def test_status_ends_with_5_when_a_service_that_is_shown_has_failed(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    patient = environment | {
        "HOTPOOL_AGENT_RESTART_SECONDS": "60"
    }  # keeps the service Failed until the end of the test
    async with daemon(api, tmp_path, patient, BROKEN + NMT):
        await api.until(lambda: "exited with code 1" in str(api.report("n1")), seconds=30)
        whole = await hotpool_agent("status", "--node", "n1")
        assert (whole.code, whole.err) == (5, "")
        assert (await hotpool_agent("status", "broken", "--node", "n1")).code == 5
        assert (await hotpool_agent("status", "idle", "--node", "n1")).code == 0


async def test_status_says_why_a_running_service_is_not_offered_and_ends_with_5(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    slow = "- {id: slow, type: nmt, device: cpu, autoStart: true, run: {command: [sleep, '600']}}\n"
    async with daemon(api, tmp_path, environment, slow + "types: {nmt: {devices: [gpu]}}\n"):
        await api.until(lambda: "DeviceNotAccepted" in str(api.report("n1")), seconds=30)
        shown = await hotpool_agent("status", "--node", "n1")
        assert (shown.code, shown.err) == (5, "")
        assert "slow: not offered, DeviceNotAccepted: its device is not one that counts for its type" in shown.out
        (service,) = json.loads((await hotpool_agent("status", "--node", "n1", "-o", "json")).out)["services"]
        assert (service["state"], service["notOffered"], service["dropped"]) == ("Running", "DeviceNotAccepted", 0)


async def test_status_ends_with_4_while_the_agent_is_not_connected(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, supervised("s", free_port())):
        assert (await hotpool_agent("status", "--node", "n1")).code == 0
        fault = Fault(lambda _: True, code=500, times=10**9)
        api.faults.append(fault)
        await hotpool_agent("start", "s", "--node", "n1")
        path = socket_path(tmp_path / "state" / "n1")
        async with asyncio.timeout(30):
            while "report" not in (await asyncio.to_thread(send, path, Request(op="status")))["problems"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        disconnected = await hotpool_agent("status", "--node", "n1")
        assert disconnected.code == 4
        assert [line for line in disconnected.out.splitlines() if line.startswith("report: ")]
        shown = json.loads((await hotpool_agent("status", "--node", "n1", "-o", "json")).out)
        assert shown["problems"]["report"]
        assert shown["listening"].startswith("127.0.0.1:")
        fault.times = 0


async def test_check_prints_every_error_or_lists_the_services(tmp_path: Path, hotpool_agent: Command) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 2\ntypes: {asr: {devices: [gpu]}}\nservices:\n- {id: a, type: asr, run: {command: [x]}}\n"
        "- {id: b, prot: 1}\n- {id: b, type: nmt, observe: {http: {}}}\n",
        encoding="utf-8",
    )
    bad = await hotpool_agent("check", str(path))
    assert (bad.code, bad.out) == (2, "")
    assert [line.split(": ")[:2] for line in bad.err.splitlines()] == [
        [f"{path}:1", "version"],
        [f"{path}:4", "services[0]"],
        [f"{path}:4", "services[0].run.command"],
        [f"{path}:5", "services[1]"],
        [f"{path}:5", "services[1].prot"],
        [f"{path}:5", "services[1].type"],
        [f"{path}:6", "services[2].id"],
        [f"{path}:6", "services[2].observe.http"],
    ]
    path.write_text(
        "version: 1\nservices:\n- {id: a, type: asr, device: gpu, port: 1, model: m, autoStart: true,"
        " run: {command: [sh]}}\n- {id: b, type: nmt, port: 2, observe: {http: {}}}\n",
        encoding="utf-8",
    )
    good = await hotpool_agent("check", str(path))
    assert (good.code, good.err) == (0, "")
    assert [line.split() for line in good.out.splitlines()] == [
        ["ID", "TYPE", "DEVICE", "PORT", "MODEL", "HOW", "AUTOSTART"],
        ["a", "asr", "gpu", "1", "m", "run", "yes"],
        ["b", "nmt", "-", "2", "-", "observe", "http", "-"],
    ]
    plain = json.loads((await hotpool_agent("check", str(path), "-o", "json")).out)
    assert [(service["id"], service["autoStart"]) for service in plain["services"]] == [("a", True), ("b", False)]
    path.write_text(path.read_text(encoding="utf-8").replace("[sh]", "[no-such-program]"), encoding="utf-8")
    warned = await hotpool_agent("check", str(path))
    assert (warned.code, warned.out) == (1, good.out)
    expected = "services[0].run.command: warning: there is no program 'no-such-program' in PATH\n"
    assert warned.err == f"{path}:3: {expected}"
