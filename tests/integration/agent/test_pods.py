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
    """An agent that observes pods, with a catalogue or without."""
    chosen = {"pod_namespaces": namespaces} | settings
    return agent_running(folder, api.kubeconfig(folder), services, **chosen)


def of_pods(request: web.Request) -> bool:
    """A list or a watch of pods."""
    return request.path.endswith("/pods")


def is_list(request: web.Request) -> bool:
    """A list of pods."""
    return of_pods(request) and "watch" not in request.query


def is_watch(request: web.Request) -> bool:
    """A watch of pods is opened."""
    return of_pods(request) and "watch" in request.query


def refused(matches: Any = of_pods, code: int = 403, body: str = FORBIDDEN) -> Fault:
    """An answer for as long as it stays among the faults."""
    return Fault(matches, code=code, body=body, times=10**6)


def service(api: FakeApi, identifier: str = "whisper") -> dict[str, Any]:
    """A service as the stored report has it."""
    services: list[dict[str, Any]] = (api.report("n1") or {"services": []})["services"]
    return next((item for item in services if item["id"] == identifier), {"state": None, "lastError": None})


async def until_state(api: FakeApi, state: str | None, identifier: str = "whisper") -> None:
    """Wait until the stored report says so; None: the service is not in it."""
    await api.until(lambda: api.report("n1") and service(api, identifier)["state"] == state)


async def unchanged(api: FakeApi, seconds: float = 0.5) -> None:
    """Nothing is written for a while, which is longer than D and many times the pauses of this agent."""
    writes = len(api.writes)
    await asyncio.sleep(seconds)
    assert len(api.writes) == writes


def watched(it: Running) -> float | None:
    """What the metric says."""
    return it.agent.metrics.registry.get_sample_value("hotpool_agent_pods_watched", {"pod_namespace": "speech"})


def healthy(api: FakeApi) -> bool:
    """Whether in no report that was ever written the type was withdrawn."""
    found = [item["ready"] for write in api.writes for item in write.report["capabilities"] if item["type"] == "asr"]
    return found != [] and all(found) and not any(write.report["leaving"] for write in api.writes)


async def test_a_pod_is_a_service_from_the_moment_at_which_kubernetes_calls_it_ready(
    api: FakeApi, tmp_path: Path
) -> None:
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
async def test_a_withdrawal_does_not_wait(api: FakeApi, tmp_path: Path, change: str, reason: str) -> None:
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
    """Not even by an agent that may never list them: what its predecessor saw is no lie for that."""
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
        assert healthy(api)
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
    assert healthy(api)
    assert [write.report["epoch"] for write in api.writes] == [1, 2, 3]


async def test_a_watch_that_breaks_goes_on_where_it_was(api: FakeApi, tmp_path: Path) -> None:
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


async def test_a_bookmark_keeps_a_quiet_watch_from_a_version_that_is_too_old(api: FakeApi, tmp_path: Path) -> None:
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


async def test_a_version_that_is_too_old_is_listed_again_and_what_was_missed_is_found(
    api: FakeApi, tmp_path: Path
) -> None:
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


async def test_what_a_watch_never_told_is_found_by_a_list(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restore of etcd: a watch from a version that is not reached yet hears nothing, and ends in time."""
    monkeypatch.setattr("hotpool_agent.pods.pod_watch.WATCH_SECONDS", 1)
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        api.pods.forget("whisper")
        await until_state(api, None)
        assert it.agent.health().problems == {}
        await it.shut_down()


async def test_a_right_that_was_taken_away_is_no_evidence(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        await api.until(lambda: api.pods.watches == 1)
        api.faults.append(refused())
        api.pods.end_watches()
        await eventually(lambda: "403" in it.agent.health().problems.get("pods", ""))
        await unchanged(api)
        # The node itself is heard: it is alive, and says what it saw last.
        beats = len(api.beats)
        await api.until(lambda: len(api.beats) > beats)
        api.faults.clear()
        await eventually(lambda: it.agent.health().problems == {})
        assert healthy(api)
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


async def test_a_pod_that_is_no_service_is_said_where_people_look(api: FakeApi, tmp_path: Path) -> None:
    api.pods.put(pod("whisper"))
    api.pods.put(pod("other", "Not A Type"))
    async with agent(api, tmp_path) as it:
        await until_state(api, "Running")
        assert (api.report("n1") or {})["dropped"] == 1
        problem = it.agent.health().problems["pods"]
        assert "pod speech/other: label hotpool.dev/type: 'Not A Type' is not a type" in problem
        async with aiohttp.ClientSession() as session, session.get(f"http://{it.agent.listening}/healthz") as answer:
            assert (await answer.json())["problems"]["pods"] == problem
        api.pods.delete("other")
        await eventually(lambda: it.agent.health().problems == {})
        await it.shut_down()


async def test_pods_take_no_commands_and_it_is_said_why(api: FakeApi, tmp_path: Path) -> None:
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
        wish = {"id": "whisper", "desired": "Stopped", "requestID": "1"}
        api.put("nodecapabilities", "n1", stored | {"spec": {"services": [wish, wish | {"id": "unknown"}]}})
        await api.until(lambda: "spec.services is ignored" in (service(api)["lastError"] or ""))
        found = service(api)
        assert (found["state"], found["desired"], found["requestID"]) == ("Running", None, None)
        await it.shut_down()


async def test_pods_and_a_catalogue_share_a_node(api: FakeApi, tmp_path: Path) -> None:
    """A pod with an id of the catalogue gets another one; the catalogue's rule of devices holds for pods, too."""
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
