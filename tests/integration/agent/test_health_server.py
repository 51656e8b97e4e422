"""/healthz, /readyz and /metrics of a running agent, over real HTTP (requirements A7, B2, B7, B8, B11)."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from tests.support.agent_process import Command
from tests.support.agent_run import Running, agent_running, eventually, supervised
from tests.support.fake_api import FakeApi, Fault, is_beat, is_report, rejection

from hotpool_agent import __version__
from hotpool_agent.catalogue.loader import parse_catalogue
from hotpool_agent.metrics import Metrics
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.settings import Settings
from localfleet.ports import free_port

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


@dataclass
class Response:
    """Response of an endpoint."""

    status: int
    body: Any


async def get(it: Running, path: str) -> Response:
    await eventually(lambda: it.agent.listening, seconds=30)
    url = f"http://{it.agent.listening}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await (response.text() if path == "/metrics" else response.json())
        return Response(response.status, body)


async def metrics_of(it: Running) -> dict[tuple[str, ...], float]:
    """Return (name, label values…) → value of the metrics of an agent."""
    return parse((await get(it, "/metrics")).body)


def parse(text: str) -> dict[tuple[str, ...], float]:
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert all(name.startswith(("hotpool_agent_", "process_")) for name, *_ in values)
    return {(key[0].removeprefix("hotpool_agent_"), *key[1:]): value for key, value in values.items()}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - HTTP has no events
            await asyncio.sleep(0.02)


async def until_ready(it: Running, status: int = 200) -> Response:
    async def has_status() -> bool:
        return (await get(it, "/readyz")).status == status

    await until(has_status)
    return await get(it, "/readyz")


async def test_ready_means_that_the_api_server_has_the_current_report(api: FakeApi, tmp_path: Path) -> None:
    fault = Fault(is_report, code=500, times=10**9)
    api.faults.append(fault)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await eventually(lambda: it.agent.reporter.problem != "not connected yet", seconds=30)
        not_yet = await get(it, "/readyz")
        assert not_yet.status == 503
        assert not not_yet.body["ready"]
        assert "500" in not_yet.body["problems"]["report"]
        health = await get(it, "/healthz")
        assert (health.status, health.body["problems"]["report"]) == (200, not_yet.body["problems"]["report"])
        assert (await metrics_of(it))["connected",] == 0
        fault.times = 0
        assert (await until_ready(it)).body == {"ready": True, "problems": {}}
        assert (await get(it, "/healthz")).body == {"problems": {}}
        # Not ready until the API server has accepted a change.
        fault.times = 10**9
        await it.agent.services.command("start", "idle", wait=True)
        assert (await get(it, "/readyz")).status == 503
        fault.times = 0
        await until_ready(it)
        assert (api.report("n1") or {})["summary"] == "1/1"


async def test_a_rejected_report_is_not_ready_until_another_is_accepted(api: FakeApi, tmp_path: Path) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await until_ready(it)
        refused = rejection()
        api.faults.append(refused)
        await it.agent.services.command("start", "idle", wait=True)
        await it.agent.reporter.flush()
        rejected = await get(it, "/readyz")
        assert (rejected.status, "too odd" in rejected.body["problems"]["report"]) == (503, True)
        assert (await metrics_of(it))["reports_total", "rejected"] >= 1
        assert (await metrics_of(it))["connected",] == 0
        refused.times = 0
        await it.agent.services.command("stop", "idle", wait=True)
        await it.agent.reporter.flush()
        await until_ready(it)


async def test_metrics_count_reports_heartbeats_and_services(api: FakeApi, tmp_path: Path) -> None:
    services = supervised("s", free_port()) + NMT
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), services) as it:
        await until_ready(it)
        first = await metrics_of(it)
        assert first["build_info", __version__] == 1
        assert first["connected",] == 1
        assert first["services", "Stopped"] == 2
        assert [first["services", state] for state in ("Starting", "Running", "Stopping", "Failed")] == [0] * 4
        assert first["service_restarts_total", "s"] == first["service_restarts_total", "idle"] == 0
        await it.agent.services.command("start", "s", wait=True)
        await it.agent.reporter.flush()
        await api.until(lambda: api.beats, seconds=30)
        second = await metrics_of(it)
        assert second["services", "Running"] == 1
        assert second["reports_total", "accepted"] == len(api.writes) > first["reports_total", "accepted"]
        assert second["report_bytes",] > 500
        assert second["last_accepted_timestamp_seconds",] >= first["last_accepted_timestamp_seconds",] > 1.7e9
        api.faults.append(Fault(is_beat, code=403, times=2))

        async def counted() -> bool:
            now = await metrics_of(it)
            return now.get(("heartbeats_total", "denied")) == 2 and now["heartbeats_total", "accepted"] >= 2

        await until(counted)


async def test_metrics_include_the_memory_of_the_process(api: FakeApi, tmp_path: Path) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        resident = (await metrics_of(it))["process_resident_memory_bytes",]
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


async def test_each_agent_on_a_machine_has_its_own_port_and_metrics(api: FakeApi, tmp_path: Path) -> None:
    config = api.kubeconfig(tmp_path)
    async with agent_running(tmp_path, config, NMT) as one, agent_running(tmp_path, config, "", node="n2") as two:
        await until_ready(one)
        await until_ready(two)
        assert (await metrics_of(one))["services", "Stopped"] == 1
        assert (await metrics_of(two))["services", "Stopped"] == 0
        assert one.agent.listening != two.agent.listening


async def test_a_taken_port_is_an_error_with_a_remedy(api: FakeApi, tmp_path: Path, hotpool_agent: Command) -> None:
    catalogue = tmp_path / "c.yaml"
    catalogue.write_text("version: 1\n", encoding="utf-8")
    words = ["run", "--catalogue", str(catalogue), "--node", "n1", "--kubeconfig", str(api.kubeconfig(tmp_path))]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = await hotpool_agent(*words, "--listen", address)
    assert (result.code, result.out) == (1, "")
    assert f"cannot serve /metrics and /healthz on {address}: the port is taken by " in result.err
    assert "--listen" in result.err
    assert api.writes == []


@pytest.mark.parametrize("listen", ["9810", "localhost:9810", "127.0.0.1:", "127.0.0.1:65536", "::1", "[::1]", ":1"])
async def test_an_invalid_address_is_a_usage_error(hotpool_agent: Command, listen: str) -> None:
    result = await hotpool_agent("run", "--catalogue", "none", "--listen", listen)
    assert result.code == 2
    assert result.err.startswith("--listen: ")


def test_addresses_of_both_families_are_accepted() -> None:
    assert Settings(listen="[::1]:0").listen == "[::1]:0"
    assert Settings.model_fields["listen"].default == "127.0.0.1:9810"
    with pytest.raises(ValidationError):
        Settings(listen="127.0.0.1")


async def test_a_star_listens_on_every_address(api: FakeApi, tmp_path: Path) -> None:
    port = free_port()
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, listen=f"*:{port}") as it:
        await eventually(lambda: it.agent.listening, seconds=30)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as response:
            assert response.status == 200
        hosts = {item.laddr.ip for item in psutil.Process().net_connections() if item.laddr.port == port}
        assert hosts >= {"0.0.0.0"}  # noqa: S104 - compared, not listened on.


async def test_refused_heartbeats_end_connected(api: FakeApi, tmp_path: Path) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await until_ready(it)
        await api.until(lambda: api.beats)
        api.faults.append(Fault(is_beat, code=403, times=10**9))
        await eventually(lambda: it.agent.heartbeat.problem, seconds=30)
        assert (await metrics_of(it))["connected",] == 0


def test_restarts_are_counted_by_service_and_a_removed_service_has_no_series() -> None:
    catalogue = parse_catalogue(f"version: 1\nservices:\n{NMT}", "test")
    snapshots = [ServiceStatus(catalogue.services[0], "Failed", restarts=3)]
    metrics = Metrics()
    metrics.expose(lambda: snapshots, connected=lambda: False)
    before = parse(generate_latest(metrics.registry).decode())
    assert before["service_restarts_total", "idle"] == 3
    assert before["services", "Failed"] == 1
    snapshots.clear()
    assert ("service_restarts_total", "idle") not in parse(generate_latest(metrics.registry).decode())
