"""The chart's manifests as the API server takes them: every kind of value, PodSecurity `restricted` enforced.

Nothing runs here; `tests/e2e` installs the chart on a cluster with pods.
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
    """A namespace that enforces PodSecurity `restricted`, on an API server that knows our kinds."""
    kind_cluster.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    name = f"chart-{uuid.uuid4().hex[:6]}"
    kind_cluster.kubectl("create", "namespace", name)
    for mode in ("enforce", "warn"):
        kind_cluster.kubectl("label", "namespace", name, f"pod-security.kubernetes.io/{mode}=restricted")
    # The API server looks the account of a pod up, even if it stores neither.
    kind_cluster.kubectl("create", "serviceaccount", "hotpool-viewer", "-n", name)
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")


def dry_run(kind_cluster: Any, documents: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """What the API server says of the objects, which it does not store."""
    command = [kind_cluster.kubectl_path, "--kubeconfig", kind_cluster.kubeconfig_path]
    command += ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    return subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_the_api_server_takes_what_the_chart_renders(kind_cluster: Any, namespace: str, values: dict[str, Any]) -> None:
    documents = render(namespace, values)
    done = dry_run(kind_cluster, documents)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(documents)
    assert "violate PodSecurity" not in done.stderr


def test_a_host_mount_is_more_than_restricted_allows(kind_cluster: Any, namespace: str) -> None:
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


@pytest.mark.parametrize(("values", "where"), BAD, ids=[where for _, where in BAD])
def test_values_that_mean_nothing_are_refused_by_name(values: dict[str, Any], where: str) -> None:
    with pytest.raises(RuntimeError, match=where):
        render("speech", values)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_object_is_in_the_namespace_or_named_after_it(values: dict[str, Any]) -> None:
    """Two fleets of one cluster do not touch each other's objects."""
    here, there = (
        {
            (found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"])
            for found in render(name, values)
        }
        for name in ("east", "west")
    )
    assert here
    assert not here & there


def test_the_kinds_of_monitoring_are_rendered_as_their_operator_reads_them() -> None:
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
    ("values", "there"),
    [
        ({"kubeNodes": False}, {"HotpoolRedisDown": False, "HotpoolNodesUnseen": False}),
        ({"redis": {"url": "redis://redis.example:6379"}}, {"HotpoolRedisDown": True, "HotpoolNodesUnseen": True}),
    ],
)
def test_what_a_fleet_does_not_have_raises_no_alert(values: dict[str, Any], there: dict[str, bool]) -> None:
    names = {alert["alert"] for alert in alerts(values)}
    assert {name: name in names for name in there} == there


def test_alerts_say_of_which_fleet_they_are() -> None:
    assert {alert["labels"]["namespace"] for alert in alerts({})} == {"speech"}


def alerts(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What is rendered for the fleet `speech` with these values."""
    documents = render("speech", {"monitoring": {"prometheusRule": {"enabled": True}}, **values})
    (rule,) = (document for document in documents if document["kind"] == "PrometheusRule")
    found: list[dict[str, Any]] = rule["spec"]["groups"][0]["rules"]
    return found


def test_the_builtin_redis_begins_anew_with_the_users_of_its_secret() -> None:
    """It reads them once; what renders without a cluster makes new passwords each time."""

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


def test_a_namespace_of_digits_stays_a_word() -> None:
    """YAML would make it a number, which the API server refuses."""
    numbers = [found["metadata"]["name"] for found in render("123", MATRIX["trying"]) if 123 in words(found)]
    assert numbers == []


def words(value: Any) -> Iterator[Any]:
    """Every scalar within."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from words(item)
    else:
        yield value
