"""Services that hang, crash and flap, and heavy ones that load (requirements A6, A7, A8): real processes."""

import os
import signal
from pathlib import Path

import aiohttp
import psutil
import pytest
from tests.support.agent_run import Running, agent_running, capability, eventually, supervised
from tests.support.fake_api import FakeApi, fake_api
from tests.support.jumping_clock import jump, jumping

from hotpool_agent.control.protocol import Request
from localfleet.ports import free_port

HALF_LIFE = 60.0
OVER = 4 * HALF_LIFE
"""Seconds after which the penalty of four crashes has decayed."""
LIVELY = (
    "  ready: {http: {path: /health}, periodSeconds: 0.1, timeoutSeconds: 2, startSeconds: 20}\n"
    "  live: {periodSeconds: 0.1, timeoutSeconds: 0.3, failures: 3}\n"
)


async def crash(it: Running, identifier: str = "s") -> None:
    """Kill the process and wait until the service has noticed."""
    service = it.service(identifier)
    pid = service.machine.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    await service.notifier.wait_for(lambda: service.machine.pid != pid)


async def flap(it: Running, api: FakeApi) -> None:
    """Start the service and crash it three times, so that it runs and is not offered."""
    await it.until("s", "Stopped")
    await it.agent.services.command("start", "s", wait=True)
    for _ in range(3):
        await crash(it)
        await it.until("s", "Running")
    await api.until(lambda: capability(api) == (False, "Flapping"))
    (shown,) = (await it.agent.dispatch(Request(op="status")))["services"]
    assert (shown["state"], shown["notOffered"]) == ("Running", "Flapping")


@pytest.mark.parametrize("how", ["stopped by a signal", "answers 503"])
async def test_a_hung_service_leaves_running_and_is_restarted(
    api: FakeApi, tmp_path: Path, port: int, how: str
) -> None:
    entry = supervised("s", port, more=LIVELY)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, restart_seconds=1.0) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: capability(api) == (True, None))
        pid = it.service("s").machine.pid
        assert pid
        if how == "answers 503":
            async with aiohttp.ClientSession() as session:
                await session.post(f"http://127.0.0.1:{port}/health?status=503")
        else:
            os.kill(pid, signal.SIGSTOP)
        await api.until(lambda: capability(api) == (False, "Failed"))
        assert "3 probes in a row failed" in (it.service("s").machine.last_error or "")
        await it.until("s", "Running", seconds=20)
        assert it.service("s").machine.pid not in {None, pid}
        assert not psutil.pid_exists(pid)
        await api.until(lambda: capability(api) == (True, None))
        await it.shut_down()


async def test_a_crashed_service_is_restarted_and_its_desired_state_is_unchanged(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: capability(api) == (True, None))
        await crash(it)
        await api.until(lambda: capability(api) == (False, "Failed"))
        await it.until("s", "Running")
        await api.until(lambda: capability(api) == (True, None))
        (service,) = (api.report("n1") or {})["services"]
        assert (service["restarts"], service["lastError"]) == (1, "killed by SIGKILL")
        assert (service["desired"], service["desiredBy"]) == ("Running", "local")
        await it.shut_down()


