"""The chart's alerts, as helm renders them and Prometheus evaluates them (requirement F8)."""

import re
from typing import Any, Final

import pytest

from alertcheck import Alert, Scenario, firing
from hotpool.observability.metrics import REGISTRY
from hotpool_agent.metrics import Metrics
from localfleet.chart import render

MINUTES: Final = 30
NAMES: Final = "_names_to_collectors"
"""Attribute of a registry: name of a sample → its metric, which knows its labels also while it has no series."""
ALWAYS, NEVER, GROWS = "1x60", "0x60", "0+1x60"
VALUES: Final = {
    "monitoring": {"prometheusRule": {"enabled": True}},
    "redis": {"url": "redis://redis.example:6379"},
    "services": {"enabled": True},
}
HEALTHY: Final = {
    "leader": ALWAYS,
    'leader{pod="b"}': NEVER,
    **{f'watch_up{{kind="{kind}"}}': ALWAYS for kind in ("leases", "nodepools", "nodes")},
    **{f'target_up{{target="{target}"}}': ALWAYS for target in ("kubernetes", "redis", "services")},
    'redis_drift_total{what="pool"}': NEVER,
    'pool_ejected_services{pool="asr"}': NEVER,
    'pool_refused_reservations_total{pool="asr",reason="Full"}': NEVER,
    'pool_refused_reservations_total{pool="asr",reason="Empty"}': GROWS,
    'failures_total{error="RejectedError"}': NEVER,
    'rejected_objects_total{kind="nodepools"}': NEVER,
    'node_transitions_total{reason="InvalidReport"}': NEVER,
    'node_transitions_total{reason="Live"}': GROWS,
    'hotplug_seconds_bucket{stage="total_slice",direction="withdrawal",le="1"}': "0+10x60",
    'hotplug_seconds_bucket{stage="total_slice",direction="withdrawal",le="10"}': "0+10x60",
    'hotplug_seconds_bucket{stage="total_slice",direction="withdrawal",le="+Inf"}': "0+10x60",
    'agent_connected{pod="c"}': ALWAYS,
    'agent_pods_watched{pod="c",pod_namespace="n"}': ALWAYS,
    'pool_ready{pool="asr"}': ALWAYS,
    'pool_ready{pool="tts"}': ALWAYS,
    'pool_condition{pool="asr",condition="PauseIgnored"}': ALWAYS,
    'generator_not_admitted{generator="speech"}': NEVER,
    'node_states{state="Live"}': "9x60",
    'node_states{state="Draining"}': "2x60",
    'node_problems{condition="CommandIgnored"}': ALWAYS,
    'service_incidents_total{reason="ServiceFailed"}': GROWS,
}
"""Series of a healthy fleet, without namespace, and without pod where it is that of the leader."""
SILENT: Final = {'pool_condition{pool="asr",condition="MassSilence"}': "_x25 1x60"}
SLOW: Final = 'hotplug_seconds_bucket{stage="total_slice",direction="withdrawal",le="1"}'

CASES: Final[dict[str, tuple[dict[str, str], str, dict[str, str]]]] = {
    "no leader": ({"leader": NEVER}, "HotpoolNoLeader", {}),
    "no operator": ({"leader": "1x20 stale", 'leader{pod="b"}': "0x20 stale"}, "HotpoolNoLeader", {}),
    "two leaders": ({'leader{pod="b"}': ALWAYS}, "HotpoolTwoLeaders", {}),
    "Leases": ({'watch_up{kind="leases"}': NEVER}, "HotpoolWatchDown", {"kind": "leases"}),
    "Redis": ({'target_up{target="redis"}': NEVER}, "HotpoolRedisDown", {}),
    "drift": ({'redis_drift_total{what="pool"}': GROWS}, "HotpoolRedisDrift", {"pod": "a"}),
    "ejected": ({'pool_ejected_services{pool="asr"}': ALWAYS}, "HotpoolServicesEjected", {"pool": "asr"}),
    "full": (
        {'pool_refused_reservations_total{pool="asr",reason="Full"}': GROWS},
        "HotpoolPoolFull",
        {"pool": "asr"},
    ),
    "services": ({'target_up{target="services"}': NEVER}, "HotpoolServicesDown", {}),
    "refused": ({'failures_total{error="RejectedError"}': GROWS}, "HotpoolWritesRefused", {}),
    "invalid reports": ({'node_transitions_total{reason="InvalidReport"}': GROWS}, "HotpoolRejectedObjects", {}),
    "slow": ({SLOW: NEVER}, "HotpoolHotplugSlow", {}),
    "agent": ({'agent_connected{pod="c"}': NEVER}, "HotpoolAgentUnheard", {"pod": "c"}),
    "pods": (
        {'agent_pods_watched{pod="c",pod_namespace="n"}': NEVER},
        "HotpoolPodsUnseen",
        {"pod": "c", "pod_namespace": "n"},
    ),
    "nodes unseen": ({'watch_up{kind="nodes"}': NEVER}, "HotpoolNodesUnseen", {}),
    "not ready": ({'pool_ready{pool="asr"}': NEVER}, "HotpoolPoolNotReady", {"pool": "asr"}),
    "not ready across a failover": (
        {'pool_ready{pool="asr"}': "1x15 0x5 stale", 'pool_ready{pool="asr",pod="b"}': "_x21 0x60"}
        | {"leader": "1x21 0x60", 'leader{pod="b"}': "0x21 1x60"},
        "HotpoolPoolNotReady",
        {"pool": "asr"},
    ),
    "mass silence": (SILENT, "HotpoolMassSilence", {"pool": "asr"}),
    "not admitted": (
        {'generator_not_admitted{generator="speech"}': "4x60"},
        "HotpoolNotAdmitted",
        {"generator": "speech"},
    ),
    "offline": ({'node_states{state="Offline"}': "3x60"}, "HotpoolNodesOffline", {}),
    "awaiting a heartbeat": ({'node_states{state="AwaitingHeartbeat"}': ALWAYS}, "HotpoolNodesOffline", {}),
    "crash loop": (
        {'failing_services{state="Failed"}': "1 _ 1 stale 1x60", 'failing_services{state="Flapping"}': "_ 1 _ 1x60"},
        "HotpoolServicesFailing",
        {},
    ),
    "addresses": ({'node_problems{condition="AddressNotAllowed"}': ALWAYS}, "HotpoolEndpointsNotAllowed", {}),
    "refused Service": (
        {'pool_condition{pool="asr",condition="ServiceNotAllowed"}': ALWAYS},
        "HotpoolEndpointsNotAllowed",
        {},
    ),
}
"""Differences from a healthy fleet, the one alert that fires then, and its labels beside severity and namespace."""
SHORT: Final = {
    "a pool is not ready for five minutes": {'pool_ready{pool="asr"}': "1x24 0x60"},
    "a node is silent for three minutes": {'node_states{state="Offline"}': "_x27 1x60"},
    "services fail for five minutes": {'failing_services{state="Failed"}': "_x25 2x60"},
    "a service failed and runs again": {'failing_services{state="Failed"}': "1x15 stale"},
}
"""Differences that fire nothing."""


