"""Reports and heartbeats (requirements B): the agent against an API server with faults on demand.

Requirements B1, B5, B6, B7, B8, B9, B10, B11, B12.
"""

import asyncio
import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.agent_run import agent_running, eventually, supervised, write_catalogue
from tests.support.fake_api import FakeApi, Fault, fake_api, is_beat, is_report, rejection

from hotpool.common.kubeconfig import Target
from hotpool_agent.control.protocol import Request
from hotpool_agent.kube.errors import UnavailableError
from hotpool_agent.kube.http_client import KubeHttpClient
from hotpool_agent.kube.node_resources import NodeResources
from localfleet.ports import free_port

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


def stamps(api: FakeApi) -> list[tuple[int, int]]:
    return [(write.report["epoch"], write.report["sequence"]) for write in api.writes]


def claims(api: FakeApi) -> list[str]:
    """Return the requests by which the agent read the stored report in order to claim or continue an epoch."""
    return [
        path for method, path in api.requests if method == "PATCH" and path.split("?")[0].endswith("capabilities/n1")
    ]


def summary(api: FakeApi) -> str | None:
    return (api.report("n1") or {}).get("summary")


def foreign_report(**changes: Any) -> dict[str, Any]:
    report = {
        "instance": "other",
        "session": "other",
        "epoch": 7,
        "sequence": 3,
        "leaving": False,
        "intervalSeconds": 1,
        "capabilities": [],
    }
    return {"metadata": {"name": "n1"}, "status": {"report": report | changes}}


async def test_an_instance_persists_and_each_process_claims_the_next_epoch(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    for _ in range(2):
        async with agent_running(tmp_path, kubeconfig, NMT) as it:
            await it.until("idle", "Stopped")
            await it.agent.reporter.flush()
            await it.shut_down()
    reports = [write.report for write in api.writes]
    assert {report["epoch"] for report in reports} == {1, 2}
    assert len({report["instance"] for report in reports}) == 1
    assert len({report["session"] for report in reports}) == 2
    assert api.objects["nodecapabilities", "n1"]["metadata"].get("labels") is None


async def test_no_change_no_extra_report(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: len(api.beats) >= 3)
        assert stamps(api) == [(1, 1)]
        await it.shut_down()


async def test_a_body_that_changes_with_each_probe_causes_no_extra_report(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, port: int
) -> None:
    probes: list[float] = []

    async def unhealthy(_: web.Request) -> web.Response:
        probes.append(time.monotonic())
        return web.json_response({"status": "loading", "uptime": probes[-1]})

    app = web.Application()
    app.router.add_get("/", unhealthy)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    probe = "{http: {path: /, expectBody: ok}, periodSeconds: 0.02, failures: 1}"
    entry = f"- {{id: s, type: asr, port: {port}, observe: {probe}}}\n"
    async with agent_running(tmp_path, kubeconfig, entry, debounce=0.0) as it:
        await it.until("s", "Failed")
        await api.until(lambda: "uptime" in json.dumps(api.report("n1")))
        writes, seen = len(api.writes), len(probes)
        await eventually(lambda: len(probes) > seen + 50)
        assert len(api.writes) == writes
        await it.shut_down()
    await runner.cleanup()


async def test_a_gain_waits_for_d_and_a_withdrawal_does_not(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, supervised("s", free_port()), debounce=60.0) as it:
        await it.until("s", "Stopped")
        await api.until(lambda: summary(api) == "0/1")
        await it.agent.services.command("start", "s", wait=True)
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert summary(api) == "0/1"
        await it.agent.reporter.flush()
        assert summary(api) == "1/1"
        pid = it.service("s").machine.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        await api.until(lambda: summary(api) == "0/1")  # within 10 s, far below D
        await it.shut_down()


async def test_a_gain_is_sent_when_d_is_over(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, debounce=0.8) as it:
        await api.until(lambda: summary(api) == "0/1")
        started = time.monotonic()
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: summary(api) == "1/1")
        assert api.writes[-1].at - started >= 0.8
        await it.shut_down()


