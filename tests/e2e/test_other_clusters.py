"""The chart on clusters with pods that are not as ours: policies as OpenShift has them, Windows nodes, no helm."""

import base64
import json
import shlex
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.release import Release, until
from tests.e2e.test_release import READY, service
from tests.support import openshift
from tests.support.charts import parent_chart
from tests.support.fleet_objects import pool

from localfleet.chart import CHART

WINDOWS: Final = "windows-1"
SCC: Final = "securitycontextconstraints.security.openshift.io"
PING: Final = """
import sys
import redis
client = redis.Redis(host="hotpool-redis", username="hotpool-dispatcher", password=sys.argv[1])
print(client.time()[0] > 0)
"""


def scc() -> dict[str, Any]:
    """Return the definition by which charts recognize OpenShift."""
    plural, _, group = SCC.partition(".")
    names = {"plural": plural, "kind": "SecurityContextConstraints", "listKind": "SecurityContextConstraintsList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": SCC},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def ready_windows_node(release: Release) -> None:
    """Create a Node without a kubelet that the scheduler takes for a ready Windows machine, for about 40 s."""
    metadata = {"name": WINDOWS, "labels": {"kubernetes.io/os": "windows"}}
    release.apply({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
    resources = {"cpu": "4", "memory": "8Gi", "pods": "100"}
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    status = json.dumps({"status": {"conditions": [condition], "capacity": resources, "allocatable": resources}})
    release.run(shlex.join(["kubectl", "patch", "node", WINDOWS, "--subresource=status", "--type=merge", "-p", status]))
    until(lambda: "taints" in release.get("node", WINDOWS)["spec"], False)


@pytest.fixture(scope="module")
def umbrella(bare: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A release of another chart that has hotpool as `pools`, in a cluster with OpenShift's API and a Windows node."""
    bare.namespace = "umbrella"
    policies = openshift.policies(bare.namespace)
    # Also a fixture that fails removes all: nodes and policies affect the tests after it.
    with ExitStack() as stack:
        bare.run("kubectl create namespace umbrella")
        stack.callback(bare.run, "kubectl delete namespace umbrella")
        for created in (scc(), *policies):
            bare.apply(created)
            stack.callback(bare.run, f"kubectl delete {created['kind']} {created['metadata']['name']}")
        bare.run(f"kubectl wait --for=condition=Established crd/{SCC} --timeout=60s")
        stack.callback(bare.run, f"kubectl delete node {WINDOWS} --ignore-not-found")
        ready_windows_node(bare)
        stack.callback(bare.run, "helm uninstall parent -n umbrella --ignore-not-found --wait")
        chart = parent_chart(tmp_path_factory.mktemp("charts") / "parent", "pools")
        install(bare, chart, {"pools": {"enabled": True, "redis": {"builtin": {"enabled": True}}}})
        bare.apply(pool("speech", types=[{"type": "asr"}]), service("whisper"))
        yield bare


def install(release: Release, chart: Path, values: dict[str, Any]) -> None:
    """Install or upgrade the parent chart, and wait."""
    command = f"helm upgrade parent {chart} --install -n umbrella --wait --timeout 3m --values -"
    release.run(command, text=json.dumps(values), seconds=240)


def test_a_parent_charts_pods_run_as_users_that_openshift_assigns_and_on_no_windows_node(umbrella: Release) -> None:
    """That `helm install --wait` ends in time is part of the fixture."""
    pods = [pod for part in ("operator", "agent", "redis") for pod in umbrella.pods(part)]
    assert len(pods) == 3
    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in pods} == {openshift.FIRST}
    assert WINDOWS not in {pod["spec"].get("nodeName") for pod in pods}


def test_a_parent_charts_fleet_works(umbrella: Release) -> None:
    (agent,) = umbrella.pods("agent")
    umbrella.wait_for_members("speech", {agent["spec"]["nodeName"]: READY})


def test_a_parent_chart_switches_the_fleet_off(umbrella: Release, tmp_path: Path) -> None:
    install(umbrella, parent_chart(tmp_path / "parent", "pools"), {"pools": {"enabled": False}})
    until(lambda: umbrella.get("pods", "-l", "app.kubernetes.io/name=hotpool")["items"], [])


def rendered(release: Release, *settings: str) -> str:
    """Return what `helm template` prints."""
    words = [word for setting in ("redis.builtin.enabled=true", *settings) for word in ("--set", setting)]
    return release.run(shlex.join(["helm", "template", "hotpool", str(CHART), "-n", release.namespace, *words]))


def running(release: Release) -> set[tuple[str, int]]:
    """Return uid and restarts of each pod, after all are ready."""
    for workload in ("deployment/hotpool-operator", "deployment/hotpool-redis", "daemonset/hotpool-agent"):
        release.kubectl("rollout", "status", workload, "--timeout=170s")
    pods = release.get("pods")["items"]
    assert "hotpool-test" not in {pod["metadata"]["name"] for pod in pods}
    return {
        (pod["metadata"]["uid"], pod["status"].get("containerStatuses", [{}])[0].get("restartCount")) for pod in pods
    }


def test_what_helm_template_prints_is_applied_twice_and_restarts_no_pod(bare: Release) -> None:
    """Then Redis gets the passwords of an existing Secret."""
    bare.namespace = "gitops"
    bare.run("kubectl create namespace gitops")
    bare.run("kubectl apply --server-side --field-manager=helm --force-conflicts -f crds/")
    bare.kubectl("apply", "-f", "-", text=rendered(bare))
    before = running(bare)
    assert ping(bare, secret_of(bare, "hotpool-redis"))
    again = bare.kubectl("apply", "-f", "-", text=rendered(bare))
    assert [line for line in again.splitlines() if not line.endswith(" unchanged")] == []
    bare.kubectl("diff", "-f", "-", text=rendered(bare))
    assert running(bare) == before
    password = uuid.uuid4().hex
    words = [f"--from-literal={user}-password={password}" for user in ("operator", "dispatcher")]
    bare.kubectl("create", "secret", "generic", "login", *words)
    bare.kubectl("apply", "-f", "-", text=rendered(bare, "redis.builtin.existingSecret=login"))
    running(bare)
    assert ping(bare, password)
    bare.kubectl("delete", "-f", "-", text=rendered(bare))
    bare.run("kubectl delete namespace gitops")


def secret_of(release: Release, name: str) -> str:
    """Return the dispatchers' password in a Secret."""
    return base64.b64decode(release.get("secret", name)["data"]["dispatcher-password"]).decode()


def ping(release: Release, password: str) -> bool:
    """Return True if Redis accepts the dispatchers' password."""
    command = ["exec", "deploy/hotpool-operator", "--", "python3", "-c", PING, password]
    return release.kubectl(*command).strip() == "True"
