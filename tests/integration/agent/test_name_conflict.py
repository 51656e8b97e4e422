"""The Event about a node name that another live agent owns (requirement B12)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.agent_run import Running, agent_running, eventually
from tests.support.fake_api import FakeApi, Fault, fake_api
from tests.support.jumping_clock import jump, jumping

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"
NAME = "n1.node-name-taken"


@asynccontextmanager
async def newcomer(api: FakeApi, folder: Path) -> AsyncIterator[tuple[Running, asyncio.Task[None]]]:
    """Run an agent whose node name a live agent owns; yield it with the other agent's heartbeat task."""
    report = {"instance": "other", "session": "other", "epoch": 7, "sequence": 3, "leaving": False}
    api.put(
        "nodecapabilities",
        "n1",
        {
            "metadata": {"name": "n1", "uid": "u-1"},
            "status": {"report": report | {"intervalSeconds": 1, "capabilities": []}},
        },
    )
    api.put("leases", "hotpool-node-n1", {"metadata": {}, "spec": {"renewTime": "0"}})
    heartbeat = asyncio.create_task(_beat(api))
    try:
        async with agent_running(folder, api.kubeconfig(folder), NMT) as it:
            yield it, heartbeat
    finally:
        heartbeat.cancel()


async def _beat(api: FakeApi) -> None:
    for count in range(10**6):
        api.put("leases", "hotpool-node-n1", {"metadata": {}, "spec": {"renewTime": str(count)}})
        await asyncio.sleep(0.1)


def events(api: FakeApi) -> list[str]:
    return [path.partition("?")[0] for method, path in api.requests if method == "PATCH" and "/events/" in path]


def event(api: FakeApi) -> dict[str, Any]:
    return api.objects["events", NAME]


def checks(api: FakeApi) -> int:
    """Return how often the new agent began to check whether the other one is alive."""
    return sum(method == "PATCH" and path.split("?")[0].endswith("capabilities/n1") for method, path in api.requests)


@jumping
async def test_a_taken_name_causes_an_event_on_the_node_capability_once_in_10_minutes(tmp_path: Path) -> None:
    async with fake_api() as api, newcomer(api, tmp_path) as (it, _):
        await api.until(lambda: events(api))
        first = event(api)
        regarding = first["involvedObject"]
        assert (regarding["kind"], regarding["name"], regarding["namespace"], regarding["uid"]) == (
            "NodeCapability",
            "n1",
            "fleet",
            "u-1",
        )
        assert (first["type"], first["reason"], first["count"]) == ("Warning", "NodeNameTaken", 1)
        assert first["metadata"]["namespace"] == "fleet"
        assert "another live agent (instance other)" in first["message"]
        # The new agent finds the name taken two more times, and writes no Event.
        before = checks(api)
        await api.until(lambda: checks(api) >= before + 2, seconds=30)
        assert events(api) == [f"/api/v1/namespaces/fleet/events/{NAME}"]
        jump(600)
        await api.until(lambda: len(events(api)) == 2, seconds=30)
        again = event(api)
        assert (again["count"], again["firstTimestamp"]) == (2, first["firstTimestamp"])
        assert again["lastTimestamp"] >= first["lastTimestamp"]
        assert api.writes == []
        await it.shut_down()


@pytest.mark.parametrize("kind", ["status", "hang", "lost"])
async def test_a_failure_to_write_the_event_has_no_effect(tmp_path: Path, kind: Any) -> None:
    async with fake_api() as api, newcomer(api, tmp_path) as (it, heartbeat):
        api.faults.append(
            Fault(lambda request: "/events/" in request.path, kind=kind, code=403, body='{"message": "forbidden"}')
        )
        await api.until(lambda: events(api))
        before = checks(api)
        await api.until(lambda: checks(api) > before, seconds=30)
        assert "another live agent" in (it.agent.reporter.problem or "")
        heartbeat.cancel()
        await api.until(lambda: (api.report("n1") or {})["epoch"] == 8, seconds=30)
        await eventually(lambda: it.agent.reporter.problem is None)
        await it.shut_down()
