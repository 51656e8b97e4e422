"""Nothing that the agent cannot represent or process silences it (requirements A12, B8, B11)."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_run import Running, agent_running, capability, eventually
from tests.support.fake_api import FakeApi, Fault, is_report
from tests.support.fake_pods import pod, status

from hotpool_agent.control.protocol import Request
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.service_manager import ServiceManager

NMT = "- {id: idle, type: nmt, autoStart: true, run: {command: [sleep, '600']}}\n"
READY = (True, None)
FAILED = (False, "ReportFailed")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let heartbeats stop half a second after a failure."""
    monkeypatch.setattr("hotpool_agent.reporting.reporter_state.FAILURE_SECONDS", 0.5)


def fail(*_: object, **__: object) -> Any:
    raise RuntimeError("cannot be built")


async def problems(it: Running) -> dict[str, str]:
    found: dict[str, str] = (await it.agent.dispatch(Request(op="status")))["problems"]
    return found


async def test_an_emoji_in_the_escapes_of_an_annotation_is_reported(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper", attributes='{"tier": ["gold \\ud83c\\udfc6"]}'))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), None, pod_namespaces="speech") as it:
        await api.until(lambda: capability(api) == READY)
        (service,) = (api.report("n1") or {})["services"]
        assert service["attributes"] == [{"key": "tier", "values": ["gold 🏆"]}]
        await it.shut_down()


async def test_half_an_emoji_in_an_annotation_delays_no_withdrawal_of_others(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper", "tts"))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT, pod_namespaces="speech", debounce=60.0) as it:
        await api.until(lambda: capability(api, "tts") == READY)
        api.pods.put(pod("odd", attributes='{"tier": ["gold \\ud83c"]}'))
        await eventually(lambda: "odd: annotations: invalid" in it.agent.source.dropped_items)
        api.pods.put(pod("whisper", "tts") | {"status": status(ready=False)})
        await api.until(lambda: capability(api, "tts") == (False, "Failed"))
        assert (api.report("n1") or {})["dropped"] == 1
        assert (await it.agent.dispatch(Request(op="status")))["droppedItems"] == ["odd: annotations: invalid"]
        assert it.agent.metrics.registry.get_sample_value("hotpool_agent_dropped_items") == 1
        assert await problems(it) == {}
        await it.shut_down()


async def test_a_report_that_cannot_be_built_withdraws_all_types_until_it_can(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await api.until(lambda: capability(api, "nmt") == READY)
        with monkeypatch.context() as patch:
            patch.setattr(ServiceManager, "statuses", fail)
            # Any change makes the agent build the report.
            it.agent.reporter.changed()
            await api.until(lambda: capability(api, "nmt") == FAILED)
            await eventually(lambda: "cannot be built" in it.agent.health().problems["report"])
            assert not it.agent.health().ready
            # The node is live: an accepted report says what is true of it.
            beats = len(api.beats)
            await api.until(lambda: len(api.beats) >= beats + 2)
        # Nothing changes, and the report can be built.
        await api.until(lambda: capability(api, "nmt") == READY)
        await eventually(it.agent.reporter.is_current)
        assert await problems(it) == {}
        await it.shut_down()


@pytest.mark.usefixtures("soon")
async def test_heartbeats_stop_while_not_even_the_minimal_report_is_accepted(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await api.until(lambda: capability(api, "nmt") == READY and api.beats)
        refused = Fault(is_report, code=403, times=10**6)
        api.faults.append(refused)
        monkeypatch.setattr(ServiceManager, "statuses", fail)
        it.agent.reporter.changed()
        await eventually(lambda: it.agent.health().problems.get("heartbeat", "").startswith("stopped"))
        beats, requests = len(api.beats), len(api.requests)
        # Many more attempts, longer than two heartbeats.
        await api.until(lambda: len(api.requests) >= requests + 10, seconds=30)
        assert len(api.beats) == beats
        assert {"report", "heartbeat"} <= it.agent.health().problems.keys()
        refused.times = 0
        await api.until(lambda: capability(api, "nmt") == FAILED and len(api.beats) > beats)
        assert it.alive()


@pytest.mark.usefixtures("soon")
async def test_an_internal_error_of_the_reporter_stops_heartbeats_and_not_the_agent(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await api.until(lambda: capability(api, "nmt") == READY and api.beats)
        with monkeypatch.context() as patch:
            patch.setattr(NodeResources, "write_report", fail)
            await it.agent.services.command("stop", "idle", wait=False)
            await eventually(lambda: it.agent.health().problems.get("heartbeat", "").startswith("stopped"))
            assert "internal error: RuntimeError" in it.agent.health().problems["report"]
            assert it.alive()
        await api.until(lambda: capability(api, "nmt") == (False, "Stopped"))
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        assert (await problems(it)).keys() <= {"report"}
        await it.shut_down()


async def test_an_internal_error_of_a_watch_or_of_heartbeats_does_not_end_the_agent(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), NMT) as it:
        await api.until(lambda: capability(api, "nmt") == READY and api.beats)
        with monkeypatch.context() as patch:
            patch.setattr(NodeResources, "renew_lease", fail)
            patch.setattr("hotpool_agent.capability_watch.parse_stored", fail)
            api.end_watches()
            await eventually(lambda: {"heartbeat", "watch"} <= it.agent.health().problems.keys())
            assert it.alive()
        await eventually(lambda: it.agent.health().problems == {})
        await it.shut_down()
