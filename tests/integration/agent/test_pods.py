"""Services that are pods, in a running agent (requirements A3, A11, B6, B7, B11, B12): from a watch to the report.

The same path on a real API server: tests/cluster/agent/test_pods.py.

Requirements A1, A2, B5, C7, D9.
"""

import asyncio
import json
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support.agent_run import Running, agent_running, capability, eventually
from tests.support.fake_api import FakeApi, Fault
from tests.support.fake_pods import SECONDS, pod, status

from hotpool_agent.service_manager import CommandError

READY = (True, None)
FORBIDDEN = json.dumps({"kind": "Status", "message": 'pods is forbidden: User "x" cannot list resource "pods"'})


def agent(
    api: FakeApi, folder: Path, services: str | None = None, *, namespaces: str = "speech", **settings: Any
) -> AbstractAsyncContextManager[Running]:
    """Run an agent that watches pods, with or without a catalogue."""
    return agent_running(folder, api.kubeconfig(folder), services, **({"pod_namespaces": namespaces} | settings))


def is_pods_request(request: web.Request) -> bool:
    """Return True for a list or a watch of pods."""
    return request.path.endswith("/pods")


def is_list(request: web.Request) -> bool:
    """Return True for a list of pods."""
    return is_pods_request(request) and "watch" not in request.query


def refused(matches: Any = is_pods_request, code: int = 403, body: str = FORBIDDEN) -> Fault:
    """Return a fault that lasts until the test removes it."""
    return Fault(matches, code=code, body=body, times=10**6)


def service(api: FakeApi, identifier: str = "whisper") -> dict[str, Any]:
    """Return a service of the stored report."""
    services: list[dict[str, Any]] = (api.report("n1") or {"services": []})["services"]
    return next((item for item in services if item["id"] == identifier), {"state": None, "lastError": None})


async def until_state(api: FakeApi, state: str | None, identifier: str = "whisper") -> None:
    """Wait until the stored report has the service in this state; None: not at all."""
    await api.until(lambda: api.report("n1") and service(api, identifier)["state"] == state)


async def unchanged(api: FakeApi, seconds: float = 0.5) -> None:
    """Check that nothing is written for a while, longer than D and many times the pauses of this agent."""
    writes = len(api.writes)
    await asyncio.sleep(seconds)
    assert len(api.writes) == writes


def watched(it: Running) -> float | None:
    """Return the value of the metric."""
    return it.agent.metrics.registry.get_sample_value("hotpool_agent_pods_watched", {"pod_namespace": "speech"})


def never_withdrawn(api: FakeApi) -> bool:
    """Return True if every report offered the type and none was `leaving`."""
    ready = [item["ready"] for write in api.writes for item in write.report["capabilities"] if item["type"] == "asr"]
    return ready != [] and all(ready) and not any(write.report["leaving"] for write in api.writes)


async def test_a_pod_is_a_running_service_once_it_is_ready_in_kubernetes(api: FakeApi, tmp_path: Path) -> None:
    async with agent(api, tmp_path) as it:
        await api.until(lambda: api.report("n1"))
        api.pods.put(pod("whisper", ready=False) | {"status": {"phase": "Pending"}})
        await until_state(api, "Starting")
        assert capability(api) == (False, "Starting")
        api.pods.put(pod("whisper", attributes="languages: [en, zh-CN]", port="8000", model="large"))
        await until_state(api, "Running")
        found = service(api)
        assert capability(api) == READY
        assert (found["languages"], found["port"], found["model"]) == (["en", "zh"], 8000, "large")
        assert (found["desired"], found["pid"], found["since"]) == (None, None, "2026-01-01T00:00:09.000000Z")
        assert it.agent.health().problems == {}
        await it.shut_down()


