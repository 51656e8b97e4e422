"""The API server accepts the chart's manifests for every kind of value, with PodSecurity `restricted` enforced.

No program runs here; `tests/e2e` installs the chart on a cluster with pods.
"""

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from localfleet.chart import CHART, helm_program, render

PLACED: Final = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "podAnnotations": {"example.com/team": "speech"},
}
MATRIX: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "trying": {"redis": {"builtin": {"enabled": True}}},
    "three replicas": {"operator": {"replicas": 3}},
    "own redis": {
        "redis": {
            "url": "rediss://redis.example:6379",
            "username": "hotpool-operator",
            "existingSecret": "login",
            "caKey": "ca.crt",
        }
    },
    "redis cluster": {"redis": {"url": "redis://redis.example:6379", "cluster": True, "prefix": "east"}},
    "sentinels": {
        "redis": {
            "url": "redis://mymaster/0",
            "sentinels": ["a.example:26379", "b.example:26379"],
            "existingSecret": "login",
            "sentinelPasswordKey": "sentinel",
        }
    },
    "placed": {"operator": PLACED, "agent": PLACED},
    "no agents": {"agent": {"enabled": False}, "kubeNodes": False},
    "open": {"networkPolicy": {"enabled": False}, "flowControl": {"enabled": False}},
    "watched": {
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]},
        "monitoring": {"dashboard": {"enabled": True}},
    },
    "catalogue": {
        "agent": {
            "catalogue": {"services": [{"id": "llm", "type": "llm", "observe": {"tcp": {"port": 8000}}}]},
            "podNamespaces": ["default"],
        }
    },
    "viewers": {"viewer": {"subjects": [{"kind": "Group", "name": "speech", "apiGroup": "rbac.authorization.k8s.io"}]}},
    "within another chart": {"global": {"team": "speech"}},
    "by digest": {"image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry"]}},
}
HOST_PATH: Final = {"agent": {"volumes": [{"name": "run", "hostPath": {"path": "/run"}}]}}
BAD: Final[list[tuple[dict[str, Any], str]]] = [
    ({"operator": {"replicas": 4}}, "/operator/replicas"),
    ({"operator": {"replcas": 2}}, "replcas"),
    ({"redis": {"sentinels": ["nowhere"]}}, "/redis/sentinels/0"),
    ({"image": {"digest": "latest"}}, "/image/digest"),
    ({"agent": {"intervalSeconds": 0}}, "/agent/intervalSeconds"),
    ({"kubeNodes": "yes"}, "/kubeNodes"),
]


@pytest.fixture(scope="module")
def namespace(kind_cluster: Any) -> Iterator[str]:
    """A namespace that enforces PodSecurity `restricted`, on an API server with the CRDs."""
    kind_cluster.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    name = f"chart-{uuid.uuid4().hex[:6]}"
    kind_cluster.kubectl("create", "namespace", name)
    for mode in ("enforce", "warn"):
        kind_cluster.kubectl("label", "namespace", name, f"pod-security.kubernetes.io/{mode}=restricted")
    # The API server reads the account of a pod, even in a dry run.
    kind_cluster.kubectl("create", "serviceaccount", "hotpool-viewer", "-n", name)
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")