def scenario(*, changes: dict[str, str]) -> Scenario:
    """Return the series of a fleet that differs from a healthy one."""
    return Scenario({_full(name): values for name, values in (HEALTHY | changes).items()}, MINUTES)


def _full(name: str) -> str:
    """Return a series with namespace and pod."""
    metric, _, rest = name.removesuffix("}").partition("{")
    labels = [*([rest] if rest else []), *([] if re.search(r'\bpod="', rest) else ['pod="a"']), 'namespace="speech"']
    return f"hotpool_{metric}{{{','.join(labels)}}}"


def groups(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rule groups that helm renders."""
    (rule,) = [item for item in render("speech", values) if item["kind"] == "PrometheusRule"]
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Alert]]:
    """Firing alerts by scenario."""
    healthy: dict[str, str] = {}
    changes = {"healthy": healthy} | {name: case[0] for name, case in CASES.items()} | SHORT
    scenarios = [scenario(changes=change) for change in changes.values()]
    return dict(zip(changes, firing(groups(VALUES), scenarios, tmp_path_factory.mktemp("rules")), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_fires_its_alert_and_no_other(results: dict[str, list[Alert]], name: str) -> None:
    _, expected, labels = CASES[name]
    (found,) = results[name]
    assert found.name == expected
    assert {key: value for key, value in found.labels.items() if key not in {"severity", "namespace"}} == labels
    assert found.labels["namespace"] == "speech"


@pytest.mark.parametrize("name", ["healthy", *SHORT])
def test_a_healthy_fleet_and_what_passes_soon_fire_nothing(results: dict[str, list[Alert]], name: str) -> None:
    assert results[name] == []


def test_every_alert_of_the_chart_has_a_case() -> None:
    assert {rule["alert"] for rule in groups(VALUES)[0]["rules"]} == {case[1] for case in CASES.values()}


def test_the_series_of_the_cases_have_the_labels_of_the_metrics() -> None:
    """A typing error in a label would make an alert silent, and its case, too."""
    agent = Metrics()
    agent.expose(list, lambda: False)
    declared = {name: metric for it in (agent.registry, REGISTRY) for name, metric in vars(it)[NAMES].items()}
    used = {name for changes in (HEALTHY, *(case[0] for case in CASES.values()), *SHORT.values()) for name in changes}
    assert len(used) > len(HEALTHY)
    for name in used:
        metric, *labels = re.findall(r"^\w+|\w+(?==)", name)
        expected = {*getattr(declared[f"hotpool_{metric}"], "_labelnames", ())} | (
            {"le"} if "_bucket" in metric else set()
        )
        assert set(labels) - {"pod"} == expected - {"pod"}, name


def test_the_summary_names_the_pool_and_the_number(results: dict[str, list[Alert]]) -> None:
    shown = {name: results[name][0].summary for name in ("not ready", "not admitted", "offline")}
    assert ("Pool asr " in shown["not ready"], "speech has 4 keys" in shown["not admitted"]) == (True, True)
    assert shown["offline"].startswith("3 nodes ")


def test_without_metrics_by_pool_no_alert_needs_them() -> None:
    values = {**VALUES, "monitoring": {"prometheusRule": {"enabled": True}, "poolMetrics": False}}
    rules = groups(values)[0]["rules"]
    gone = {rule["alert"] for rule in groups(VALUES)[0]["rules"]} - {rule["alert"] for rule in rules}
    assert gone == {"HotpoolPoolNotReady", "HotpoolMassSilence", "HotpoolNotAdmitted"}
