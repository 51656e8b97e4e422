"""`hotpool-agent drain`, `undrain` and `stop --all`: an owner takes the machine back (requirements A2, B6, C5)."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_process import Command, daemon
from tests.support.agent_run import agent_running, supervised
from tests.support.failing_disks import Full
from tests.support.fake_api import FakeApi, Fault, is_report

from hotpool_agent.control.protocol import Request, RequestError
from localfleet.ports import free_port

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"
OBSERVED = "- {id: seen, type: llm, port: 9, observe: {tcp: {}}}\n"


def draining(api: FakeApi) -> Any:
    return (api.report("n1") or {}).get("draining")


async def test_a_drain_is_reported_shown_and_survives_a_restart_of_the_agent(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, NMT) as process:
        assert draining(api) is False
        for _ in range(2):
            drained = await hotpool_agent("drain", "--node", "n1")
            assert (drained.code, drained.out, drained.err) == (0, "n1: draining\n", "")
            assert draining(api) is True
        shown = await hotpool_agent("status", "--node", "n1")
        assert (shown.code, shown.err) == (0, "")
        assert "draining: no service is offered new work until `hotpool-agent undrain`" in shown.out
        process.send_signal(signal.SIGKILL)
        await process.wait()
    api.writes.clear()
    async with daemon(api, tmp_path, environment, NMT):
        await api.until(lambda: api.writes, seconds=30)
        assert {write.report["draining"] for write in api.writes} == {True}
        assert json.loads((await hotpool_agent("status", "--node", "n1", "-o", "json")).out)["draining"] is True
        for _ in range(2):
            ended = await hotpool_agent("undrain", "--node", "n1")
            assert (ended.code, ended.out, ended.err) == (0, "n1: not draining\n", "")
            assert draining(api) is False
        assert "draining" not in (await hotpool_agent("status", "--node", "n1")).out


async def test_a_drain_does_not_wait_for_the_debounce_and_stops_no_service(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, debounce=60) as it:
        await it.until("idle", "Stopped")
        await it.agent.dispatch(Request(op="start", id="idle"))
        async with asyncio.timeout(10):
            assert await it.agent.dispatch(Request(op="drain")) == "n1: draining"
        assert draining(api) is True
        assert it.state("idle") == "Running"
        (service,) = (await it.agent.dispatch(Request(op="status")))["services"]
        assert (service["state"], service["notOffered"]) == ("Running", "Draining")


async def test_a_drain_without_the_api_server_is_kept_and_reported_later(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, announce_seconds=0.2) as it:
        await it.agent.reporter.flush()
        fault = Fault(is_report, code=503, times=10**9)
        api.faults.append(fault)
        outcome = await it.agent.dispatch(Request(op="drain"))
        assert outcome.startswith("n1: draining, but not reported yet: ")
        fault.times = 0
        await api.until(lambda: draining(api) is True, seconds=30)


async def test_a_drain_that_cannot_be_stored_is_an_error(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    disk = Full()
    quick = environment | {"HOTPOOL_AGENT_REQUEST_SECONDS": "0.5"}
    async with daemon(api, tmp_path, quick, NMT, inside=disk.inside) as process:
        disk.break_writes(process.pid, tmp_path)
        refused = await hotpool_agent("drain", "--node", "n1")
        assert (refused.code, refused.out) == (1, "")
        assert refused.err == "done, but it cannot be written to disk; see the agent's log\n"
        disk.repair(process.pid, tmp_path)


async def test_stop_all_stops_every_service_that_the_agent_runs(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], hotpool_agent: Command
) -> None:
    async with daemon(api, tmp_path, environment, supervised("s", free_port()) + NMT + OBSERVED):
        for name in ("s", "idle"):
            assert (await hotpool_agent("start", name, "--node", "n1")).code == 0
        stopped = await hotpool_agent("stop", "--all", "--node", "n1")
        assert (stopped.code, stopped.out, stopped.err) == (0, "s: Stopped\nidle: Stopped\n", "")
        again = await hotpool_agent("stop", "--all", "--node", "n1")
        assert (again.code, again.out) == (0, "s: Stopped already\nidle: Stopped already\n")
        services = json.loads((await hotpool_agent("status", "--node", "n1", "-o", "json")).out)["services"]
        assert [service["desired"] for service in services] == ["Stopped", "Stopped", None]


async def test_stop_takes_one_service_or_all(hotpool_agent: Command) -> None:
    for words in ([], ["s", "--all"]):
        refused = await hotpool_agent("stop", *words, "--node", "n1")
        assert (refused.code, refused.err) == (2, "give the ID of one service, or --all\n")


async def test_stop_all_names_the_services_that_did_not_stop(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, supervised("s", free_port()) + NMT) as it:
        await it.until("idle", "Stopped")
        await it.agent.dispatch(Request(op="start", id="idle"))
        stopping = asyncio.create_task(it.agent.dispatch(Request(op="stop-all")))
        await it.until("idle", "Stopping")
        started = asyncio.create_task(it.agent.dispatch(Request(op="start", id="idle")))
        with pytest.raises(RequestError, match=r"^idle: Running, because of a later command$"):
            await stopping
        await started
        await api.until(lambda: api.report("n1"), seconds=30)


async def test_stop_all_without_services_says_so(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, OBSERVED) as it:
        await it.until("seen", "Stopped")
        assert await it.agent.dispatch(Request(op="stop-all")) == "the agent runs no service"
        await api.until(lambda: api.report("n1"), seconds=30)
