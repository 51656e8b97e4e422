"""A damaged state file, or a failing disk (requirement A8): reported, survived, recovered from."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.agent_process import Command, daemon
from tests.support.agent_run import capability, supervised
from tests.support.failing_disks import DISKS, Full
from tests.support.fake_api import FakeApi

from hotpool_agent.control import protocol
from hotpool_agent.state_store import State, StoreError, open_store
from localfleet.ports import free_port

GOOD = {"schemaVersion": 1, "instance": "i", "services": {"a": {"desired": "Running", "desiredBy": "local"}}}
UNPRIVILEGED_UID = 65534


def written(folder: Path, data: bytes) -> Path:
    path = folder / "state.json"
    path.write_bytes(data)
    return path


def reject_constant(name: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(GOOD).encode()[:-5],
        b"",
        b"\0" * 100,
        bytes(range(256)),
        b"[" * 100000,
        b'{"a":' * 100000,
        b"null",
        b"{}",
        json.dumps(GOOD | {"schemaVersion": "two"}).encode(),
        json.dumps(GOOD | {"services": {"a": {"desired": 5}}}).encode(),
        b'{"instance": "\\ud800"}',
        b'{"schemaVersion": 1e999, "instance": "i"}',
        b'{"schemaVersion": ' + b"9" * 5000 + b', "instance": "i"}',
    ],
    ids=[
        *("truncated", "empty", "zeros", "binary", "deep list", "deep mapping", "null", "no instance", "version"),
        *("service", "surrogate", "infinite", "huge"),
    ],
)
def test_an_unreadable_file_is_moved_unchanged_and_reported(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    store = open_store(tmp_path)
    assert store.unreadable_copy
    assert store.unreadable_copy.read_bytes() == data
    assert not path.exists()
    assert (store.state.services, len(store.state.instance)) == ({}, 32)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data())
def test_any_bytes_are_read_as_a_state_or_moved(data: st.DataObject) -> None:
    good = json.dumps(GOOD).encode()
    at, gone = data.draw(st.integers(0, len(good))), data.draw(st.integers(0, 20))
    damaged = good[:at] + data.draw(st.binary(max_size=12)) + good[at + gone :]
    content = data.draw(st.sampled_from([damaged, data.draw(st.binary(max_size=200))]))
    with tempfile.TemporaryDirectory() as name:
        written(Path(name), content)
        try:
            store = open_store(Path(name))
        except StoreError:
            assert json.loads(content, parse_constant=reject_constant)["schemaVersion"] > 1
            return
        assert (store.unreadable_copy is None) == (Path(name) / "state.json").exists()
        # An accepted state can be written again.
        assert State.model_validate_json(store.state.model_dump_json(by_alias=True)) == store.state


def test_a_file_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    newer = json.dumps({"schemaVersion": 2, "instance": 7, "unknown": []}).encode()
    path = written(tmp_path, newer)
    with pytest.raises(StoreError, match="written by a newer hotpool-agent"):
        open_store(tmp_path)
    assert path.read_bytes() == newer


@contextmanager
def folder_without_access() -> Iterator[Path]:
    """Provide a folder that the effective user, which is never root, may not write and whose files it may not read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = written(folder, json.dumps(GOOD).encode())
        path.chmod(0)
        folder.chmod(0o755)
        root = os.geteuid() == 0
        if root:
            os.seteuid(UNPRIVILEGED_UID)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)


def test_a_file_without_read_permission_is_an_error_that_names_it_and_is_kept() -> None:
    with folder_without_access() as folder:
        with pytest.raises(PermissionError) as caught:
            open_store(folder)
        assert str(caught.value.filename) == str(folder / "state.json")
        assert (folder / "state.json").exists()


async def test_a_state_file_that_cannot_be_opened_ends_the_start_with_a_message(
    tmp_path: Path, api: FakeApi, hotpool_agent: Command
) -> None:
    catalogue = tmp_path / "c.yaml"
    catalogue.write_text("version: 1\n", encoding="utf-8")
    (tmp_path / "state" / "n1" / "state.json").mkdir(parents=True)
    options = ["--catalogue", str(catalogue), "--node", "n1", "--kubeconfig", str(api.kubeconfig(tmp_path))]
    result = await hotpool_agent("run", *options)
    assert result.code == 1
    assert result.err.strip().endswith(f"Is a directory: {tmp_path}/state/n1/state.json")