@pytest.mark.parametrize(
    ("change", "reason"), [("unready", "Failed"), ("deleting", "Stopped"), ("gone", ""), ("no label", "")]
)
async def test_a_withdrawal_is_not_debounced(api: FakeApi, tmp_path: Path, change: str, reason: str) -> None:
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path, debounce=60.0) as it:
        await until_state(api, "Running")
        await api.until(lambda: api.pods.watches == 1)
        began, value = time.monotonic(), pod("whisper")
        if change == "unready":
            api.pods.put(value | {"status": status(ready=False)})
        elif change == "deleting":
            value["metadata"]["deletionTimestamp"] = SECONDS.format(30)
            api.pods.put(value)
        else:
            api.pods.delete("whisper")
        await api.until(lambda: capability(api) == (False, reason))
        assert time.monotonic() - began < 5
        await it.shut_down()


async def test_nothing_is_reported_before_the_pods_of_every_namespace_were_listed(api: FakeApi, tmp_path: Path) -> None:
    """An agent that may not list them reports nothing at all, because its predecessor's report may still be true."""
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path, namespaces="speech,llm"):
        await until_state(api, "Running")
    fault = refused(lambda request: is_list(request) and "/llm/" in request.path)
    api.faults.append(fault)
    async with agent(api, tmp_path, namespaces="speech,llm") as it:
        await eventually(lambda: "check the Role" in it.agent.health().problems.get("pods", ""))
        beats = len(api.beats)
        await unchanged(api)
        assert len(api.beats) == beats
        assert not it.agent.health().ready
        api.faults.clear()
        await api.until(lambda: len(api.writes) == 2)
        assert never_withdrawn(api)
        await eventually(lambda: it.agent.health().problems == {})
        await it.shut_down()


@pytest.mark.parametrize("end", ["shut down", "crash"])
async def test_a_replaced_agent_withdraws_nothing_and_claims_the_next_epoch(
    api: FakeApi, tmp_path: Path, end: str
) -> None:
    api.pods.put(pod("whisper"))
    for epoch in (1, 2, 3):
        async with agent(api, tmp_path) as it:
            await api.until(lambda epoch=epoch: (api.report("n1") or {}).get("epoch") == epoch)  # type: ignore[misc]
            if end == "shut down":
                await it.shut_down()
    assert never_withdrawn(api)
    assert [write.report["epoch"] for write in api.writes] == [1, 2, 3]


