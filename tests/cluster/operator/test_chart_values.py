"""Every value of the chart has an effect, or is refused by its name."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from chart.__main__ import rows
from localfleet.chart import CHART, helm_program, render

SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())
NAMES: Final = {name for name, _, _ in rows(SCHEMA, DEFAULTS)}
"""Names of all values, with dots."""
EFFECTS: Final[dict[str, tuple[Any, str]]] = {
    "image.repository": ("mark/image", "mark/image:"),
    "image.tag": ("mark-tag", ":mark-tag@sha256:"),
    "image.digest": (f"sha256:{'1' * 64}", f"@sha256:{'1' * 64}"),
    "image.pullPolicy": ("Always", '"Always"'),
    "image.pullSecrets": (["mark-pull"], '{"name": "mark-pull"}'),
    "operator.replicas": (3, '"replicas": 3'),
    "operator.logLevel": ("warning", '"HOTPOOL_LOG_LEVEL", "value": "warning"'),
    "operator.resources": ({"limits": {"memory": "601Mi"}}, '"601Mi"'),
    "operator.podAnnotations": ({"a": "mark-1"}, '"a": "mark-1"'),
    "operator.nodeSelector": ({"a": "mark-2"}, '"a": "mark-2"'),
    "operator.tolerations": ([{"key": "mark-3"}], '"key": "mark-3"'),
    "operator.affinity": ({"nodeAffinity": {"mark": "mark-4"}}, '"mark": "mark-4"'),
    "operator.priorityClassName": ("mark-5", '"priorityClassName": "mark-5"'),
    "agent.podNamespaces": (["mark-6"], '"speech,mark-6"'),
    "agent.catalogue": ({"services": [{"id": "mark-7", "port": 8007}]}, "mark-7"),
    "agent.clientsFrom": ([{"podSelector": {"matchLabels": {"a": "mark-32"}}}], '"a": "mark-32"'),
    "agent.hostNetwork": (True, '"dnsPolicy": "ClusterFirstWithHostNet"'),
    "agent.shareProcessNamespace": (True, '"shareProcessNamespace": true'),
    "agent.intervalSeconds": (7, '"HOTPOOL_AGENT_INTERVAL", "value": "7"'),
    "agent.resources": ({"limits": {"memory": "602Mi"}}, '"602Mi"'),
    "agent.volumes": ([{"name": "mark-8"}], '{"name": "mark-8"}'),
    "agent.volumeMounts": ([{"name": "mark-8", "mountPath": "/m"}], '{"mountPath": "/m"'),
    "agent.podAnnotations": ({"a": "mark-9"}, '"a": "mark-9"'),
    "agent.nodeSelector": ({"a": "mark-10"}, '"a": "mark-10"'),
    "agent.tolerations": ([{"key": "mark-11"}], '"key": "mark-11"'),
    "agent.affinity": ({"nodeAffinity": {"mark": "mark-12"}}, '"mark": "mark-12"'),
    "agent.priorityClassName": ("mark-13", '"priorityClassName": "mark-13"'),
    "kubeNodes": (False, '"HOTPOOL_KUBE_NODES", "value": "false"'),
    "endpoints.allowedCIDRs": (
        ["10.0.0.0/8", "fd00::/8"],
        '"HOTPOOL_ENDPOINTS_ALLOWED_CIDRS", "value": "10.0.0.0/8,fd',
    ),
    "endpoints.deniedCIDRs": (["10.1.0.0/16"], '"HOTPOOL_ENDPOINTS_DENIED_CIDRS", "value": "10.1.0.0/16"'),
    "endpoints.serviceCIDRs": (["10.2.0.0/16"], '"HOTPOOL_ENDPOINTS_SERVICE_CIDRS", "value": "10.2.0.0/16"'),
    "endpoints.trustAgents": (False, '"HOTPOOL_ENDPOINTS_TRUST_AGENTS", "value": "false"'),
    "services.enabled": (True, '"HOTPOOL_SERVICES", "value": "true"'),
    "redis.url": ("rediss://mark-14", '"rediss://mark-14"'),
    "redis.cluster": (True, '"HOTPOOL_REDIS_CLUSTER"'),
    "redis.sentinels": (["mark-15:26379"], '"mark-15:26379"'),
    "redis.prefix": ("mark-16", '"mark-16"'),
    "redis.username": ("mark-17", '"mark-17"'),
    "redis.existingSecret": ("mark-18", '"secretName": "mark-18"'),
    "redis.passwordKey": ("mark-19", '"/etc/hotpool/redis/mark-19"'),
    "redis.sentinelPasswordKey": ("mark-20", '"/etc/hotpool/redis/mark-20"'),
    "redis.caKey": ("mark-21", '"/etc/hotpool/redis/mark-21"'),
    "redis.builtin.existingSecret": ("mark-22", '"secretName": "mark-22"'),
    "redis.builtin.image": ("mark-23", '"mark-23"'),
    "redis.builtin.pullPolicy": ("Never", '"Never"'),
    "redis.builtin.resources": ({"limits": {"memory": "603Mi"}}, '"603Mi"'),
    "redis.builtin.nodeSelector": ({"a": "mark-24"}, '"a": "mark-24"'),
    "redis.builtin.tolerations": ([{"key": "mark-25"}], '"key": "mark-25"'),
    "networkPolicy.metricsFrom": ([{"podSelector": {"matchLabels": {"a": "mark-26"}}}], '"a": "mark-26"'),
    "viewer.subjects": ([{"kind": "User", "name": "mark-27"}], '"name": "mark-27"'),
    "flowControl.agentShares": (77, '"nominalConcurrencyShares": 77'),
    "monitoring.poolMetrics": (False, '{"name": "HOTPOOL_POOL_METRICS", "value": "false"}'),
    "monitoring.serviceMonitor.labels": ({"a": "mark-28"}, '"a": "mark-28"'),
    "monitoring.serviceMonitor.interval": ("17s", '"17s"'),
    "monitoring.prometheusRule.labels": ({"a": "mark-29"}, '"a": "mark-29"'),
    "monitoring.prometheusRule.runbooks": ("https://mark-30", '"https://mark-30#'),
    "monitoring.dashboard.labels": ({"a": "mark-31"}, '"a": "mark-31"'),
}
"""Name → a value, and the text by which it changes the objects."""
SWITCHES: Final[dict[str, set[str]]] = {
    "agent.enabled": {"DaemonSet"},
    "redis.builtin.enabled": {"Secret"},
    "networkPolicy.enabled": {"NetworkPolicy"},
    "flowControl.enabled": {"FlowSchema", "PriorityLevelConfiguration"},
    "monitoring.serviceMonitor.enabled": {"ServiceMonitor", "PodMonitor"},
    "monitoring.prometheusRule.enabled": {"PrometheusRule"},
    "monitoring.dashboard.enabled": {"ConfigMap"},
}
"""Name → kinds of the objects that only this component has."""
BUILTIN: Final = {name for name in EFFECTS if name.startswith("redis.builtin.")}
EXTERNAL: Final = {name for name in EFFECTS if name.startswith("redis.")} - BUILTIN - {"redis.prefix"}
"""Values of a Redis that is not the built-in one."""


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Return values by their names with dots as helm reads them."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        group = values
        for word in groups:
            group = group.setdefault(word, {})
        group[last] = value
    return values


def samples(names: set[str], **switches: bool) -> dict[str, Any]:
    """Return the values of EFFECTS with these names. `switches`: all switches, except the named ones (`_` for dots)."""
    on = {name: switches.get(name.replace(".", "_"), True) for name in SWITCHES}
    return nested(on | {name: EFFECTS[name][0] for name in names})


def refusal(values: dict[str, Any]) -> str:
    """Return the schema's errors."""
    with pytest.raises(RuntimeError, match="specifications of the schema") as error:
        render("speech", values)
    return str(error.value)


