"""Command line with a real agent and a real socket, and exit codes (requirements A2, F5).

Requirements A1, B9, B12.
"""

import asyncio
import json
import os
import signal
import stat
from pathlib import Path

import pytest
from tests.support.agent_process import Command, daemon
from tests.support.agent_run import supervised
from tests.support.fake_api import FakeApi

from hotpool_agent.control import protocol
from hotpool_agent.paths import PathError, socket_path
from localfleet.ports import free_port

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


async def test_start_status_stop_and_a_clean_end(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, supervised("s", free_port()) + NMT) as process:
        started = await hotpool_agent("start", "s", "--node", "n1")
        assert (started.code, started.out) == (0, "s: Running\n")
        again = await hotpool_agent("start", "s", "--node", "n1")
        assert (again.code, again.out) == (0, "s: Running already\n")
        table = await hotpool_agent("status", "--node", "n1")
        titles = ["ID", "TYPE", "STATE", "OFFERED", "SINCE", "PORT", "PID", "RESTARTS", "DESIRED"]
        assert table.out.splitlines()[0].split() == titles
        assert max(map(len, table.out.splitlines())) <= 100
        assert "\x1b" not in table.out
        one = json.loads((await hotpool_agent("status", "s", "--node", "n1", "-o", "json")).out)
        assert [(service["id"], service["state"]) for service in one["services"]] == [("s", "Running")]
        assert (one["node"], one["namespace"], one["epoch"]) == ("n1", "fleet", 1)
        assert (await hotpool_agent("stop", "s", "--node", "n1")).out == "s: Stopped\n"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert (api.report("n1") or {})["leaving"]
    gone = await hotpool_agent("status", "--node", "n1")
    assert gone.code == 3
    assert "no agent responds" in gone.err


async def test_failures_have_their_own_exit_code_and_message(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, supervised("s", free_port(), "--exit-code", "4")):
        failed = await hotpool_agent("start", "s", "--node", "n1")
        assert (failed.code, failed.err) == (1, "s: exited with code 4\n")
        unknown = await hotpool_agent("stop", "x", "--node", "n1")
        assert (unknown.code, unknown.err) == (1, "x: no such service; there are: s\n")
        assert (await hotpool_agent("start", "--node", "n1")).code == 2
        bad = await hotpool_agent("start", "s", "--node", "N_1")
        assert bad.code == 2
        assert "DNS name" in bad.err


async def test_a_second_agent_of_the_node_is_refused_and_one_of_another_node_is_not(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, NMT) as process, daemon(api, tmp_path, environment, NMT, node="n2"):
        config, catalogue = str(api.kubeconfig(tmp_path)), str(tmp_path / "n1.yaml")
        second = await hotpool_agent("run", "--catalogue", catalogue, "--node", "n1", "--kubeconfig", config)
        assert second.code == 1
        assert f"runs on this machine already (pid {process.pid})" in second.err
        await api.until(lambda: ("leases", "hotpool-node-n2") in api.objects)
        assert (await hotpool_agent("status", "--node", "n2")).code == 0


async def test_status_shows_that_the_node_name_is_taken(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    report = {"instance": "other", "session": "other", "epoch": 7, "sequence": 3, "intervalSeconds": 1}
    api.put("nodecapabilities", "n1", {"metadata": {"name": "n1"}, "status": {"report": report}})
    heartbeats = asyncio.create_task(_renew_lease(api))
    async with daemon(api, tmp_path, environment, NMT):
        await api.until(lambda: ("events", "n1.node-name-taken") in api.objects, seconds=60)
        shown = await hotpool_agent("status", "--node", "n1")
        assert shown.code == 4
        assert "report: node name 'n1' belongs to another live agent (instance other)" in shown.out + shown.err
        problems = json.loads((await hotpool_agent("status", "--node", "n1", "-o", "json")).out)["problems"]
        assert "another live agent" in problems["report"]
    heartbeats.cancel()


async def _renew_lease(api: FakeApi) -> None:
    for count in range(10**6):
        api.put("leases", "hotpool-node-n1", {"metadata": {}, "spec": {"renewTime": str(count)}})
        await asyncio.sleep(0.1)


async def test_an_invalid_catalogue_is_a_usage_error_with_all_lines(tmp_path: Path, hotpool_agent: Command) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\nservices:\n- {id: a, type: asr}\n- {id: b, prot: 1}\n", encoding="utf-8")
    result = await hotpool_agent("run", "--catalogue", str(path), "--node", "n1")
    assert result.code == 2
    assert [line.split(": ")[0] for line in result.err.splitlines()] == [f"{path}:{line}" for line in (3, 4, 4, 4)]


async def test_a_missing_kubeconfig_is_a_usage_error(tmp_path: Path, hotpool_agent: Command) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\n", encoding="utf-8")
    missing = str(tmp_path / "none")
    result = await hotpool_agent("run", "--catalogue", str(path), "--node", "n1", "--kubeconfig", missing)
    assert result.code == 2
    assert "no kubeconfig: " in result.err


async def test_invalid_input_on_the_socket_gets_a_response_and_the_server_continues(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    async with daemon(api, tmp_path, environment, NMT):
        path = socket_path(tmp_path / "state" / "n1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        reader, writer = await asyncio.open_unix_connection(path)
        for line in (b"nonsense\n", b"{}\n", b'{"op": "fly"}\n', b'{"op": "start"}\n', b"\xff\n"):
            writer.write(line)
            assert not json.loads(await reader.readline())["ok"]
        writer.write(b"x" * (2 * protocol.LINE_BYTES) + b"\n")
        assert "at most" in json.loads(await reader.readline())["error"]
        writer.close()
        status = await asyncio.to_thread(protocol.send, path, protocol.Request(op="status"))
        assert status["services"][0]["id"] == "idle"


def test_the_socket_of_a_folder_with_a_long_path_is_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp")  # noqa: S108 - only the name is used
    deep = tmp_path / ("d" * 120)
    assert socket_path(tmp_path / "n1") == tmp_path / "n1" / "agent.sock"
    assert socket_path(deep).parent == Path(f"/tmp/hotpool-agent-{os.getuid()}")  # noqa: S108
    assert socket_path(deep) == socket_path(deep) != socket_path(deep / "x")
    monkeypatch.setattr("tempfile.tempdir", "/" + "t" * 120)
    with pytest.raises(PathError, match="longer than the 107 bytes"):
        socket_path(deep)
