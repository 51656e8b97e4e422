"""The chart on a cluster with pods: hot-plug without a catalogue, cordon, upgrade, rollback and failover."""

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from benchmarks.nodes import Nodes
from kubernetes.aio import config
from tests.e2e.release import Release, frozen, kubelet, until
from tests.support.fleet_objects import pool
from tests.support.slice_watcher import SliceWatcher

READY: Final = "Ready"
VALUES: Final[dict[str, Any]] = {"operator": {"replicas": 3}, "redis": {"builtin": {"enabled": True}}}
MEBIBYTE: Final = 2**20
LOAD: Final = 20
"""Simulated nodes outside of the cluster."""


def service(name: str, *, replicas: int = 1) -> dict[str, Any]:
    """Return a Deployment of type asr whose pods are ready while a file `ready` exists."""
    server = (
        "import http.server as server, pathlib\n"
        "pathlib.Path('ready').touch()\n"
        "server.test(server.SimpleHTTPRequestHandler, port=8000)\n"
    )
    container = {
        "name": "server",
        "image": "hotpool/hotpool:0.1.0",
        "command": ["python3", "-c", server],
        "workingDir": "/tmp",  # noqa: S108 - in the container, and a volume of its own.
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 1, "failureThreshold": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - as above.
    }
    labels = {"app": name, "hotpool.dev/type": "asr"}
    pod = {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


@pytest.fixture(scope="module")
def release(bare: Release) -> Iterator[Release]:
    """Three operators, a Redis and agents, in a namespace that enforces PodSecurity `restricted`."""
    bare.namespace = "fleet"
    bare.run("kubectl create namespace fleet")
    bare.run("kubectl label namespace fleet pod-security.kubernetes.io/enforce=restricted")
    bare.helm("install", "--wait", "--timeout", "3m", values=VALUES)
    bare.apply(pool("speech", types=[{"type": "asr"}]), service("whisper"))
    yield bare
    bare.helm("uninstall", "--wait")
    bare.run("kubectl delete namespace fleet")


@pytest.fixture
def node(release: Release) -> str:
    """The name of the worker node, which is in the pool."""
    (name,) = (found["metadata"]["name"] for found in release.get("nodes")["items"])
    release.wait_for_members("speech", {name: READY})
    return str(name)


def python(release: Release, program: str) -> str:
    """Run Python in the service's pod; return its output."""
    return release.kubectl("exec", "deploy/whisper", "--", "python3", "-c", program)


def test_helm_test_passes(release: Release) -> None:
    assert "Succeeded" in release.helm("test", "--timeout", "2m")


def test_a_report_has_the_addresses_of_the_agents_pod_and_the_endpoint_of_the_services_pod(
    release: Release, node: str
) -> None:
    """Kubelet passes the agent's addresses by the downward API; those of the service are in its pod's status."""
    ips = {
        name: [item["ip"] for item in release.get("pods", "-l", selector)["items"][0]["status"]["podIPs"]]
        for name, selector in (("agent", "app.kubernetes.io/component=agent"), ("service", "app=whisper"))
    }
    report = release.get("nodecapability", node)["status"]["report"]
    assert report["addresses"] == [{"ip": ip, "source": "Pod"} for ip in ips["agent"]]
    (service,) = report["services"]
    assert service["endpoint"] == {"addresses": ips["service"], "port": 8000}
    pod = release.get("pod", service["pod"]["name"])
    assert service["pod"]["uid"] == pod["metadata"]["uid"]


def test_readiness_of_a_pod_changes_membership(release: Release, node: str) -> None:
    python(release, "import os; os.unlink('/tmp/ready')")
    release.wait_for_members("speech", {})
    python(release, "open('/tmp/ready', 'w')")
    release.wait_for_members("speech", {node: READY})


def test_a_deployment_scaled_to_zero_and_back_leaves_the_pool_and_returns(release: Release, node: str) -> None:
    release.kubectl("scale", "deployment/whisper", "--replicas=0")
    release.wait_for_members("speech", {})
    release.kubectl("scale", "deployment/whisper", "--replicas=1")
    release.wait_for_members("speech", {node: READY})


def test_a_deleted_pod_leaves_the_pool_and_its_replacement_joins(release: Release, node: str) -> None:
    with SliceWatcher(release.kubeconfig, release.namespace) as watcher:
        release.kubectl("delete", "pod", "-l", "app=whisper", "--wait=true")
        until(lambda: {} in watcher.memberships["speech"], True)
        release.wait_for_members("speech", {node: READY})


def test_a_cordon_is_a_drain(release: Release, node: str) -> None:
    release.kubectl("cordon", node)
    try:
        release.wait_for_members("speech", {node: "Draining"})
    finally:
        release.kubectl("uncordon", node)
    release.wait_for_members("speech", {node: READY})


@pytest.fixture
def everything(release: Release, node: str) -> Iterator[str]:
    """The name of a pool of all nodes: Kubernetes itself marks the pods of a Node that is not ready as not ready."""
    release.apply(pool("everything", matchAll=True))
    release.wait_for_members("everything", {node: READY})
    yield "everything"
    release.kubectl("delete", "nodepool", "everything")
    until(lambda: ready_status(release, node), "True")
    release.wait_for_members("speech", {node: READY})


def ready_status(release: Release, node: str) -> str:
    """Return the status of a v1 Node's condition Ready."""
    return release.kubectl("get", "node", node, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")


def reason(release: Release, node: str) -> str:
    """Return the reason of the condition Ready of a NodeCapability."""
    return release.kubectl("get", "ncap", node, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].reason}")


def test_a_silent_kubelet_matters_only_while_the_agent_is_silent_too(
    release: Release, node: str, everything: str
) -> None:
    """The node controller sets Ready=Unknown 50 s after the last report of the kubelet; the agent's H is 15 s.

    Only slices are read meanwhile, because `kubectl exec` needs the kubelet.
    """
    (agent,) = release.pods("agent")
    processes = release.processes(agent["metadata"]["name"])
    with frozen(kubelet(node)):
        with SliceWatcher(release.kubeconfig, release.namespace) as watcher:
            until(lambda: ready_status(release, node), "Unknown")
        assert all(seen == {node: READY} for seen in watcher.memberships[everything])
        with frozen(processes):
            until(lambda: release.members(everything), {node: "Suspect"})
            assert reason(release, node) in {"NodeUnreachable", "Suspect"}
        until(lambda: release.members(everything), {node: READY})


def test_a_node_that_is_not_ready_is_suspect_and_one_that_shuts_down_is_out(
    release: Release, node: str, everything: str
) -> None:
    """A graceful shutdown needs logind, so the test writes what the kubelet would, while the kubelet is stopped."""
    with frozen(kubelet(node)):
        for message, expected, shown in (
            ("container runtime is down", {node: "Suspect"}, "NodeNotReady"),
            ("node is shutting down", {}, "NodeShutdown"),
        ):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            ready = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message}
            ready |= {"lastHeartbeatTime": now, "lastTransitionTime": now}
            body = json.dumps({"status": {"conditions": [ready]}})
            release.kubectl("patch", "node", node, "--subresource=status", "-p", body)
            until(lambda: release.members(everything), expected)
            until(lambda: reason(release, node), shown)
    release.wait_for_members(everything, {node: READY})