def paths(names: set[str]) -> set[str]:
    """Return the names as the schema's errors have them."""
    return {f"'/{name.replace('.', '/')}'" for name in names}


def missing(text: str, expected: set[str]) -> set[str]:
    return {one for one in expected if one not in text}


def test_these_tests_know_every_value_of_the_chart() -> None:
    assert EFFECTS.keys() | SWITCHES.keys() == NAMES


@pytest.mark.parametrize(
    ("names", "builtin"),
    [
        (EFFECTS.keys() - EXTERNAL, True),
        (EFFECTS.keys() - BUILTIN - {"redis.cluster"}, False),
        ({"redis.url", "redis.cluster"}, False),
    ],
    ids=["built-in", "external", "cluster"],
)
def test_every_value_changes_the_objects(names: set[str], *, builtin: bool) -> None:
    text = json.dumps(render("speech", samples(names, redis_builtin_enabled=builtin)))
    assert missing(text, {EFFECTS[name][1] for name in names}) == set()
    plain = json.dumps(render("speech", samples(set(), redis_builtin_enabled=builtin)))
    assert {EFFECTS[name][1] for name in names if EFFECTS[name][1] in plain} == set()


def test_every_switch_adds_and_removes_its_objects() -> None:
    kinds = set().union(*SWITCHES.values())
    for value, expected in ((True, kinds), (False, set())):
        found = {item["kind"] for item in render("speech", nested(dict.fromkeys(SWITCHES, value)))}
        assert found & kinds == expected


