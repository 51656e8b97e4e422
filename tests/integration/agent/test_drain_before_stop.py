"""The agent waits for work in progress before it stops, and before it stops one service (requirements B5, B10, C5)."""

import asyncio
import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.agent_run import Running, agent_running, capability, supervised
from tests.support.fake_api import FakeApi

from hotpool_agent import shutdown
from hotpool_agent.control.protocol import Request
from hotpool_agent.services import usage

IDLE = "- {id: s, type: asr, autoStart: true, preStopSeconds: 0, run: {command: [sleep, '600']}}\n"
LONG = "drainTimeoutSeconds: 600\n"


@dataclass
class Metrics:
    """A page of metrics with the number of running requests."""

    running: int = 3
    port: int = 0
    reads: int = 0

    def source(self) -> str:
        """Return the catalogue's field that reads it."""
        return f"inFlight: {{http: {{port: {self.port}, path: /metrics}}, metric: running}}"

    async def answer(self, _: web.Request) -> web.Response:
        """Return the page."""
        self.reads += 1
        return web.Response(text=f'# TYPE running gauge\nrunning{{model="a"}} {self.running}\nrunning_total 7\n')


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an operator confirm, and services be read, at once."""
    monkeypatch.setattr(shutdown, "CONFIRMATION_SECONDS", 0.05)
    monkeypatch.setattr(usage, "PERIOD_SECONDS", 0.05)


@pytest.fixture
async def metrics() -> AsyncIterator[Metrics]:
    page = Metrics()
    app = web.Application()
    app.router.add_get("/metrics", page.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    page.port = int(runner.addresses[0][1])
    yield page
    await runner.cleanup()


def set_conditions(api: FakeApi, **statuses: str) -> None:
    """Write conditions of the node, as the operator does."""
    found = copy.deepcopy(api.objects["nodecapabilities", "n1"])
    found["status"]["conditions"] = [{"type": kind, "status": status} for kind, status in statuses.items()]
    api.put("nodecapabilities", "n1", found)


def reported(api: FakeApi) -> dict[str, Any]:
    """Return the first service of the stored report."""
    services: list[dict[str, Any]] = (api.report("n1") or {}).get("services") or [{}]
    return services[0]


def is_draining(api: FakeApi) -> bool:
    return bool((api.report("n1") or {}).get("draining"))


async def running(api: FakeApi, it: Running) -> None:
    await it.until("s", "Running")
    await api.until(lambda: capability(api) == (True, None))


async def test_a_stop_of_the_agent_waits_until_the_drain_is_confirmed(api: FakeApi, tmp_path: Path) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), IDLE, head=LONG) as it:
        await running(api, it)
        it.stop.set()
        await api.until(lambda: is_draining(api))
        set_conditions(api, Draining="True", Drained="Unknown")
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats + 1)
        assert (it.state("s"), (api.report("n1") or {})["leaving"]) == ("Running", False)
        set_conditions(api, Draining="True", Drained="True")
        await it.shut_down()
    assert [(write.report["draining"], write.report["leaving"]) for write in api.writes][-2:] == [(True, True)] * 2
    assert reported(api)["state"] == "Stopped"


async def test_a_stop_of_the_agent_waits_for_no_longer_than_its_time_out(api: FakeApi, tmp_path: Path) -> None:
    head = "drainTimeoutSeconds: 0.2\n"
    entry = IDLE.replace("preStopSeconds: 0", "preStopSeconds: 0, drainTimeoutSeconds: 600")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, head=head) as it:
        await running(api, it)
        await it.shut_down()
    assert any(write.report["draining"] and not write.report["leaving"] for write in api.writes)
    assert reported(api)["state"] == "Stopped"


async def test_a_stop_of_the_agent_does_not_trust_a_confirmation_for_an_earlier_process(
    api: FakeApi, tmp_path: Path
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), IDLE, head=LONG) as it:
        await running(api, it)
        drain = it.agent.services.node_drain
        stored = copy.deepcopy(api.objects["nodecapabilities", "n1"])
        stored["status"]["conditions"] = [{"type": kind, "status": "True"} for kind in ("Draining", "Drained")]
        stored["status"]["report"] |= {"session": "former", "draining": True}
        drain.on_capability(stored)
        assert drain.drained
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await drain.wait_drained()
        stored["status"]["report"]["session"] = it.agent.blank.session
        drain.on_capability(stored)
        await drain.wait_drained()


async def test_a_stop_of_a_service_withdraws_it_and_waits_until_its_own_number_is_zero(
    api: FakeApi, tmp_path: Path, port: int, metrics: Metrics
) -> None:
    entry = supervised("s", port) + f"  drainTimeoutSeconds: 600\n  {metrics.source()}\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await running(api, it)
        assert metrics.reads == 0
        assert reported(api)["inFlight"] is None
        stop = asyncio.create_task(it.agent.services.command("stop", "s", wait=True))
        await api.until(lambda: reported(api)["inFlight"] == 3)
        assert capability(api) == (False, "Stopped")
        metrics.running = 1
        await api.until(lambda: reported(api)["inFlight"] == 1)
        assert (it.state("s"), stop.done()) == ("Stopping", False)
        metrics.running = 0
        assert await stop == "s: Stopped"
        await api.until(lambda: reported(api)["inFlight"] is None)
        reads = metrics.reads
        await it.agent.services.command("start", "s", wait=True)
        await running(api, it)
        assert metrics.reads == reads


async def test_a_stop_of_a_service_without_a_number_waits_for_the_whole_time_unless_its_node_is_drained(
    api: FakeApi, tmp_path: Path
) -> None:
    entry = IDLE.replace("preStopSeconds: 0", "preStopSeconds: 0, drainTimeoutSeconds: 600")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await running(api, it)
        stop = asyncio.create_task(it.agent.services.command("stop", "s", wait=True))
        await api.until(lambda: capability(api) == (False, "Stopped"))
        set_conditions(api, Draining="False", Drained="True")
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats + 1)
        assert (it.state("s"), stop.done()) == ("Stopping", False)
        set_conditions(api, Draining="True", Drained="True")
        assert await stop == "s: Stopped"


async def test_a_start_ends_the_wait_of_a_stop_and_keeps_the_process(api: FakeApi, tmp_path: Path) -> None:
    entry = IDLE.replace("preStopSeconds: 0", "preStopSeconds: 0, drainTimeoutSeconds: 600")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await running(api, it)
        pid = it.service("s").machine.pid
        await it.agent.services.command("stop", "s", wait=False)
        await api.until(lambda: capability(api) == (False, "Stopped"))
        await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: capability(api) == (True, None))
        assert it.service("s").machine.pid == pid


async def test_numbers_of_running_services_are_read_while_the_node_drains_and_not_before(
    api: FakeApi, tmp_path: Path, metrics: Metrics
) -> None:
    observe = f"observe: {{tcp: {{port: {metrics.port}}}, periodSeconds: 0.05}}"
    entry = f"- id: s\n  type: asr\n  {observe}\n  {metrics.source()}\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await running(api, it)
        assert metrics.reads == 0
        await it.agent.dispatch(Request(op="drain"))
        await api.until(lambda: reported(api)["inFlight"] == 3)
        await it.agent.dispatch(Request(op="undrain"))
        await api.until(lambda: reported(api)["inFlight"] is None)
        reads = metrics.reads
        await api.until(lambda: len(api.beats) > 1)
        assert metrics.reads == reads