@pytest.mark.parametrize("kind", ["status", "lost", "hang"])
async def test_a_change_reaches_the_server_after_any_failure_of_its_first_attempt(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, kind: Any
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, request_seconds=0.4) as it:
        await api.until(lambda: summary(api) == "0/1")
        fault = Fault(is_report, kind=kind)
        api.faults.append(fault)
        await it.agent.services.command("start", "idle", wait=True)
        # A write that took effect although its response was lost is read, not sent again.
        await api.until(lambda: len(claims(api)) >= 2)
        await it.agent.reporter.flush()
        assert summary(api) == "1/1"
        assert len(api.writes) == 2
        assert stamps(api) == sorted(set(stamps(api)))
        assert api.most_in_flight == 1
        assert it.agent.reporter.state.epoch == 1
        await it.shut_down()


async def test_an_attempt_that_arrives_after_its_timeout_is_replaced(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    late = Fault(is_report, kind="held")
    async with agent_running(tmp_path, kubeconfig, NMT, request_seconds=0.4) as it:
        await api.until(lambda: summary(api) == "0/1")
        api.faults.append(late)
        write_catalogue(tmp_path, NMT + NMT.replace("idle", "other"))
        await it.agent.reload()
        await api.until(lambda: late.times == 0)
        # The state again equals the stored one when the agent reads the outcome of the attempt.
        write_catalogue(tmp_path, NMT)
        await it.agent.reload()
        await api.until(lambda: len(claims(api)) >= 2)
        await it.agent.reporter.flush()
        late.release.set()
        await api.until(lambda: late.arrived)
        assert summary(api) == "0/1"
        await it.shut_down()


async def test_a_change_while_disconnected_is_kept_with_its_time(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, debounce=2.0) as it:
        await api.until(lambda: summary(api) == "0/1")
        api.faults.append(Fault(lambda _: True, code=503, times=10**6))
        await it.agent.services.command("start", "idle", wait=True)
        since = it.service("idle").since
        await eventually(lambda: it.agent.reporter.problem)
        api.faults.clear()
        await api.until(lambda: summary(api) == "1/1")
        assert abs(_seconds(since, (api.report("n1") or {})["time"])) < 1.0
        await it.shut_down()


async def test_many_changes_are_single_flight_in_order_and_the_last_is_sent(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, debounce=0.0) as it:
        await api.until(lambda: summary(api) == "0/1")
        for _ in range(5):
            await it.agent.services.command("start", "idle", wait=True)
            await it.agent.services.command("stop", "idle", wait=False)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: summary(api) == "1/1")
        assert stamps(api) == sorted(set(stamps(api)))
        assert api.most_in_flight == 1
        await it.shut_down()


async def test_a_second_session_of_one_installation_keeps_the_node(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, debounce=0.0) as it:
        await api.until(lambda: summary(api) == "0/1")
        mine = api.report("n1") or {}
        later = mine | {"session": "copy", "epoch": 9, "sequence": 1}
        api.put("nodecapabilities", "n1", {"metadata": {"name": "n1"}, "status": {"report": later}})
        await eventually(lambda: not it.agent.reporter.holder())
        await it.agent.services.command("start", "idle", wait=True)
        # The copy is silent: after three of its intervals this agent claims the node with the next epoch.
        await api.until(lambda: stamps(api)[-1] == (10, 1))
        assert summary(api) == "1/1"
        await it.shut_down()


async def test_heartbeats_begin_after_the_first_report_and_have_instance_and_epoch(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    api.faults.append(Fault(is_report, code=503, times=5))
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: len(api.beats) >= 3)
        assert api.beats[0].at >= api.writes[0].at
        instance = it.agent.info.instance
        lease = api.lease("n1") or {}
        assert api.objects["leases", "hotpool-node-n1"]["metadata"]["labels"] == {"agent.hotpool.dev/lease": "true"}
        assert (lease["holderIdentity"], lease["leaseDurationSeconds"]) == (f"{instance}/1", 3)
        assert [beat.report["renewTime"] for beat in api.beats] == sorted({b.report["renewTime"] for b in api.beats})
        assert api.beats[-1].at - api.beats[-2].at >= 0.8
        await it.shut_down()


async def test_a_deleted_lease_is_created_again(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: api.beats)
        api.delete("leases", "hotpool-node-n1")
        await api.until(lambda: api.lease("n1"))
        await it.shut_down()


async def test_heartbeats_that_fail_do_not_stop_reports(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    api.faults.append(Fault(is_beat, code=403, times=10**6))
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await eventually(lambda: it.agent.heartbeat.problem)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: summary(api) == "1/1")
        await it.shut_down()


