"""The chart on clusters of other people: OpenShift, Windows nodes, and as a part of another chart."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support import openshift
from tests.support.charts import parent_chart, pods
from tests.support.dry_run import dry_run

from localfleet.chart import ANY_CLUSTER, CHART, helm_program, render
from localfleet.process import wait_for

TRYING: Final[dict[str, Any]] = {"redis": {"builtin": {"enabled": True}}}
EXISTING: Final[dict[str, Any]] = {"redis": {"builtin": {"enabled": True, "existingSecret": "login"}}}
LONG: Final = "a-release-with-the-longest-name-that-helm-allows-1234"
"""A name of 53 characters."""


@pytest.fixture(scope="module")
def namespace(kind_cluster: Any) -> Iterator[str]:
    """An empty namespace with a name of 63 characters, on an API server with the CRDs."""
    name = f"chart-{uuid.uuid4().hex}-with-the-longest-name-12"
    kind_cluster.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    kind_cluster.kubectl("create", "namespace", name)
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def restricted(kind_cluster: Any, namespace: str) -> Iterator[str]:
    """A namespace with policies as OpenShift has them."""
    kubectl(kind_cluster, "apply", openshift.policies(namespace))
    bad = created(namespace, {}, [])[0]
    wait_for("the policies are enforced", lambda: dry_run(kind_cluster, [bad]).returncode, 30)
    yield namespace
    kubectl(kind_cluster, "delete", openshift.policies(namespace))


def created(namespace: str, values: dict[str, Any], apis: list[str]) -> list[dict[str, Any]]:
    """Return the pods of the chart. The account is that of the namespace, because no other exists."""
    found = pods(render(namespace, values, apis=[ANY_CLUSTER, *apis]))
    for pod in found:
        pod["metadata"]["namespace"] = namespace
        pod["spec"] |= {"serviceAccountName": "default", "automountServiceAccountToken": False}
    return found


def test_openshift_accepts_every_pod(kind_cluster: Any, restricted: str) -> None:
    for values in (TRYING, EXISTING):
        done = dry_run(kind_cluster, created(restricted, values, [openshift.API]))
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4


def test_openshift_refuses_the_users_of_other_clusters(kind_cluster: Any, restricted: str) -> None:
    """Shows that the policies of these tests act."""
    expected = created(restricted, TRYING, [])
    done = dry_run(kind_cluster, expected)
    assert done.stderr.count("runAsUser is not in the namespace's range") == len(expected) == 4


def test_pods_have_a_fixed_user_outside_of_openshift() -> None:
    fixed = {"runAsUser", "runAsGroup", "fsGroup"}
    assert all(fixed <= pod["spec"]["securityContext"].keys() for pod in created("speech", TRYING, []))


def test_no_pod_is_scheduled_on_windows_unless_a_value_says_so() -> None:
    selectors = [pod["spec"]["nodeSelector"] for pod in created("speech", TRYING, [])]
    assert selectors == [{"kubernetes.io/os": "linux"}] * 4
    own = {"agent": {"nodeSelector": {"disk": "fast", "kubernetes.io/os": "other"}}}
    (agent,) = pods(render("speech", own, only="agent/daemonset.yaml"))
    assert agent["spec"]["nodeSelector"] == {"disk": "fast", "kubernetes.io/os": "other"}


@pytest.mark.parametrize("verb", ["template", "lint"])
def test_a_parent_chart_switches_this_one_off(tmp_path: Path, verb: str) -> None:
    chart = parent_chart(tmp_path / "parent", "hotpool", "pools")
    values = {"hotpool": {"enabled": False}, "pools": {"enabled": False}}
    if verb == "template":
        assert render("speech", values, chart=chart) == []
    else:
        (tmp_path / "values.yaml").write_text(json.dumps(values))
        command = [str(helm_program()), "lint", "--quiet", str(chart), "--values", str(tmp_path / "values.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_parent_chart_installs_and_removes_this_one_under_its_own_name(
    kind_cluster: Any, namespace: str, tmp_path: Path
) -> None:
    alias = "node-pools-of-all-speech-services-in-this-cluster-and-of-translation"
    chart = parent_chart(tmp_path / "parent", alias, "hotpool")
    values = {
        "global": {"team": "speech", "imagePullSecrets": ["registry"]},
        "hotpool": {"enabled": False},
        alias: {"enabled": True, **TRYING, "agent": {"nodeSelector": {"gpu": True}}},
    }
    helm(kind_cluster, "install", LONG, chart, "--skip-crds", "-n", namespace, "--values", "-", values=values)
    listed = kind_cluster.kubectl(
        "get", "deployments,daemonsets", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}"
    )
    assert listed.split() == ["hotpool-operator", "hotpool-redis", "hotpool-agent"]
    helm(
        kind_cluster,
        "upgrade",
        LONG,
        chart,
        "-n",
        namespace,
        "--values",
        "-",
        values={alias: {"enabled": False}, "hotpool": {"enabled": False}},
    )
    assert kind_cluster.kubectl("get", "deployments,daemonsets", "-n", namespace, "-o", "name") == ""


def kubectl(kind_cluster: Any, verb: str, objects: list[dict[str, Any]]) -> None:
    """Apply or delete objects."""
    command = [kind_cluster.kubectl_path, "--kubeconfig", kind_cluster.kubeconfig_path, verb, "-f", "-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def helm(kind_cluster: Any, *words: Any, values: dict[str, Any] | None = None) -> str:
    """Run helm with the cluster; return its output."""
    command = [str(helm_program()), "--kubeconfig", str(kind_cluster.kubeconfig_path), *(str(word) for word in words)]
    text = json.dumps(values) if values is not None else None
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