PEER: Final = {"podSelector": {"matchLabels": {"app": "gateway"}}}


@pytest.mark.parametrize(
    ("services", "ports"),
    [
        (
            [{"id": "a", "port": 8000}, {"id": "b", "port": 8001, "scope": "node"}, {"id": "c", "port": 8000}],
            [8000, 8001],
        ),
        ([{"id": "a", "port": 8000, "scope": "local"}, {"id": "b"}, {"id": "c", "port": 65535}], [65535]),
        ([{"id": "a", "port": 8000, "scope": "local"}, {"id": "b"}], []),
    ],
)
def test_the_clients_of_agents_reach_the_ports_of_the_catalogue_and_no_other(
    services: list[dict[str, Any]], ports: list[int]
) -> None:
    """A rule without ports would open all of them."""
    values = {"agent": {"catalogue": {"services": services}, "clientsFrom": [PEER]}}
    (policy,) = [
        item["spec"]
        for item in render("speech", values)
        if (item["kind"], item["metadata"]["name"]) == ("NetworkPolicy", "hotpool-agent")
    ]
    opened = [{"port": port, "protocol": "TCP"} for port in ports]
    assert policy.get("ingress", []) == ([{"ports": opened, "from": [PEER]}] if ports else [])


@pytest.mark.parametrize("host", [True, False])
def test_an_agent_knows_its_addresses_by_the_downward_api(*, host: bool) -> None:
    (agent,) = [item for item in render("speech", {"agent": {"hostNetwork": host}}) if item["kind"] == "DaemonSet"]
    pod = agent["spec"]["template"]["spec"]
    variables = {item["name"]: item for item in pod["containers"][0]["env"]}
    paths = {
        name: item["valueFrom"]["fieldRef"]["fieldPath"] for name, item in variables.items() if "valueFrom" in item
    }
    assert (paths["HOTPOOL_AGENT_POD_IPS"], paths["HOTPOOL_AGENT_HOST_IPS"]) == ("status.podIPs", "status.hostIPs")
    assert ("HOTPOOL_AGENT_HOST_NETWORK" in variables) == host
    assert pod.get("hostNetwork", False) == host


def test_monitors_of_agents_need_agents() -> None:
    values = {"agent": {"enabled": False}, "monitoring": {"serviceMonitor": {"enabled": True}}}
    kinds = {item["kind"] for item in render("speech", values)}
    assert kinds & {"ServiceMonitor", "PodMonitor"} == {"ServiceMonitor"}


def test_values_of_a_component_that_is_switched_off_are_refused_by_name() -> None:
    idle = {name for name in EFFECTS for switch in SWITCHES if name.startswith(switch.removesuffix("enabled"))}
    text = refusal(nested(dict.fromkeys(SWITCHES, False) | {name: EFFECTS[name][0] for name in idle}))
    assert missing(text, paths(idle | SWITCHES.keys())) == set()


def test_values_of_another_redis_are_refused_beside_the_builtin_one() -> None:
    values = samples(EXTERNAL - {"redis.cluster"})
    assert missing(refusal(values), paths(EXTERNAL - {"redis.cluster"} | {"redis.builtin.enabled"})) == set()


def test_values_of_redis_without_one_are_refused_by_name() -> None:
    idle = {"redis.cluster", "redis.prefix", "redis.username", "redis.existingSecret"}
    text = refusal(nested({name: EFFECTS[name][0] for name in idle}))
    assert missing(text, paths(idle | {"redis.url", "redis.builtin.enabled"})) == set()