@pytest.mark.parametrize(("component", "port"), [("operator", 8080), ("agent", 9810)])
def test_pods_use_less_memory_than_the_chart_requests(release: Release, component: str, port: int) -> None:
    pods = release.pods(component)
    assert pods
    for pod in pods:
        program = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        text = release.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", program)
        (used,) = re.findall(r"^process_resident_memory_bytes (\S+)$", text, re.MULTILINE)
        (container,) = pod["spec"]["containers"]
        requested = container["resources"]["requests"]["memory"]
        limit = int(requested.removesuffix("Mi")) * MEBIBYTE
        assert 0 < float(used) < limit, (pod["metadata"]["name"], used, requested)


@contextmanager
def load(release: Release) -> Iterator[None]:
    """Simulate twenty more nodes with heartbeats; the odd ones stop and start all the time."""
    stop = threading.Event()
    failed: list[BaseException] = []
    started = threading.Event()

    async def run() -> None:
        api = await config.new_client_from_config(str(release.kubeconfig))
        async with api:
            nodes = Nodes(api, release.namespace, LOAD, lambda number: "tts" if number % 2 else "nmt")
            await nodes.create()
            started.set()
            heartbeats = asyncio.create_task(nodes.beat())
            changes = 0
            while not stop.is_set():
                changes += 1
                if heartbeats.done():
                    heartbeats.result()
                await nodes.report(2 * (changes % (LOAD // 2)) + 1, ready=changes // (LOAD // 2) % 2 == 1)
                await asyncio.sleep(0.05)
            heartbeats.cancel()

    def guarded() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - asserted below.
            failed.append(error)
            started.set()

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    started.wait(60)
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert failed == []


@pytest.fixture(scope="module")
def steady(release: Release) -> dict[str, str]:
    """Members of the pool `steady`, which must not change in the tests below."""
    release.apply(pool("steady", types=[{"type": "nmt"}]), pool("busy", types=[{"type": "tts"}]))
    return {f"node-{number}": READY for number in range(0, LOAD, 2)}


def kill_leader(release: Release) -> None:
    """Kill the leader's program, and wait until another leads."""
    leader = release.wait_for_leader()
    for process in release.processes(leader):
        os.kill(process, signal.SIGKILL)
    until(lambda: release.leader() not in {leader, ""}, True)


def test_upgrades_and_failovers_change_no_membership(release: Release, node: str, steady: dict[str, str]) -> None:
    """Upgrade, rollback, deletion of an operator's pod and a kill of the leader, all under load."""
    changed = {**VALUES, "operator": {"replicas": 3, "podAnnotations": {"turn": "2"}}}
    changed["agent"] = {"podAnnotations": {"turn": "2"}}
    with load(release):
        release.wait_for_members("steady", steady)
        with SliceWatcher(release.kubeconfig, release.namespace) as watcher:
            release.wait_for_leader()
            release.helm("upgrade", "--wait", "--timeout", "3m", values=changed)
            release.helm("rollback", "--wait", "--timeout", "3m")
            release.kubectl("delete", "pod", release.wait_for_leader())
            kill_leader(release)
            python(release, "import os; os.unlink('/tmp/ready')")
            release.wait_for_members("speech", {})
            release.wait_for_members("steady", steady)
        assert all(seen == steady for seen in watcher.memberships["steady"])
        assert watcher.memberships["speech"][-1] == {}
        assert all(seen == {node: READY} for seen in watcher.memberships["speech"][:-1])
        assert watcher.memberships["busy"]
    python(release, "open('/tmp/ready', 'w')")
    release.wait_for_members("speech", {node: READY})


def test_too_old_definitions_block_only_the_new_operator(release: Release, node: str) -> None:
    """The upgrade step of docs/how-to/install.md, first omitted, then done."""
    leader = release.wait_for_leader()
    before = {pod["metadata"]["name"] for pod in release.pods("operator")}
    new = next(pod["metadata"]["name"] for pod in release.pods("operator") if pod["metadata"]["name"] != leader)
    release.run("kubectl annotate crd nodepools.hotpool.dev hotpool.dev/schema-revision=2 --overwrite")
    with SliceWatcher(release.kubeconfig, release.namespace) as watcher:
        release.kubectl("delete", "pod", new)
        until(lambda: restarts(release, before) > 0, True)
        assert release.leader() == leader
        release.run(
            "helm show crds charts/hotpool | kubectl apply --server-side --field-manager=helm --force-conflicts -f -"
        )
        release.kubectl("rollout", "status", "deployment/hotpool-operator", "--timeout=150s")
    assert watcher.memberships["speech"]
    assert all(seen == {node: READY} for seen in watcher.memberships["speech"])


def restarts(release: Release, before: set[str]) -> int:
    """Return the number of restarts of operators that are not ready, in pods created since `before`."""
    pods = [pod for pod in release.pods("operator") if pod["metadata"]["name"] not in before]
    found = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
    return sum(status["restartCount"] for status in found if not status["ready"])