async def test_a_broken_watch_resumes_from_its_last_version(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        await api.until(lambda: api.pods.watches == 1)
        fault = refused(code=503, body="away")
        api.faults.append(fault)
        api.pods.end_watches()
        await eventually(lambda: "503" in it.agent.health().problems.get("pods", ""))
        assert "stay as they were" in it.agent.health().problems["pods"]
        assert watched(it) == 0
        api.pods.delete("whisper")
        api.pods.put(pod("piper", "tts"))
        await unchanged(api)
        api.faults.clear()
        await until_state(api, None)
        await until_state(api, "Running", "piper")
        assert api.pods.lists == ["speech"]
        assert it.agent.health().problems == {}
        assert watched(it) == 1
        await it.shut_down()


async def test_a_bookmark_keeps_the_version_of_an_idle_watch_valid(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        await api.until(lambda: api.pods.watches == 1)
        api.pods.put(pod("busy"), "elsewhere")
        api.pods.compact()
        began = it.agent.pods.watches[0].synced_at
        api.pods.bookmark()
        await eventually(lambda: it.agent.pods.watches[0].synced_at != began)
        api.pods.end_watches()
        api.pods.put(pod("piper", "tts"))
        await until_state(api, "Running", "piper")
        assert api.pods.lists == ["speech"]
        assert it.agent.health().problems == {}
        await it.shut_down()


async def test_after_an_expired_version_a_list_finds_the_missed_changes(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    api.pods.put(pod("piper", "tts"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        await api.until(lambda: api.pods.watches == 1)
        api.pods.forget("whisper")
        api.pods.compact()
        api.pods.end_watches()
        await until_state(api, None)
        assert service(api, "piper")["state"] == "Running"
        assert api.pods.lists == ["speech", "speech"]
        assert it.agent.health().problems == {}
        await it.shut_down()


async def test_a_change_that_a_watch_never_delivered_is_found_by_a_list(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore of etcd, a watch from a version that is not reached yet delivers nothing until its time-out."""
    monkeypatch.setattr("hotpool_agent.pods.pod_watch.WATCH_SECONDS", 1)
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        api.pods.forget("whisper")
        await until_state(api, None)
        assert it.agent.health().problems == {}
        await it.shut_down()


async def test_a_revoked_permission_is_no_evidence(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        await api.until(lambda: api.pods.watches == 1)
        api.faults.append(refused())
        api.pods.end_watches()
        await eventually(lambda: "403" in it.agent.health().problems.get("pods", ""))
        await unchanged(api)
        # Heartbeats continue: the node is live, and its last report stays valid.
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        api.faults.clear()
        await eventually(lambda: it.agent.health().problems == {})
        assert never_withdrawn(api)
        await it.shut_down()


async def test_a_pod_of_any_size_passes_through_the_watch(api: FakeApi, tmp_path: Path) -> None:
    async with agent(api, tmp_path) as it:
        await api.until(lambda: api.pods.watches == 1)
        api.pods.put(pod("whisper", attributes="x" * 5_000_000))
        await until_state(api, "Running")
        assert "longer than" in service(api)["lastError"]
        assert (api.report("n1") or {})["dropped"] == 1
        api.pods.put(pod("whisper", attributes="languages: [en]"))
        await api.until(lambda: service(api)["lastError"] is None)
        assert api.pods.lists == ["speech"]
        await it.shut_down()


async def test_a_rejected_pod_is_shown_in_the_health_of_the_agent(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    api.pods.put(pod("other", "Not A Type"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        assert (api.report("n1") or {})["dropped"] == 1
        problem = it.agent.health().problems["pods"]
        assert "pod speech/other: label hotpool.dev/type: 'Not A Type' is not a type" in problem
        async with aiohttp.ClientSession() as session, session.get(f"http://{it.agent.listening}/healthz") as response:
            assert (await response.json())["problems"]["pods"] == problem
        api.pods.delete("other")
        await eventually(lambda: it.agent.health().problems == {})
        await it.shut_down()


async def test_commands_to_pods_are_rejected_with_a_reason(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        for verb in ("start", "stop", "restart"):
            with pytest.raises(CommandError, match="whisper is pod speech/whisper: observed only"):
                await it.agent.services.command(verb, "whisper", wait=True)
        with pytest.raises(CommandError, match="no such service; there are: whisper"):
            await it.agent.services.command("stop", "other", wait=True)
        await api.until(lambda: api.watches == 1)
        stored = api.objects["nodecapabilities", "n1"]
        command = {"id": "whisper", "desired": "Stopped", "requestID": "1"}
        api.put("nodecapabilities", "n1", stored | {"spec": {"services": [command, command | {"id": "unknown"}]}})
        await api.until(lambda: "spec.services is ignored" in (service(api)["lastError"] or ""))
        found = service(api)
        assert (found["state"], found["desired"], found["requestID"]) == ("Running", None, None)
        await it.shut_down()


async def test_pods_and_a_catalogue_share_a_node(api: FakeApi, tmp_path: Path) -> None:
    """A pod whose name is an id of the catalogue gets another id. The catalogue's devices apply to pods, too."""
    head = "onAgentExit: keep\ntypes:\n  asr: {devices: [gpu]}\n"
    entry = "- {id: whisper, type: nmt, observe: {tcp: {port: 1}}}\n"
    api.pods.put(pod("whisper"))
    api.pods.put(pod("whisper"), "llm")
    async with agent(api, tmp_path, entry, namespaces="speech,llm", head=head) as it:
        await api.until(lambda: api.report("n1"))
        services = (api.report("n1") or {})["services"]
        assert [item["type"] for item in services] == ["nmt", "asr", "asr"]
        assert len({item["id"] for item in services}) == 3
        assert capability(api) == (False, "DeviceNotAccepted")
        api.pods.put(pod("whisper", device="gpu"))
        await api.until(lambda: capability(api) == READY)
        await it.shut_down()