async def test_a_deleted_resource_is_reported_again_with_the_next_epoch(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: ("GET", "watch") in {(m, "watch" if "watch=true" in p else p) for m, p in api.requests})
        api.delete("nodecapabilities", "n1")
        await api.until(lambda: stamps(api)[-1] == (2, 1))
        await it.shut_down()


async def test_a_report_that_vanished_is_sent_again(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: len(api.writes) == 1)
        await eventually(it.agent.reporter.holder)
        api.end_watches()
        api.put("nodecapabilities", "n1", {"metadata": {"name": "n1"}, "status": {}})
        await api.until(lambda: len(api.writes) == 2)
        await it.shut_down()


async def test_the_whole_report_is_written_again_at_the_slow_refresh(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, refresh_seconds=0.2) as it:
        await api.until(lambda: len(api.writes) >= 3)
        assert stamps(api)[:3] == [(1, 1), (1, 2), (1, 3)]
        await it.shut_down()


@pytest.mark.parametrize(
    ("response", "hint"),
    [
        ((401, "Unauthorized"), "rejects this agent's credential"),
        ((403, '{"message": "forbidden"}'), "forbidden"),
        ((404, "404 page not found"), "apply the CRDs"),
        ((404, '{"message": "no", "details": {"kind": "namespaces", "name": "x"}}'), "create the namespace"),
        ((429, "slow down"), "busy"),
        ((500, "oops"), "oops"),
        ((200, '"ok"'), "not a JSON object"),
        ((200, "[]"), "not a JSON object"),
    ],
)
async def test_errors_are_reported_and_recovered_from_without_a_request_storm(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, response: tuple[int, str], hint: str
) -> None:
    code, body = response
    api.faults.append(Fault(lambda request: "watch" not in request.query, code=code, body=body, times=10**6))
    async with agent_running(tmp_path, kubeconfig, NMT, backoff_seconds=0.2) as it:
        await eventually(lambda: hint in (it.agent.reporter.problem or ""))
        started, before = time.monotonic(), len(api.requests)
        await eventually(lambda: time.monotonic() - started > 0.5)
        assert len(api.requests) - before <= 10
        api.faults.clear()
        await api.until(lambda: summary(api) == "0/1")
        await eventually(lambda: it.agent.reporter.problem is None)
        await it.shut_down()


def expire(api: FakeApi) -> None:
    """Make the API server reject the token of `api.kubeconfig`."""
    api.faults.append(Fault(lambda request: request.headers.get("Authorization") == "Bearer t", code=401, times=10**6))


def rotate(kubeconfig: Path, api: FakeApi) -> None:
    """Write a kubeconfig with a fresh token."""
    path = api.kubeconfig(kubeconfig.parent)
    path.write_text(path.read_text().replace('"token": "t"', '"token": "fresh"'))


def replace_text(kubeconfig: Path, text: str | None) -> None:
    """Replace the kubeconfig by an incomplete one, as during a rotation. None: delete it."""
    kubeconfig.unlink()
    if text is not None:
        kubeconfig.write_text(text)


