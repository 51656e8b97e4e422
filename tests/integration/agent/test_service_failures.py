"""Reactions of the agent to each kind of failure (requirements B7, B9, B11), with a server that fails on demand.

Requirement B8.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_run import agent_running, capability, eventually
from tests.support.certificates import Authority
from tests.support.fake_api import FakeApi, Fault, fake_api, is_claim, is_report, is_watch, rejection

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


def claims(api: FakeApi) -> int:
    return sum(method == "PATCH" and path.split("?")[0].endswith("capabilities/n1") for method, path in api.requests)


def attempts(api: FakeApi) -> int:
    return sum(method == "PATCH" and "/status" in path for method, path in api.requests)


def summary(api: FakeApi) -> str | None:
    return (api.report("n1") or {}).get("summary")


def status_body(message: str) -> str:
    return json.dumps({"kind": "Status", "message": message})


# TLS.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("authority", "check certificate-authority"),
        ("expired", "has expired"),
        ("name", "check `server` in the kubeconfig"),
    ],
)
async def test_a_certificate_that_cannot_be_trusted_is_explained_and_nothing_is_sent(
    tmp_path: Path, wrong: str, message: str
) -> None:
    authority = Authority(tmp_path / "pki")
    address = "127.0.0.9" if wrong == "name" else "127.0.0.1"
    pair = authority.issue("server", address, days=-1 if wrong == "expired" else 1)
    trusted = Authority(tmp_path / "other") if wrong == "authority" else authority
    async with fake_api(tls=authority.context(pair)) as api:
        path = api.kubeconfig(tmp_path, {"token": "t"}, {"certificate-authority": str(trusted.path)})
        async with agent_running(tmp_path, path, NMT) as it:
            await eventually(lambda: message in (it.agent.reporter.problem or ""))
            await eventually(lambda: message in (it.agent.watch.problem or ""))
            assert "TLS" in (it.agent.reporter.problem or "")
            assert api.requests == []
            # The agent notices a corrected file.
            if wrong == "authority":
                api.kubeconfig(tmp_path, {"token": "t"}, {"certificate-authority": str(authority.path)})
                await api.until(lambda: api.writes)
            await it.shut_down()


async def test_a_server_without_tls_is_explained(tmp_path: Path, api: FakeApi) -> None:
    path = api.kubeconfig(tmp_path, None, {"server": api.url.replace("http:", "https:")})
    async with agent_running(tmp_path, path, NMT) as it:
        await eventually(lambda: "check the scheme and port" in (it.agent.reporter.problem or ""))
        await it.shut_down()


# Responses.


async def test_after_a_conflict_the_agent_reads_and_then_decides(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        api.faults.append(Fault(is_report, code=409, body=status_body("the object has been modified")))
        before = claims(api)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: summary(api) == "1/1")
        assert claims(api) == before + 1
        assert [(write.report["epoch"], write.report["sequence"]) for write in api.writes] == [(1, 1), (1, 3)]
        await it.shut_down()


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_a_rejected_report_is_replaced_by_a_minimal_one_without_ready_types(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, code: int
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        api.faults.append(rejection(code, status_body("no")))
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: len(api.writes) == 2)
        report = api.writes[1].report
        assert [(item["ready"], item["reason"]) for item in report["capabilities"]] == [(False, "ReportRejected")]
        await eventually(lambda: "no type as ready" in (it.agent.reporter.state.rejected or ""))
        # The node stays live, and the whole report is tried again without a storm.
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) >= beats + 2)
        assert len(api.writes) == 2
        assert 4 <= attempts(api) <= 10
        await it.shut_down()


async def test_a_rejected_report_is_sent_again_without_a_change(api: FakeApi, tmp_path: Path, kubeconfig: Path) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        refused = rejection()
        api.faults.append(refused)
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: attempts(api) >= 5)
        refused.times = 0
        await api.until(lambda: capability(api, "nmt") == (True, None))
        await eventually(lambda: it.agent.reporter.state.rejected is None and it.agent.reporter.is_current())
        await it.shut_down()


async def test_a_lost_response_to_a_minimal_report_does_not_count_as_the_whole_one(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        refused = Fault(is_report, code=422, body=status_body("no"))
        api.faults += [refused, Fault(is_report, kind="lost")]
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: capability(api, "nmt") == (True, None))
        assert [write.report["capabilities"][0]["reason"] for write in api.writes[1:]] == ["ReportRejected", None]
        await eventually(it.agent.reporter.is_current)
        await it.shut_down()


async def test_no_heartbeat_confirms_an_older_report_while_even_the_minimal_one_is_rejected(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await it.until("idle", "Stopped")
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: summary(api) == "1/1" and api.beats)
        rejected = Fault(is_report, code=413, body="too large", times=10**6)
        api.faults.append(rejected)
        await it.agent.services.command("stop", "idle", wait=True)
        await eventually(lambda: "413" in (it.agent.reporter.problem or ""))
        beats, tries = len(api.beats), attempts(api)
        # Several more attempts, longer than two heartbeats.
        await api.until(lambda: attempts(api) >= tries + 8, seconds=30)
        assert len(api.beats) == beats
        api.faults.remove(rejected)
        await api.until(lambda: summary(api) == "0/1" and len(api.beats) > beats)
        await it.shut_down()


async def test_after_a_stale_report_the_agent_reads_the_stored_one_before_it_writes(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: summary(api) == "0/1")
        before = claims(api)
        api.faults.append(Fault(is_report, code=422, body=status_body("stale report: a later one is stored")))
        await it.agent.services.command("start", "idle", wait=True)
        await api.until(lambda: summary(api) == "1/1")
        assert claims(api) == before + 1
        assert "services" in (api.report("n1") or {})
        await it.shut_down()


async def test_an_object_that_is_missing_at_each_attempt_causes_no_storm(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    body = json.dumps({"message": "not found", "details": {"kind": "nodecapabilities", "name": "n1"}})
    api.faults.append(Fault(is_report, code=404, body=body, times=10**6))
    async with agent_running(tmp_path, kubeconfig, NMT, backoff_seconds=0.2) as it:
        await api.until(lambda: attempts(api) >= 1)
        started, before = time.monotonic(), attempts(api)
        await eventually(lambda: time.monotonic() - started > 0.6)
        assert attempts(api) - before <= 6
        api.faults.clear()
        await api.until(lambda: summary(api) == "0/1")
        await it.shut_down()


@pytest.mark.parametrize("code", [429, 500, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_agent_waits_as_long_as_the_server_asks_and_no_longer_than_h(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, code: int, form: str
) -> None:
    now = datetime.now(UTC)
    dates = {
        "Retry-After": format_datetime(now + timedelta(hours=1), usegmt=True),
        "Date": format_datetime(now, usegmt=True),
    }
    headers = {"Retry-After": "3600"} if form == "seconds" else dates
    api.faults.append(Fault(is_claim, code=code, headers=headers))
    async with agent_running(tmp_path, kubeconfig, NMT, interval=1) as it:
        await api.until(lambda: claims(api) == 1)
        first = time.monotonic()
        await api.until(lambda: claims(api) == 2)
        assert time.monotonic() - first >= 0.9
        await api.until(lambda: summary(api) == "0/1")
        await it.shut_down()


@pytest.mark.parametrize("body", ["", "<html>sign in</html>", "{", "[]", "null", '"yes"', "7"])
async def test_a_response_that_is_not_an_object_is_ignored_and_the_request_repeated(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, body: str
) -> None:
    api.faults.append(Fault(lambda _: True, code=200, body=body, times=12))
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await eventually(lambda: "not a JSON object" in (it.agent.reporter.problem or ""))
        await api.until(lambda: summary(api) == "0/1" and api.watches)
        assert api.in_flight == 0
        await it.shut_down()


@pytest.mark.parametrize(
    "line", ["nonsense\n", "[]\n", "{}\n", '{"type": "MODIFIED"}\n', '{"type": "MODIFIED", "object": 7}\n']
)
async def test_a_watch_that_sends_invalid_lines_is_opened_again(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, line: str
) -> None:
    api.faults.append(Fault(is_watch, code=200, body=line))
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: api.writes and api.watches)
        api.delete("nodecapabilities", "n1")
        await api.until(lambda: (api.report("n1") or {}).get("epoch") == 2)
        await it.shut_down()


@pytest.mark.parametrize("code", [410, 500])
async def test_a_watch_that_ends_with_an_error_is_opened_again(
    api: FakeApi, tmp_path: Path, kubeconfig: Path, code: int
) -> None:
    error = {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "over"}}
    api.faults.append(Fault(is_watch, code=200, body=json.dumps(error) + "\n"))
    async with agent_running(tmp_path, kubeconfig, NMT) as it:
        await api.until(lambda: api.writes and api.watches)
        await it.shut_down()


async def test_a_watch_that_ends_at_once_each_time_causes_no_storm(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    api.faults.append(Fault(is_watch, code=200, body="", times=10**6))

    def watches() -> int:
        return sum("watch=" in path for _, path in api.requests)

    async with agent_running(tmp_path, kubeconfig, NMT, interval=30, backoff_seconds=0.1) as it:
        await api.until(lambda: watches() >= 3)
        started, before = time.monotonic(), watches()
        await eventually(lambda: time.monotonic() - started > 1.0)
        assert watches() - before <= 5
        api.faults.clear()
        await it.shut_down()


async def test_a_request_without_a_response_times_out_and_the_object_is_read(
    api: FakeApi, tmp_path: Path, kubeconfig: Path
) -> None:
    async with agent_running(tmp_path, kubeconfig, NMT, request_seconds=0.4) as it:
        await api.until(lambda: summary(api) == "0/1")
        before = claims(api)
        hanging: Any = Fault(is_report, kind="hang")
        api.faults.append(hanging)
        await it.agent.services.command("start", "idle", wait=True)
        await eventually(lambda: "no response in 0.4 s" in (it.agent.reporter.problem or "") or summary(api) == "1/1")
        await api.until(lambda: summary(api) == "1/1")
        assert claims(api) >= before + 1
        await it.shut_down()
