"""Agent and CRD of different versions (B11): unknown fields are ignored on both sides, the rest is stored."""

import asyncio
import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from pytest_kind.cluster import KindCluster
from tests.support.agent_run import Running, agent_running, eventually
from tests.support.own_kind_cluster import own_kind_cluster

from hotpool_agent.kube.node_resources import NodeResources
from localfleet.kind import REPOSITORY

CRDS = REPOSITORY / "crds"
CRD = CRDS / "nodecapabilities.yaml"
SERVICES = """\
- {id: idle, type: nmt, attributes: {languages: [de, en], tier: [gold]}, run: {command: [sleep, '600']}}
- {id: other, type: asr, run: {command: [sleep, '600']}}
"""

Json = dict[str, Any]


@pytest.fixture(scope="module")
def kind_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """A cluster of this module alone: its definitions change."""
    with own_kind_cluster("skew", tmp_path_factory.mktemp("skew")) as made:
        yield made


@pytest.fixture(scope="module")
def namespace(kind_cluster: KindCluster) -> str:
    """A namespace in a cluster with the CRDs."""
    name = f"skew-{uuid4().hex[:8]}"
    _apply(kind_cluster, CRDS)
    kind_cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/nodecapabilities.hotpool.dev")
    kind_cluster.kubectl("create", "namespace", name)
    return name


class Node:
    """One node of the namespace, and its stored report."""

    def __init__(self, cluster: KindCluster, namespace: str, folder: Path) -> None:
        self.name = f"edge-{uuid4().hex[:8]}"
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder

    def agent(self) -> AbstractAsyncContextManager[Running]:
        """Return a context manager that runs an agent of the node."""
        path = Path(self.cluster.kubeconfig_path)
        return agent_running(self.folder, path, SERVICES, node=self.name, namespace=self.namespace, request_seconds=5.0)

    async def kubectl(self, *words: str) -> str:
        """Return the output of kubectl."""
        command = [str(self.cluster.kubectl_path), "-n", self.namespace]
        command += ["--kubeconfig", str(self.cluster.kubeconfig_path), *words]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        return done.stdout

    async def report(self) -> Json:
        """Return the stored report."""
        found: Json = json.loads(await self.kubectl("get", "ncap", self.name, "-o", "json"))
        report: Json = found["status"]["report"]
        return report


@pytest.fixture
def node(kind_cluster: KindCluster, namespace: str, tmp_path: Path) -> Node:
    return Node(kind_cluster, namespace, tmp_path)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Json]:
    """All reports that agents send."""
    reports: list[Json] = []
    write = NodeResources.write_report

    async def spy(self: NodeResources, report: Json) -> None:
        reports.append(copy.deepcopy(report))
        await write(self, report)

    monkeypatch.setattr(NodeResources, "write_report", spy)
    return reports


async def test_unknown_fields_of_a_newer_agent_are_pruned_and_the_rest_is_stored(
    node: Node, sent: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = NodeResources.write_report

    async def newer(self: NodeResources, report: Json) -> None:
        await write(self, _with_future(report))

    monkeypatch.setattr(NodeResources, "write_report", newer)
    async with node.agent() as it:
        await it.until("idle", "Stopped")
        await it.agent.services.command("start", "idle", wait=True)
        await _reported(it)
        assert sent[-1]["services"][0]["future"] == "x"
        stored = await node.report()
        assert "future" not in json.dumps(stored)
        # All other fields are stored.
        assert _bare(stored) == _bare(_without_future(sent[-1]))
        assert stored["summary"] == "1/2"
        assert it.agent.reporter.problem is None
        await it.shut_down()


async def test_an_older_agent_reports_to_a_schema_with_more_optional_fields(node: Node, sent: list[Json]) -> None:
    with _changed_crd(node, _more_optional_fields):
        await _until_known(node)
        async with node.agent() as it:
            await it.until("idle", "Stopped")
            await it.agent.services.command("start", "idle", wait=True)
            await _reported(it)
            stored = await node.report()
            assert [service.pop("future") for service in stored["services"]] == ["unknown", "unknown"]
            assert _bare(stored) == _bare(sent[-1])
            assert it.agent.reporter.problem is None
            # The rule that refuses older reports still holds.
            with pytest.raises(subprocess.CalledProcessError) as refused:
                await _patch(node, {"status": {"report": stored | {"sequence": 0}}})
            assert "stale report" in refused.value.stderr
            await it.shut_down()


async def _reported(it: Running) -> None:
    """Wait until the API server has the present report."""
    await eventually(lambda: it.agent.reporter.state.accepted_at, seconds=30)
    async with asyncio.timeout(30):
        await it.agent.reporter.flush()


async def _patch(node: Node, patch: Json) -> None:
    await node.kubectl("patch", "ncap", node.name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def _with_future(report: Json) -> Json:
    """Add unknown fields, as a newer agent may: to the report, to its objects and to items of its lists."""
    more = copy.deepcopy(report) | {"future": {"deep": [1, 2]}}
    for part in (more["platform"], *more["services"], *more["capabilities"]):
        part["future"] = "x"
    return more


def _without_future(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_future(item) for key, item in value.items() if key != "future"}
    return [_without_future(item) for item in value] if isinstance(value, list) else value


def _bare(value: Any) -> Any:
    """Return the value without nulls, which a merge patch stores as absent."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _more_optional_fields(report: Json) -> None:
    report["properties"]["future"] = {"type": "string", "maxLength": 63, "nullable": True}
    service = report["properties"]["services"]["items"]
    service["properties"]["future"] = {"type": "string", "maxLength": 63, "default": "unknown"}


@contextmanager
def _changed_crd(node: Node, change: Callable[[Json], None]) -> Iterator[None]:
    """Change the CRD's schema of the report, and restore it afterwards."""
    crd: Json = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    (version,) = crd["spec"]["versions"]
    change(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["report"])
    path = node.folder / "newer.yaml"
    path.write_text(yaml.safe_dump(crd), encoding="utf-8")
    try:
        _apply(node.cluster, path)
        yield
    finally:
        _apply(node.cluster, CRD)


async def _until_known(node: Node) -> None:
    """Wait until the API server serves the changed schema: a status without a report is stored with the new field."""
    probe = f"probe-{uuid4().hex[:8]}"
    body = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodeCapability", "metadata": {"name": probe}}
    (node.folder / "probe.json").write_text(json.dumps(body), encoding="utf-8")
    await node.kubectl("create", "-f", str(node.folder / "probe.json"))
    report: Json = {"schemaVersion": 1, "agentVersion": "0", "instance": "i", "session": "s", "epoch": 1}
    async with asyncio.timeout(60):
        for sequence in range(10**6):
            more = {"sequence": sequence, "time": "t", "future": str(sequence)}
            patch = json.dumps({"status": {"report": report | more}})
            await node.kubectl("patch", "ncap", probe, "--subresource=status", "--type=merge", "-p", patch)
            found = json.loads(await node.kubectl("get", "ncap", probe, "-o", "json"))
            if "future" in found["status"]["report"]:
                break
            await asyncio.sleep(0.2)
    await node.kubectl("delete", "ncap", probe)


def _apply(cluster: KindCluster, path: Path) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