URL: Final = {"redis.url": "redis://redis.example"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (URL | {"redis.passwordKey": "a"}, {"redis.existingSecret", "redis.passwordKey"}),
        (URL | {"redis.existingSecret": "a", "redis.caKey": "b"}, {"redis.url", "redis.caKey"}),
        (URL | {"redis.existingSecret": "a", "redis.sentinelPasswordKey": "b"}, {"redis.sentinels"}),
        (URL | {"redis.cluster": True, "redis.sentinels": ["a:1"]}, {"redis.cluster", "redis.sentinels"}),
        ({"redis.url": "redis.example:6379"}, {"redis.url"}),
        ({"agent.clientsFrom": [{}], "agent.catalogue": {}}, {"agent.clientsFrom", "agent.catalogue"}),
        (
            {"agent.clientsFrom": [{}], "agent.catalogue": {"services": []}, "networkPolicy.enabled": False},
            {"agent.clientsFrom", "networkPolicy.enabled"},
        ),
        ({"enabled": False}, {"enabled"}),
        ({"image.tag": 1.1}, {"image.tag"}),
        ({"agent.nodeSelector": {"version": 1.1}}, {"agent.nodeSelector.version"}),
        ({"viewer.subjects": [{"kind": "user", "name": "a"}]}, {"viewer.subjects.0.kind"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_combinations_without_effect_and_invalid_values_are_refused(values: Any, expected: set[str]) -> None:
    """Of a fraction, YAML has dropped digits: 1.10 is 1.1."""
    assert missing(refusal(nested(values)), paths(expected)) == set()


def unknown_keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield a name that does not exist, for each level that the schema describes."""
    if "properties" in schema:
        yield f"{path}nothing"
        for name, described in schema["properties"].items():
            yield from unknown_keys(described, f"{path}{name}.")


def test_unknown_names_are_refused_at_every_level() -> None:
    values = nested(dict.fromkeys(unknown_keys(SCHEMA), 1))
    groups = {name.rpartition(".")[0] for name in unknown_keys(SCHEMA)}
    text = refusal(values)
    assert len(groups) > 15
    assert (
        missing(text, {f"at '{'/' if g else ''}{g.replace('.', '/')}': additional properties" for g in groups}) == set()
    )


def test_null_is_an_empty_value_or_refused_by_name() -> None:
    """Helm removes a value that is null; a template that needs it would fail without a name."""
    required = {name for name in NAMES if name.rpartition(".")[2] in group(name).get("required", ())}
    assert missing(refusal(nested(dict.fromkeys(required))), {name.rpartition(".")[2] for name in required}) == set()
    optional = NAMES - required
    assert {name for name in required if default(name) in ("", [], {})} == set()
    for builtin in (True, False):
        on = dict.fromkeys(SWITCHES, True) | {"redis.builtin.enabled": builtin}
        assert "no value" not in json.dumps(render("speech", nested(dict.fromkeys(optional) | on)))


def group(name: str) -> dict[str, Any]:
    """Return the schema of the group of a value."""
    schema = SCHEMA
    for word in name.split(".")[:-1]:
        schema = schema["properties"][word]
    return schema


def default(name: str) -> Any:
    """Return the default of a value."""
    value: Any = DEFAULTS
    for word in name.split("."):
        value = value[word]
    return value


@pytest.mark.parametrize(
    ("values", "shown", "hidden"),
    [
        ({}, {"pod POD hotpool.dev/type=asr", "No Redis is configured"}, {"hotpool enroll", "dispatcher-password"}),
        (
            {"agent.enabled": False, "redis.builtin.enabled": True, "redis.builtin.existingSecret": "login"},
            {"hotpool enroll NODE -n speech", "get secret login -n speech"},
            {"pod POD", "No Redis", "NetworkPolicies"},
        ),
        (
            {"redis.url": "redis://a", "monitoring.serviceMonitor.enabled": True},
            {"set networkPolicy.metricsFrom"},
            {"No Redis", "dispatcher-password", "HotpoolNoLeader"},
        ),
    ],
    ids=["defaults", "outside", "watched"],
)
def test_the_notes_fit_the_values(values: dict[str, Any], shown: set[str], hidden: set[str]) -> None:
    command = [str(helm_program()), "install", "hotpool", str(CHART), "-n", "speech", "--dry-run=client", "-o", "json"]
    text = json.dumps(nested(values))
    done = subprocess.run([*command, "--values", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout)["info"]["notes"]
    assert missing(notes, shown) == set()
    assert missing(notes, hidden) == hidden