@pytest.mark.parametrize("broken", ['{"apiVersion": "v1", "clus', "", None], ids=["half", "empty", "absent"])
async def test_a_temporarily_unreadable_kubeconfig_does_not_disconnect_the_agent(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, broken: str | None
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        replace_text(kubeconfig, broken)
        expire(api)
        await it.agent.services.command("start", "idle", wait=True)
        await eventually(lambda: it.agent.reporter.problem)
        # Several attempts fail without a readable kubeconfig; the next one succeeds.
        count = len(api.requests)
        await eventually(lambda: len(api.requests) > count + 3)
        rotate(kubeconfig, api)
        await api.until(lambda: summary(api) == "1/1")
        await it.shut_down()


async def test_an_object_that_is_missing_at_each_report_causes_no_request_storm(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    gone = json.dumps({"message": "not found", "details": {"name": "n1"}})
    api.faults.append(Fault(is_report, code=404, body=gone, times=10**6))
    async with agent_running(tmp_path, kubeconfig, NMT, backoff_seconds=0.2) as it:
        await eventually(lambda: len(claims(api)) >= 2)
        started, before = time.monotonic(), len(api.requests)
        await eventually(lambda: time.monotonic() - started > 0.5)
        assert len(api.requests) - before <= 10
        api.faults.clear()
        await api.until(lambda: summary(api) == "0/1")
        await it.shut_down()


async def test_a_request_during_a_reload_of_credentials_succeeds_or_raises(api: FakeApi, kubeconfig: Path) -> None:
    client = KubeHttpClient(Target(kubeconfig=str(kubeconfig)), 1.0)
    await client.open()
    resources = NodeResources(client, "n1")
    outcomes: list[object] = []
    for steps in range(60):
        request = asyncio.create_task(resources.ensure_capability())
        renewal = asyncio.create_task(client.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        outcomes += await asyncio.gather(
            request, asyncio.create_task(resources.ensure_capability()), renewal, return_exceptions=True
        )
    await client.close()
    assert {type(outcome) for outcome in outcomes} <= {dict, UnavailableError, type(None)}
    assert api.objects


async def test_heartbeats_use_fresh_credentials_although_there_is_nothing_to_report(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: api.beats)
        reports = len(api.writes)
        rotate(kubeconfig, api)
        expire(api)
        count = len(api.beats)
        await api.until(lambda: len(api.beats) > count + 1)
        await eventually(lambda: it.agent.heartbeat.problem is None)
        assert len(api.writes) == reports
        await it.shut_down()


async def test_the_agent_reconnects_to_a_server_that_was_unreachable(tmp_path: Path) -> None:
    async with fake_api() as first:
        kubeconfig = first.kubeconfig(tmp_path)
        port = int(first.url.rpartition(":")[2])
        async with agent_running(tmp_path, kubeconfig, NMT) as it:
            await first.until(lambda: first.writes)
            await it.shut_down()
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await eventually(lambda: "cannot reach" in (it.agent.reporter.problem or ""))
        async with fake_api(port) as second:
            await second.until(lambda: second.writes)
            await it.shut_down()


async def test_a_shut_down_reports_leaving_before_stops(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    entry = supervised("s", free_port()).replace("  run:", "  autoStart: true\n  run:")
    async with agent_running(tmp_path, kubeconfig, entry + NMT) as it:
        await api.until(lambda: summary(api) == "1/2")
        await it.shut_down()
    leaving = [write.report for write in api.writes if write.report["leaving"]]
    assert [service["state"] for service in leaving[0]["services"]] == ["Stopping", "Stopped"]
    assert [service["state"] for service in leaving[-1]["services"]] == ["Stopped", "Stopped"]
    assert [item["ready"] for item in leaving[0]["capabilities"]] == [False, False]
    assert leaving[-1]["services"][0]["desired"] == "Running"
    assert ("leases", "hotpool-node-n1") in api.objects or not api.beats


async def test_a_report_that_the_schema_rejects_is_replaced_by_one_without_ready_types(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        refusal = rejection(422, json.dumps({"message": "status.report.services[0].state: Unsupported value"}))
        api.faults.append(refusal)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: (api.report("n1") or {})["services"] == [])
        (capability,) = (api.report("n1") or {})["capabilities"]
        assert (capability["ready"], capability["reason"]) == (False, "ReportRejected")
        refusal.times = 0
        await it.agent.services.command("stop", "idle", wait=True)
        await api.until(lambda: (api.report("n1") or {})["services"])
        await it.shut_down()


async def test_a_new_agent_does_not_overwrite_a_live_one(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    api.put("nodecapabilities", "n1", foreign_report())
    api.put("leases", "hotpool-node-n1", {"metadata": {}, "spec": {"renewTime": "0"}})
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        heartbeat = asyncio.create_task(_beat(api))
        await eventually(lambda: "belongs to another live agent (instance other)" in (it.agent.reporter.problem or ""))
        status = await it.agent.dispatch(_status())
        assert "another live agent" in status["problems"]["report"]
        assert api.writes == []
        assert api.beats == []
        # When the other agent has ended, the new one claims the node.
        heartbeat.cancel()
        await api.until(lambda: stamps(api) == [(8, 1)], seconds=15)
        await it.shut_down()


async def test_a_node_with_leaving_is_claimed_at_once(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    api.put("nodecapabilities", "n1", foreign_report(leaving=True, intervalSeconds=120))
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: stamps(api) == [(8, 1)])
        await it.shut_down()


async def _beat(api: FakeApi) -> None:
    for count in range(10**6):
        api.put("leases", "hotpool-node-n1", {"metadata": {}, "spec": {"renewTime": str(count)}})
        await asyncio.sleep(0.1)


def _status() -> Request:
    return Request(op="status")


def _seconds(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()