class AgentClient:
    """Client of an agent that runs as a process of its own, and of its state file."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.pid = process.pid
        self.folder = folder

    async def ask(self, op: Any, identifier: str | None = None) -> Any:
        """Return the agent's response. Raises protocol.RequestError."""
        request = protocol.Request(op=op, id=identifier)
        return await asyncio.wait_for(asyncio.to_thread(protocol.send, self.folder / "agent.sock", request), 60)

    async def service(self, identifier: str) -> dict[str, Any]:
        """Return the service's status."""
        status: dict[str, Any] = (await self.ask("status", identifier))["services"][0]
        return status

    async def problem(self) -> str | None:
        """Return the agent's problem with the state file."""
        problem: str | None = (await self.ask("status"))["problems"].get("state")
        return problem

    async def until_problem(self, *, there: bool) -> None:
        async with asyncio.timeout(30):
            while (await self.problem() is not None) is not there:  # noqa: ASYNC110 - the agent sends no notification
                await asyncio.sleep(0.05)

    def stored_desired(self, identifier: str) -> str | None:
        """Return the desired state in the file."""
        stored = State.model_validate_json((self.folder / "state.json").read_bytes()).services.get(identifier)
        return stored.desired if stored else None


@pytest.mark.parametrize("kind", list(DISKS))
async def test_a_failing_disk_ends_no_service_and_loses_no_desired_state_silently(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], kind: str
) -> None:
    disk = DISKS[kind]()
    environment["HOTPOOL_AGENT_RESTART_SECONDS"] = "0.05"
    entries = supervised("a", free_port()) + supervised("b", free_port(), type_="tts")
    async with daemon(api, tmp_path, environment, entries, inside=disk.inside) as process:
        it = AgentClient(process, tmp_path / "state" / "n1")
        await it.ask("start", "a")
        before = await it.service("a")
        disk.break_writes(it.pid, it.folder)
        # The command is carried out but returns an error, because its desired state would not survive.
        with pytest.raises(protocol.RequestError, match="the desired state cannot be written to disk"):
            await it.ask("start", "b")
        assert disk.reason in (await it.problem() or "")
        assert it.stored_desired("b") is None
        await api.until(lambda: capability(api, "tts") == (True, None), 30)
        assert await it.service("a") == before
        # A service that crashes meanwhile is restarted.
        os.kill(before["pid"], signal.SIGKILL)
        await api.until(lambda: _pid(api, "a") not in {None, before["pid"]}, 30)
        disk.repair(it.pid, it.folder)
        await it.until_problem(there=False)
        assert (it.stored_desired("a"), it.stored_desired("b")) == ("Running", "Running")
        assert await it.ask("stop", "b") == "b: Stopped"
        assert it.stored_desired("b") == "Stopped"


async def test_an_agent_that_starts_on_a_full_disk_runs_services_reports_and_recovers(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    disk = Full()
    entry = supervised("a", free_port()).replace("  run:", "  autoStart: true\n  run:")
    async with daemon(api, tmp_path, environment, entry, inside=("prlimit", "--fsize=0:", "--")) as process:
        it = AgentClient(process, tmp_path / "state" / "n1")
        await api.until(lambda: capability(api) == (True, None), 30)
        assert disk.reason in (await it.problem() or "")
        disk.repair(it.pid, it.folder)
        await it.until_problem(there=False)
        instance = (await it.ask("status"))["instance"]
        state = State.model_validate_json((it.folder / "state.json").read_bytes())
        assert (state.instance, state.services["a"].pid) == (instance, _pid(api, "a"))
        assert psutil.pid_exists(state.services["a"].pid or 0)


def _pid(api: FakeApi, identifier: str) -> int | None:
    services = (api.report("n1") or {}).get("services") or []
    return next((item["pid"] for item in services if item["id"] == identifier and item["state"] == "Running"), None)
