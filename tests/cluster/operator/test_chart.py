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
from tests.support.dry_run import dry_run

from localfleet.chart import ANY_CLUSTER, CHART, helm_program, render

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
    "trying with a Secret": {"redis": {"builtin": {"enabled": True, "existingSecret": "login"}}},
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
            "catalogue": {"services": [{"id": "llm", "type": "llm", "port": 8000, "observe": {"tcp": {}}}]},
            "podNamespaces": ["default"],
            "clientsFrom": [{"podSelector": {}}],
        }
    },
    "services": {"services": {"enabled": True}, "endpoints": {"allowedCIDRs": ["10.0.0.0/8", "fd00::/8"]}},
    "services without ranges": {"services": {"enabled": True}},
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


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_the_api_server_accepts_the_rendered_chart(kind_cluster: Any, namespace: str, values: dict[str, Any]) -> None:
    documents = render(namespace, values, apis=[ANY_CLUSTER])
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


@pytest.fixture
def number(kind_cluster: Any) -> Iterator[str]:
    """An empty namespace whose name is a number, on an API server with the CRDs."""
    name = str(uuid.uuid4().int)[:12]
    kind_cluster.kubectl("apply", "--server-side", "-f", str(CHART / "crds"))
    kind_cluster.kubectl("create", "namespace", name)
    kind_cluster.kubectl("create", "namespace", f"1{name}")
    yield name
    kind_cluster.kubectl("delete", "namespace", name, f"1{name}", "--wait=false")


NUMBER: Final = 20261130
NUMBERS: Final = {"number": NUMBER, "truth": True}
NUMBERED: Final = {
    "podAnnotations": NUMBERS,
    "nodeSelector": NUMBERS,
    "tolerations": [{"key": "gpu", "value": True, "effect": "NoExecute", "tolerationSeconds": NUMBER}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 7, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": NUMBERS}}}
            ]
        }
    },
    "priorityClassName": NUMBER,
}


@pytest.mark.parametrize("builtin", [True, False])
def test_numbers_and_booleans_become_strings_where_these_belong(
    kind_cluster: Any, number: str, *, builtin: bool
) -> None:
    redis: dict[str, Any] = {
        "url": "redis://redis.example",
        "username": NUMBER,
        "existingSecret": NUMBER,
        "passwordKey": NUMBER,
        "sentinels": ["a:1"],
        "sentinelPasswordKey": NUMBER,
    }
    if builtin:
        redis = {"builtin": {"enabled": True, "existingSecret": NUMBER, "nodeSelector": NUMBERS}}
    values = {
        "image": {"tag": NUMBER, "pullSecrets": [NUMBER]},
        "operator": NUMBERED,
        "agent": NUMBERED | {"podNamespaces": [int(f"1{number}")], "intervalSeconds": 15.0},
        "redis": redis | {"prefix": NUMBER},
        "viewer": {"subjects": [{"kind": "User", "name": NUMBER}]},
        "networkPolicy": {"metricsFrom": [{"podSelector": {"matchLabels": NUMBERS}}]},
        "monitoring": {"dashboard": {"enabled": True, "labels": NUMBERS}},
    }
    documents = render(number, values)
    done = dry_run(kind_cluster, documents)
    assert done.returncode == 0, done.stderr
    text = json.dumps(documents)
    assert all(
        one in text for one in ('"tolerationSeconds": 20261130', '"weight": 7', f':{NUMBER}"', '"truth": "true"')
    )
    assert "e+07" not in text
