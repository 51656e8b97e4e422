"""The chart on a cluster with pods: hot-plug without a catalogue, cordon, upgrade, rollback and failover."""

import asyncio
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from benchmarks.nodes import Nodes
from kubernetes.aio import config
from tests.e2e.release import Release, until
from tests.support.fleet_objects import pool
from tests.support.slice_watcher import SliceWatcher

READY: Final = "Ready"
VALUES: Final[dict[str, Any]] = {"operator": {"replicas": 3}, "redis": {"builtin": {"enabled": True}}}
MEBIBYTE: Final = 2**20
LOAD: Final = 20
"""Simulated nodes outside of the cluster."""


def service(name: str, *, replicas: int = 1) -> dict[str, Any]:
    """A Deployment whose pods recognise speech while there is a file `ready`."""
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
    """The worker's name; it is in the pool."""
    (name,) = (found["metadata"]["name"] for found in release.get("nodes")["items"])
    release.everywhere("speech", {name: READY})
    return str(name)


def python(release: Release, program: str) -> str:
    """Run Python in the service's pod."""
    return release.kubectl("exec", "deploy/whisper", "--", "python3", "-c", program)


def test_helm_test_passes(release: Release) -> None:
    assert "Succeeded" in release.helm("test", "--timeout", "2m")


def test_readiness_as_kubernetes_sees_it_is_hot_plug(release: Release, node: str) -> None:
    python(release, "import os; os.unlink('/tmp/ready')")
    release.everywhere("speech", {})
    python(release, "open('/tmp/ready', 'w')")
    release.everywhere("speech", {node: READY})


def test_a_deployment_scaled_to_zero_and_back(release: Release, node: str) -> None:
    release.kubectl("scale", "deployment/whisper", "--replicas=0")
    release.everywhere("speech", {})
    release.kubectl("scale", "deployment/whisper", "--replicas=1")
    release.everywhere("speech", {node: READY})


def test_a_deleted_pod_is_replaced_and_so_is_membership(release: Release, node: str) -> None:
    with SliceWatcher(release.kubeconfig, release.namespace) as watcher:
        release.kubectl("delete", "pod", "-l", "app=whisper", "--wait=true")
        until(lambda: {} in watcher.seen["speech"], True)
        release.everywhere("speech", {node: READY})


def test_a_cordon_is_a_drain(release: Release, node: str) -> None:
    release.kubectl("cordon", node)
    try:
        release.everywhere("speech", {node: "Draining"})
    finally:
        release.kubectl("uncordon", node)
    release.everywhere("speech", {node: READY})


@pytest.mark.parametrize(("component", "port"), [("operator", 8080), ("agent", 9810)])
def test_pods_take_less_memory_than_the_chart_asks_for(release: Release, component: str, port: int) -> None:
    pods = release.pods(component)
    assert pods
    for pod in pods:
        program = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
        text = release.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", program)
        (taken,) = re.findall(r"^process_resident_memory_bytes (\S+)$", text, re.MULTILINE)
        (container,) = pod["spec"]["containers"]
        asked = container["resources"]["requests"]["memory"]
        assert 0 < float(taken) < int(asked.removesuffix("Mi")) * MEBIBYTE, (pod["metadata"]["name"], taken, asked)


@contextmanager
def load(release: Release) -> Iterator[None]:
    """Twenty more nodes that beat; the odd ones stop and start all the time."""
    stop = threading.Event()
    failed: list[BaseException] = []
    begun = threading.Event()

    async def run() -> None:
        api = await config.new_client_from_config(str(release.kubeconfig))
        async with api:
            nodes = Nodes(api, release.namespace, LOAD, lambda number: "tts" if number % 2 else "nmt")
            await nodes.create()
            begun.set()
            beating = asyncio.create_task(nodes.beat())
            flips = 0
            while not stop.is_set():
                flips += 1
                if beating.done():
                    beating.result()
                await nodes.report(2 * (flips % (LOAD // 2)) + 1, ready=flips // (LOAD // 2) % 2 == 1)
                await asyncio.sleep(0.05)
            beating.cancel()

    def guarded() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - told by the test.
            failed.append(error)
            begun.set()

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    begun.wait(60)
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert failed == []


@pytest.fixture(scope="module")
def steady(release: Release) -> dict[str, str]:
    """Members of the pool `steady`, which nothing below should move."""
    release.apply(pool("steady", types=[{"type": "nmt"}]), pool("busy", types=[{"type": "tts"}]))
    return {f"node-{number}": READY for number in range(0, LOAD, 2)}


def ends_leader(release: Release) -> None:
    """Kill the leader's program, and wait until another leads."""
    leader = release.led()
    for process in release.processes(leader):
        os.kill(process, signal.SIGKILL)
    until(lambda: release.leader() not in {leader, ""}, True)


def test_nothing_moves_that_nobody_asked_for(release: Release, node: str, steady: dict[str, str]) -> None:
    """Upgrade, rollback, a deleted operator and a killed leader, all under load."""
    changed = {**VALUES, "operator": {"replicas": 3, "podAnnotations": {"turn": "2"}}}
    changed["agent"] = {"podAnnotations": {"turn": "2"}}
    with load(release):
        release.everywhere("steady", steady)
        with SliceWatcher(release.kubeconfig, release.namespace) as watcher:
            release.led()
            release.helm("upgrade", "--wait", "--timeout", "3m", values=changed)
            release.helm("rollback", "--wait", "--timeout", "3m")
            release.kubectl("delete", "pod", release.led())
            ends_leader(release)
            python(release, "import os; os.unlink('/tmp/ready')")
            release.everywhere("speech", {})
            release.everywhere("steady", steady)
        assert all(seen == steady for seen in watcher.seen["steady"])
        assert watcher.seen["speech"][-1] == {}
        assert all(seen == {node: READY} for seen in watcher.seen["speech"][:-1])
        assert watcher.seen["busy"]
    python(release, "open('/tmp/ready', 'w')")
    release.everywhere("speech", {node: READY})


def test_definitions_that_are_too_old_hold_up_the_new_operator_only(release: Release, node: str) -> None:
    """The upgrade path of docs/how-to/install.md, forgotten and then done."""
    leader = release.led()
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
    assert watcher.seen["speech"]
    assert all(seen == {node: READY} for seen in watcher.seen["speech"])


def restarts(release: Release, before: set[str]) -> int:
    """How often programs of operators that are not ready ended, in pods that were not there before."""
    pods = [pod for pod in release.pods("operator") if pod["metadata"]["name"] not in before]
    found = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
    return sum(status["restartCount"] for status in found if not status["ready"])
