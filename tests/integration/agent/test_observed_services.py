"""Observed services in a running agent (requirements A3, A6): from the probe to the report at a fake API server.

Requirement B5.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.agent_run import FAKE, agent_running
from tests.support.fake_api import FakeApi
from tests.support.fake_bus import FakeBus, Unit, fake_bus
from tests.support.http_services import HttpServices

from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober
from localfleet.ports import free_port

UNIT = "whisper.service"
OK = ProbeResult(ok=True)
HUNG = ProbeResult(ok=False, detail="no answer in 2 s")
ABSENT = ProbeResult(ok=False, absent=True, detail="nothing there")


def entry_of(identifier: str, probe: str, more: str = "") -> str:
    """Return the catalogue entry of an observed service whose type is its id."""
    return f"- {{id: {identifier}, type: {identifier}, observe: {{{probe}, periodSeconds: 0.05{more}}}}}\n"


async def until_shown(
    api: FakeApi, identifier: str, state: str, pid: int | None = None, error: str | None = None
) -> None:
    """Wait until the stored report has the service in this state."""

    def is_shown() -> bool:
        services: list[dict[str, Any]] = (api.report("n1") or {"services": []})["services"]
        shown = [(s["state"], s["pid"], s["lastError"]) for s in services if s["id"] == identifier]
        return shown == [(state, pid, error)]

    await api.until(is_shown)


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeBus]:
    async with fake_bus(tmp_path) as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        yield bus


@pytest.fixture
async def process() -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process that does nothing."""
    process = await asyncio.create_subprocess_exec("sleep", "600")
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_every_kind_of_probe_is_reported_alike(
    api: FakeApi, tmp_path: Path, bus: FakeBus, process: asyncio.subprocess.Process
) -> None:
    port, beat = free_port(), tmp_path / "beat"
    entries = (
        entry_of("tcp", f"tcp: {{port: {port}}}")
        + entry_of("file", "file: {path: beat}")
        + entry_of("systemd", f"systemd: {{unit: {UNIT}}}")
        + entry_of("process", "process: {pidFile: run.pid}")
    )
    reasons = {
        "tcp": f"127.0.0.1:{port}: Connection refused; [::1]:{port}: Connection refused",
        "file": "beat: no such file",
        "systemd": f"{UNIT}: Unit {UNIT} not loaded.",
        "process": f"{tmp_path / 'run.pid'}: no such file",
    }
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
        for kind in ("tcp", "file", "systemd", "process"):
            await until_shown(api, kind, "Stopped", error=reasons[kind])
        with socket.create_server(("127.0.0.1", port)):
            beat.touch()
            bus.units[UNIT] = Unit(pid=4711)
            (tmp_path / "run.pid").write_text(str(process.pid))
            await until_shown(api, "tcp", "Running")
            await until_shown(api, "file", "Running")
            await until_shown(api, "systemd", "Running", 4711)
            await until_shown(api, "process", "Running", process.pid)
        beat.unlink()
        bus.units[UNIT] = Unit("failed")
        process.kill()
        reasons["process"] = f"{tmp_path / 'run.pid'}: no process {process.pid}"
        for kind in ("tcp", "file", "process"):
            await until_shown(api, kind, "Stopped", error=reasons[kind])
        await until_shown(api, "systemd", "Failed", None, f"{UNIT}: failed")
        await it.shut_down()


async def test_a_new_main_process_is_reported(api: FakeApi, tmp_path: Path, bus: FakeBus) -> None:
    bus.units[UNIT] = Unit(pid=1001)
    entry = entry_of("asr", f"systemd: {{unit: {UNIT}}}")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await until_shown(api, "asr", "Running", 1001)
        bus.units[UNIT] = Unit(pid=1002)
        await until_shown(api, "asr", "Running", 1002)
        await it.shut_down()


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ([HUNG, OK], ["Failed", "Running"]),
        ([OK, HUNG, HUNG, OK, HUNG, HUNG], ["Running"] * 6),
        ([OK, HUNG, HUNG, HUNG, HUNG, OK], ["Running", "Running", "Running", "Failed", "Failed", "Running"]),
        ([OK, ABSENT, HUNG, OK], ["Running", "Stopped", "Failed", "Running"]),
        ([OK, HUNG, ABSENT], ["Running", "Running", "Stopped"]),
    ],
)
async def test_failures_count_in_a_row_and_absence_at_once(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: list[ProbeResult], states: list[str]
) -> None:
    remaining: Iterator[ProbeResult] = iter(results)
    seen: list[str] = []
    done = asyncio.Event()

    async def probe(*_: object) -> ProbeResult:
        seen.append(it.state("asr"))
        if result := next(remaining, None):
            return result
        done.set()
        return await asyncio.Event().wait() and OK

    monkeypatch.setattr(Prober, "probe", probe)
    entry = entry_of("asr", "tcp: {port: 1}", ", failures: 3")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it, asyncio.timeout(20):
        await done.wait()
        assert seen[1:] == states
        await it.shut_down()


async def test_restarts_by_the_owner_of_an_observed_service_are_no_flaps(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    """The service refuses requests with 503 before it ends, which makes it Failed, and then Stopped."""
    entry = entry_of("o", f"http: {{path: /health, port: {port}}}", ", failures: 1")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, flap_half_life_seconds=60) as it:
        await it.until("o", "Stopped")
        for _ in range(4):
            service = await asyncio.create_subprocess_exec(sys.executable, FAKE, "--port", str(port))
            await it.until("o", "Running")
            assert not it.service("o").status().flapping
            async with aiohttp.ClientSession() as session:
                await session.post(f"http://127.0.0.1:{port}/health?status=503")
            await it.until("o", "Failed")
            service.kill()
            await service.wait()
            await it.until("o", "Stopped")
        await it.shut_down()


async def test_an_observed_service_that_fails_and_recovers_is_flapping(
    api: FakeApi, tmp_path: Path, observed: HttpServices
) -> None:
    name = next(iter(observed.up))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), observed.catalogue(), flap_half_life_seconds=60) as it:
        for _ in range(3):
            await it.until(name, "Running")
            observed.up[name] = False
            await it.until(name, "Failed")
            observed.up[name] = True
        await it.until(name, "Running")
        assert it.service(name).status().flapping
        await it.shut_down()
