"""The chart's files agree with the project: definitions, versions, alerts, dashboard and README."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hotpool import __version__
from hotpool.api.meta import SCHEMA_REVISION
from hotpool.observability.metrics import REGISTRY
from hotpool_agent.metrics import Metrics
from localfleet.kind import REPOSITORY

ROOT = REPOSITORY
CHART = ROOT / "charts/hotpool"
README, INSTALL = "charts/hotpool/README.md", "docs/how-to/install.md"
METRIC = re.compile(r"\bhotpool_[a-z_]+")
EXPORTED = """
from prometheus_client import generate_latest
from hotpool.observability.metrics import REGISTRY
print(generate_latest(REGISTRY).decode())
"""
SUFFIXES = re.compile(r"_(total|bucket|sum|count|info)$")


def alerts() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CHART / "files/dashboard.json").read_text())["panels"]
    return found


def cells(at: dict[str, int]) -> set[tuple[int, int]]:
    """Return the cells of Grafana's grid that a panel covers."""
    return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}


def exported() -> set[str]:
    """Return the names of all metrics of operator and agent, without the suffixes of their samples."""
    agent = Metrics()
    agent.expose(list, lambda: False)

    return {metric.name for registry in (REGISTRY, agent.registry) for metric in registry.collect()}


def test_the_definitions_of_the_chart_are_those_of_the_project() -> None:
    ours = {path.name: path.read_bytes() for path in (ROOT / "crds").glob("*.yaml")}
    assert {path.name: path.read_bytes() for path in (CHART / "crds").iterdir()} == ours


def test_the_chart_has_the_version_and_schema_revision_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert chart["annotations"]["hotpool.dev/schema-revision"] == str(SCHEMA_REVISION)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/how-to/runbooks.md").read_text(), re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts()]


@pytest.mark.parametrize("text", [alert["expr"] for alert in alerts()] + [json.dumps(panel) for panel in panels()])
def test_alerts_and_panels_use_existing_metrics(text: str) -> None:
    used = {SUFFIXES.sub("", name) for name in METRIC.findall(text)}
    assert used
    assert used <= exported()


def test_alerts_about_the_leader_leave_out_the_labels_that_its_series_lacks() -> None:
    """`and` compares all labels, and hotpool_leader has no `kind`."""
    about_kinds = [alert["expr"] for alert in alerts() if "hotpool_watch_up" in alert["expr"]]
    assert about_kinds
    assert all("} and ignoring (kind) hotpool_leader{" in expression for expression in about_kinds)


def test_counters_in_alerts_are_exported_before_their_first_event() -> None:
    """Prometheus computes no increase of a series that starts with its first event."""
    text = subprocess.run([sys.executable, "-c", EXPORTED], capture_output=True, text=True, check=True).stdout
    samples = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    counters = {name for alert in alerts() for name in re.findall(r"increase\((\w+)", alert["expr"])}
    assert len(counters) == 5
    # Of a pool, it begins with the pool (test_redis_use.py).
    assert counters - {"hotpool_pool_refused_reservations_total"} <= samples
    for series in ('failures_total{error="RejectedError"}', 'node_transitions_total{reason="InvalidReport"}'):
        assert f"hotpool_{series} 0.0" in text


def test_every_panel_has_a_description_and_no_two_overlap() -> None:
    fields = [cell for panel in panels() for cell in cells(panel["gridPos"])]
    assert len(fields) == len(set(fields))
    assert all(0 <= x < 24 for x, _ in fields)
    assert all(panel["description"] for panel in panels())


def test_the_commands_of_the_charts_readme_are_those_of_the_tested_page() -> None:
    """tests/e2e/test_docs.py runs docs/how-to/install.md as a whole."""
    shown, run = (re.findall(r"^\$ (.*)$", (ROOT / page).read_text(), re.MULTILINE) for page in (README, INSTALL))
    assert shown
    assert set(shown) <= set(run)


def test_the_agents_containers_share_a_process_namespace_only_on_request() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    template = (CHART / "templates/agent/daemonset.yaml").read_text()
    assert values["agent"]["shareProcessNamespace"] is False
    condition = "{{- if .Values.agent.shareProcessNamespace }}\n      shareProcessNamespace: true\n      {{- end }}"
    assert template.count("shareProcessNamespace") == condition.count("shareProcessNamespace")
    assert condition in template
