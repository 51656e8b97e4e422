"""The agent against a real API server: order of reports enforced by the schema, recovery, heartbeat.

Requirements B1, B7, B8, B12.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pytest_kind.cluster import KindCluster
from tests.support.agent_run import Running, agent_running, eventually, supervised

from localfleet.kind import REPOSITORY
from localfleet.ports import free_port

CRDS = REPOSITORY / "crds"
IDLE = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"


@pytest.fixture(scope="module")
def namespace(kind_cluster: KindCluster) -> Iterator[str]:
    """A fleet of its own, in a cluster that has our CRDs."""
    name = f"agent-{uuid4().hex[:8]}"
    kind_cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    kind_cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/nodecapabilities.hotpool.dev")
    kind_cluster.kubectl("create", "namespace", name)
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")


class Fleet:
    """A namespace, read and changed by kubectl."""

    def __init__(self, cluster: KindCluster, namespace: str, folder: Path) -> None:
        self.node = f"edge-{uuid4().hex[:8]}"
        self.folder = folder
        self.namespace = namespace
        self._cluster = cluster

    def agent(self, services: str = IDLE, folder: str = "one", **settings: Any) -> AbstractAsyncContextManager[Running]:
        """Return a context manager that runs an agent of this test's node."""
        return agent_running(
            self.folder / folder,
            Path(self._cluster.kubeconfig_path),
            services,
            node=self.node,
            namespace=self.namespace,
            **({"request_seconds": 5.0} | settings),
        )

    async def kubectl(self, *words: str) -> str:
        """Return the output of kubectl. Raise CalledProcessError with the reason in `stderr`."""
        command = [str(self._cluster.kubectl_path), "-n", self.namespace, "--kubeconfig"]
        command += [str(self._cluster.kubeconfig_path), *words]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        return done.stdout

    async def get(self, kind: str = "ncap", name: str | None = None) -> dict[str, Any]:
        """Return an object, by default the node's NodeCapability."""
        found: dict[str, Any] = json.loads(await self.kubectl("get", kind, name or self.node, "-o", "json"))
        return found

    async def patch(self, patch: Any) -> str:
        """Merge-patch the status of the node's NodeCapability; return the error message, or an empty string."""
        try:
            await self.kubectl(
                "patch", "ncap", self.node, "--subresource=status", "--type=merge", "-p", json.dumps(patch)
            )
        except subprocess.CalledProcessError as error:
            return str(error.stderr)
        return ""


@pytest.fixture
def fleet(kind_cluster: KindCluster, namespace: str, tmp_path: Path) -> Fleet:
    return Fleet(kind_cluster, namespace, tmp_path)


async def reported(it: Running) -> None:
    """Wait until the API server has the present report."""
    await eventually(lambda: it.agent.reporter.state.accepted_at, seconds=30)
    async with asyncio.timeout(30):
        await it.agent.reporter.flush()


async def test_a_report_is_stored_completely(fleet: Fleet) -> None:
    entry = supervised("s", free_port()).replace("  run:", "  attributes: {languages: [zh-CN, en], tier: [a]}\n  run:")
    async with fleet.agent(entry + IDLE) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await reported(it)
        found = await fleet.get()
        report = found["status"]["report"]
        assert report["summary"] == "1/2"
        assert report["services"][0]["languages"] == ["zh", "en"]
        assert report["services"][0]["attributes"] == [{"key": "tier", "values": ["a"]}]
        assert [item["ready"] for item in report["capabilities"]] == [True, False]
        assert "labels" not in found["metadata"]
        await it.agent.services.command("stop", "s", wait=True)
        await reported(it)
        assert (await fleet.get())["status"]["report"]["capabilities"][0]["services"] == []
        await it.shut_down()
    report = (await fleet.get())["status"]["report"]
    assert (report["leaving"], report["services"][0]["state"]) == (True, "Stopped")


async def test_the_api_server_refuses_an_older_report(fleet: Fleet) -> None:
    async with fleet.agent() as it:
        await reported(it)
        report = (await fleet.get())["status"]["report"]
        for change in ({"epoch": 0}, {"sequence": 0}, {"session": "another"}):
            assert "stale report" in await fleet.patch({"status": {"report": report | change}})
        await it.shut_down()


async def test_a_report_cannot_be_removed(fleet: Fleet) -> None:
    async with fleet.agent() as it:
        await reported(it)
        for patch in ({"status": None}, {"status": {"report": None}}):
            assert "stale report" in await fleet.patch(patch)
        await it.shut_down()


async def test_a_deleted_node_capability_is_reported_again(fleet: Fleet) -> None:
    async with fleet.agent() as it:
        await reported(it)
        before = await fleet.get()
        await fleet.kubectl("delete", "ncap", fleet.node)
        await eventually(lambda: it.agent.reporter.state.epoch == 2, seconds=30)
        await reported(it)
        after = await fleet.get()
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["status"]["report"]["epoch"] == 2
        await it.shut_down()


async def test_the_lease_is_renewed_with_instance_and_epoch(fleet: Fleet) -> None:
    async with fleet.agent() as it:
        await reported(it)
        name = f"hotpool-node-{fleet.node}"
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < 3:
                found = await fleet.kubectl("get", "lease", "-l", "agent.hotpool.dev/lease=true", "-o", "json")
                mine = [item for item in json.loads(found)["items"] if item["metadata"]["name"] == name]
                seen |= {item["spec"]["renewTime"] for item in mine if item.get("spec")}
                await asyncio.sleep(0.2)
        spec = (await fleet.get("lease", name))["spec"]
        assert spec["holderIdentity"] == f"{it.agent.blank.instance}/1"
        assert spec["leaseDurationSeconds"] == 3
        await it.shut_down()


async def test_of_two_agents_of_one_name_the_first_keeps_the_node_until_it_leaves(fleet: Fleet) -> None:
    async with fleet.agent() as first:
        await reported(first)
        async with fleet.agent(IDLE.replace("idle", "other"), folder="two") as second:
            await eventually(lambda: "another live agent" in (second.agent.reporter.problem or ""), seconds=30)
            assert second.agent.reporter.state.accepted_at is None
            report = (await fleet.get())["status"]["report"]
            assert report["instance"] == first.agent.blank.instance
            assert [service["id"] for service in report["services"]] == ["idle"]
            # The first agent is unaffected: it never claimed its node again.
            assert (first.agent.reporter.state.epoch, first.agent.reporter.problem) == (1, None)
            await first.shut_down()
            # `leaving` releases the name to the second agent.
            await reported(second)
            report = (await fleet.get())["status"]["report"]
            assert (report["instance"], report["epoch"]) == (second.agent.blank.instance, 2)
            assert [service["id"] for service in report["services"]] == ["other"]
            await second.shut_down()


async def test_a_name_conflict_is_an_event_that_describe_shows(fleet: Fleet) -> None:
    async with fleet.agent() as first:
        await reported(first)
        async with fleet.agent(folder="two") as second:
            await eventually(lambda: "another live agent" in (second.agent.reporter.problem or ""), seconds=30)
            shown = ""
            async with asyncio.timeout(30):
                while "NodeNameTaken" not in shown:
                    shown = await fleet.kubectl("describe", "ncap", fleet.node)
            assert "another live agent" in shown
            event = await fleet.get("event", f"{fleet.node}.node-name-taken")
            assert (event["type"], event["count"]) == ("Warning", 1)
            await second.shut_down()
        await first.shut_down()