async def test_restarts_and_the_last_error_survive_the_agent_until_a_command(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    config, entry = api.kubeconfig(tmp_path), supervised("s", port)
    async with agent_running(tmp_path, config, entry) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await crash(it)
        await eventually(lambda: it.service("s").machine.restarts == 1)
        await it.until("s", "Running")
        await it.shut_down()
    async with agent_running(tmp_path, config, entry) as it:
        await it.until("s", "Running")
        (service,) = (api.report("n1") or {})["services"]
        assert (service["restarts"], service["lastError"]) == (1, "killed by SIGKILL")
        await it.agent.services.command("restart", "s", wait=True)
        await it.shut_down()
    async with agent_running(tmp_path, config, entry) as it:
        await it.until("s", "Running")
        assert (it.service("s").machine.restarts, it.service("s").machine.last_error) == (1, None)
        await it.shut_down()


async def test_a_service_that_cannot_start_is_retried_until_it_is_stopped(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    entry = supervised("s", port, "--exit-code", "3")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=False)
        await eventually(lambda: it.service("s").machine.restarts >= 3, 20)
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert it.service("s").machine.last_error is None
        assert all(not item["ready"] for write in api.writes for item in write.report["capabilities"])
        await it.shut_down()


@jumping
async def test_a_flapping_service_runs_but_is_not_offered_until_the_penalty_has_decayed(
    tmp_path: Path, port: int
) -> None:
    async with (
        fake_api() as api,
        agent_running(
            tmp_path, api.kubeconfig(tmp_path), supervised("s", port), flap_half_life_seconds=HALF_LIFE
        ) as it,
    ):
        await flap(it, api)
        assert it.state("s") == "Running"
        count = len(api.writes)
        await crash(it)
        await api.until(lambda: len(api.writes) > count and capability(api) == (False, "Failed"))
        await it.until("s", "Running")
        assert capability(api) != (True, None)
        jump(OVER)
        await api.until(lambda: capability(api) == (True, None))
        await it.shut_down()


@jumping
async def test_the_penalty_survives_a_restart_of_the_agent(tmp_path: Path, port: int) -> None:
    entry = supervised("s", port)
    async with fake_api() as api:
        kubeconfig = api.kubeconfig(tmp_path)
        async with agent_running(tmp_path, kubeconfig, entry, flap_half_life_seconds=HALF_LIFE) as it:
            await flap(it, api)
        count = len(api.writes)
        async with agent_running(tmp_path, kubeconfig, entry, flap_half_life_seconds=HALF_LIFE) as it:
            await api.until(lambda: len(api.writes) > count)
            (first,) = api.writes[count].report["capabilities"]
            assert (first["ready"], first["reason"]) == (False, "Flapping")
            jump(OVER)
            await api.until(lambda: capability(api) == (True, None))
            await it.shut_down()


async def test_heavy_services_load_one_at_a_time_and_light_ones_do_not_wait(api: FakeApi, tmp_path: Path) -> None:
    def entry(identifier: str, delay: str, fields: str) -> str:
        return supervised(identifier, free_port(), "--start-delay", delay).replace("  run:", f"  {fields}\n  run:")

    heavy = "autoStart: true\n  heavy: true"
    entries = entry("h1", "0.5", heavy) + entry("h2", "0.5", heavy) + entry("h3", "0", heavy)
    entries += entry("light", "0", "autoStart: true")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
        for identifier in ("h1", "h2", "h3", "light"):
            await it.until(identifier, "Running", seconds=30)
        started = {
            name: psutil.Process(service.machine.pid).create_time()
            for name, service in it.agent.services.services.items()
        }
        tick = 0.02  # The kernel's start times have a resolution of a hundredth of a second.
        assert started["h2"] - started["h1"] >= 0.5 - tick
        assert started["h3"] - started["h2"] >= 0.5 - tick
        assert started["light"] < started["h2"]
        await it.shut_down()


async def test_a_heavy_service_that_is_stopped_while_it_waits_lets_the_next_one_load(
    api: FakeApi, tmp_path: Path
) -> None:
    heavy = "  heavy: true\n  run:"
    entries = supervised("h1", free_port(), "--start-delay", "30").replace("  run:", heavy)
    entries += "".join(supervised(name, free_port()).replace("  run:", heavy) for name in ("h2", "h3"))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
        await it.until("h3", "Stopped")
        for identifier in ("h1", "h2", "h3"):
            await it.agent.services.command("start", identifier, wait=False)
        await eventually(lambda: it.service("h1").machine.pid)
        assert await it.agent.services.command("stop", "h2", wait=True) == "h2: Stopped"
        assert it.state("h3") == "Starting"
        assert it.service("h3").machine.pid is None
        assert await it.agent.services.command("stop", "h1", wait=True) == "h1: Stopped"
        await it.until("h3", "Running")
        await it.shut_down()