def dry_run(kind_cluster: Any, documents: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Apply objects as a dry run; return the result of kubectl."""
    command = [kind_cluster.kubectl_path, "--kubeconfig", kind_cluster.kubeconfig_path]
    command += ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    return subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_the_api_server_accepts_the_rendered_chart(kind_cluster: Any, namespace: str, values: dict[str, Any]) -> None:
    documents = render(namespace, values)
    done = dry_run(kind_cluster, documents)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(documents)
    assert "violate PodSecurity" not in done.stderr


def test_a_host_mount_violates_restricted(kind_cluster: Any, namespace: str) -> None:
    done = dry_run(kind_cluster, render(namespace, HOST_PATH))
    assert "violate PodSecurity" in done.stderr
    assert "hostPath" in done.stderr


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_helm_lint_finds_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(json.dumps(values))
    command = [
        str(helm_program()),
        "lint",
        "--strict",
        "--quiet",
        str(CHART),
        "--values",
        str(tmp_path / "values.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("values", "path"), BAD, ids=[path for _, path in BAD])
def test_invalid_values_are_refused_by_name(values: dict[str, Any], path: str) -> None:
    with pytest.raises(RuntimeError, match=path):
        render("speech", values)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_is_in_the_namespace_or_named_after_it(values: dict[str, Any]) -> None:
    """Two fleets of one cluster share no object."""
    here, there = (
        {
            (found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"])
            for found in render(name, values)
        }
        for name in ("east", "west")
    )
    assert here
    assert not here & there


def test_objects_of_the_prometheus_operator_select_services_pods_and_ports_of_the_chart() -> None:
    on = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule")}
    found = {document["kind"]: document for document in render("speech", {"monitoring": on})}
    (endpoint,) = found["ServiceMonitor"]["spec"]["endpoints"]
    service = found["Service"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    pods = found["DaemonSet"]["spec"]["template"]
    (scraped,) = found["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert scraped["port"] in {port["name"] for port in pods["spec"]["containers"][0]["ports"]}
    assert found["PodMonitor"]["spec"]["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    rules = found["PrometheusRule"]["spec"]["groups"][0]["rules"]
    assert all(rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}") for rule in rules)
    assert all('namespace="speech"' in rule["expr"] and "NAMESPACE" not in rule["expr"] for rule in rules)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kubeNodes": False}, {"HotpoolRedisDown": False, "HotpoolNodesUnseen": False}),
        ({"redis": {"url": "redis://redis.example:6379"}}, {"HotpoolRedisDown": True, "HotpoolNodesUnseen": True}),
    ],
)
def test_features_that_a_fleet_does_not_use_have_no_alert(values: dict[str, Any], expected: dict[str, bool]) -> None:
    names = {alert["alert"] for alert in alerts(values)}
    assert {name: name in names for name in expected} == expected


def test_alerts_have_the_namespace_of_their_fleet() -> None:
    assert {alert["labels"]["namespace"] for alert in alerts({})} == {"speech"}


def alerts(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alerts that are rendered for the fleet `speech` with these values."""
    documents = render("speech", {"monitoring": {"prometheusRule": {"enabled": True}}, **values})
    (rule,) = (document for document in documents if document["kind"] == "PrometheusRule")
    found: list[dict[str, Any]] = rule["spec"]["groups"][0]["rules"]
    return found


def test_the_builtin_redis_restarts_when_the_users_of_its_secret_change() -> None:
    """Redis reads them once. A chart rendered without a cluster has new passwords each time."""

    def rendered() -> tuple[str, str]:
        found = {
            (d["kind"], d["metadata"]["name"]): d for d in render("speech", {"redis": {"builtin": {"enabled": True}}})
        }
        secret = found["Secret", "hotpool-redis"]["stringData"]
        assert f"on >{secret['operator-password']} " in secret["users.acl"]
        assert f"on >{secret['dispatcher-password']} " in secret["users.acl"]
        template = found["Deployment", "hotpool-redis"]["spec"]["template"]
        return secret["users.acl"], template["metadata"]["annotations"]["hotpool.dev/users"]

    (users, digest), (others, another) = rendered(), rendered()
    assert users != others
    assert digest != another


def test_a_namespace_of_digits_is_rendered_as_a_string() -> None:
    """Unquoted, YAML reads it as a number, which the API server refuses."""
    numbers = [found["metadata"]["name"] for found in render("123", MATRIX["trying"]) if 123 in scalars(found)]
    assert numbers == []


def scalars(value: Any) -> Iterator[Any]:
    """Yield every scalar in a value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from scalars(item)
    else:
        yield value


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the specs of all pods."""
    return [
        item["spec"] if item["kind"] == "Pod" else item["spec"]["template"]["spec"]
        for item in documents
        if item["kind"] in {"Pod", "Deployment", "DaemonSet"}
    ]


TRYING: Final = MATRIX["trying"]


def test_no_pod_is_scheduled_on_windows_unless_a_value_says_so() -> None:
    selectors = [pod["nodeSelector"] for pod in pods(render("speech", TRYING))]
    assert selectors == [{"kubernetes.io/os": "linux"}] * 4
    own = {"agent": {"nodeSelector": {"disk": "fast", "kubernetes.io/os": "other"}}}
    (agent,) = pods(render("speech", own, only="agent/daemonset.yaml"))
    assert agent["nodeSelector"] == {"disk": "fast", "kubernetes.io/os": "other"}


def test_openshift_assigns_users_and_groups_itself() -> None:
    fixed = {"runAsUser", "runAsGroup", "fsGroup"}
    for pod in pods(render("speech", TRYING, apis=["security.openshift.io/v1"])):
        assert not fixed & pod["securityContext"].keys()
        assert not any(fixed & container["securityContext"].keys() for container in pod["containers"])
        assert pod["securityContext"]["runAsNonRoot"] is True
    assert all(fixed <= pod["securityContext"].keys() for pod in pods(render("speech", TRYING)))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_parent_chart_switches_this_one_on_and_off(tmp_path: Path, *, enabled: bool) -> None:
    dependency = {"name": "hotpool", "version": "*", "repository": "", "condition": "hotpool.enabled"}
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "hotpool").symlink_to(CHART)
    (tmp_path / "Chart.yaml").write_text(json.dumps(chart))
    documents = render("speech", {"hotpool": {"enabled": enabled}}, chart=tmp_path)
    assert bool(documents) is enabled
