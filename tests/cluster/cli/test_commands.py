"""`hotpool why`, `diff`, `top` and `pick` on a real API server, with the viewer's account (requirements F2, F5)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.support.fleet_objects import BOTH, pool, published

from localfleet.catalogue import translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
WIDTH: Final = 80

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """Start two translating nodes in two pools."""
    fleet.apply(pool("zh-en", types=[{"type": "asr"}, {"type": "tts"}], languagePairs={"allOf": ["zh-en"]}))
    fleet.apply(pool("gold", types=[{"type": "asr", "attributes": [{"key": "tier", "anyOf": ["gold"]}]}]))
    fleet.start_operator()
    for node in BOTH:
        fleet.start_agent(node, translator(["zh", "en"]), debounce=0.2)
    fleet.wait_leading()
    for name in ("zh-en", "gold"):
        wait_for(f"both nodes are in {name}", lambda name=name: published(fleet, name, BOTH), 60)  # type: ignore[misc]
    return fleet


@pytest.fixture
def hotpool(running: Fleet) -> Run:
    """Return a function that runs `hotpool` with the kubeconfig of the viewer and the namespace of the fleet."""
    viewer = running.viewer()

    def run(*words: str, text: str | None = None, kubeconfig: Path = viewer) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "COLUMNS": str(WIDTH)}
        command = [PROGRAM, *words, "-n", running.namespace]
        result = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
        assert "json" in words or max(map(len, result.stdout.splitlines()), default=0) <= WIDTH, result.stdout
        return result

    return run


def parsed(result: "subprocess.CompletedProcess[str]") -> Any:
    assert result.returncode in {0, 1}, result.stderr
    return json.loads(result.stdout)


def event(running: Fleet, reason: str, when: str) -> dict[str, Any]:
    """Return an Event about a node."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"edge-1.{reason.lower()}", "namespace": running.namespace},
        "regarding": {
            "apiVersion": "hotpool.dev/v1alpha1",
            "kind": "NodeCapability",
            "name": "edge-1",
            "namespace": running.namespace,
        },
        "eventTime": when,
        "action": "Judged",
        "reason": reason,
        "note": f"it became {reason}",
        "reportingController": "hotpool-operator",
        "reportingInstance": "t",
        "type": "Normal",
    }


def test_why_shows_a_stop_and_its_remedy_works(running: Fleet, hotpool: Run) -> None:
    first = hotpool("why", "edge-1", "zh-en")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("edge-1 in zh-en: member Ready, since ")
    running.agent("edge-1", "stop", "piper")
    wait_for("it is out", lambda: running.members("zh-en") == {"edge-2": "Ready"})
    document = parsed(hotpool("why", "edge-1", "zh-en", "-o", "json"))
    assert document["verdict"]["criterion"] == "TypeNotReady"
    decided = next(item for item in document["requirements"] if item["decides"])
    assert (decided["observed"], decided["remedies"]) == (
        "Stopped: piper is Stopped",
        ["start service piper (tts) on edge-1: hotpool-agent start piper"],
    )
    nearest = hotpool("why", "--pool", "zh-en").stdout.splitlines()
    assert nearest[0] == "zh-en: 1 member (1 Ready), 1 out"
    assert any(line.startswith("edge-1 ") for line in nearest)
    running.agent("edge-1", *decided["remedies"][0].partition(": hotpool-agent ")[2].split())
    wait_for("it is in again", lambda: published(running, "zh-en", BOTH))
    assert parsed(hotpool("why", "edge-1", "zh-en", "-o", "json"))["membership"] == "Member"


def test_events_has_a_crash_from_all_sources_in_order(running: Fleet, hotpool: Run) -> None:
    report = (running.get("nodecapabilities", "edge-1") or {})["status"]["report"]
    (pid,) = (item["pid"] for item in report["services"] if item["id"] == "piper")
    os.kill(pid, signal.SIGKILL)
    sources = ("--redis", running.redis_url, "--log", str(running.folder / "operator.log"))

    def entries() -> list[dict[str, Any]]:
        return list(parsed(hotpool("events", "edge-1", *sources, "-o", "json"))["entries"])

    expected = {*((origin, "ServiceFailed") for origin in ("Event", "Log")), ("Log", "left"), ("Redis", "TypesChanged")}
    wait_for("the crash", lambda: {(item["source"], item["reason"]) for item in entries()} >= expected)
    found = entries()
    assert [item["time"] for item in found] == sorted(item["time"] for item in found)
    assert "piper: killed by SIGKILL" in next(item["message"] for item in found if item["reason"] == "ServiceFailed")
    listed = json.loads(running.kubectl("get", "events", "-o", "json"))["items"]
    ours = [item for item in listed if item["reportingComponent"] == "hotpool.dev/operator"]
    assert len(ours) > 2
    assert all(item["lastTimestamp"] for item in ours)


def test_why_of_a_node_shows_its_transitions(running: Fleet, hotpool: Run) -> None:
    running.agent("edge-1", "stop", "piper")
    wait_for("it is out", lambda: running.members("zh-en") == {"edge-2": "Ready"})
    running.apply(event(running, "First", "2026-01-01T00:00:01.000000Z"))
    running.apply(event(running, "Second", "2026-01-01T00:00:02.000000Z"))

    def explanation() -> Any:
        return parsed(hotpool("why", "--node", "edge-1", "--redis", running.redis_url, "-o", "json"))

    def redis_messages() -> list[str]:
        return [item["message"] for item in explanation()["transitions"] if item["source"] == "Redis"]

    wait_for("Redis has the stop", lambda: "can no longer serve tts (Stopped)" in redis_messages(), 60)
    document = explanation()
    reasons = [item["reason"] for item in document["transitions"] if item["message"].startswith("it became")]
    assert reasons == ["Second", "First"]
    assert {item["pool"]: item["state"] for item in document["pools"]} == {"zh-en": None, "gold": "Ready"}
    other = parsed(hotpool("why", "--node", "edge-2", "-o", "json"))
    assert not {"First", "Second"} & {item["reason"] for item in other["transitions"]}


def test_diff_predicts_the_effect_of_apply(running: Fleet, hotpool: Run) -> None:
    running.agent("edge-1", "stop", "repair")
    wait_for("reported", lambda: "semantic" not in running.types_in_redis("edge-1"))
    narrower = pool("gold", types=[{"type": "asr"}, {"type": "semantic"}])
    generator = {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePoolGenerator",
        "metadata": {"name": "speech"},
        "spec": {"rule": {"languagePairs": {"manyToOne": True}}, "maxPools": 3},
    }
    manifests = yaml.safe_dump_all([narrower, generator])
    result = hotpool("diff", "-f", "-", "-o", "json", text=manifests)
    assert result.returncode == 1
    document = json.loads(result.stdout)
    (changed,) = document["pools"]
    assert (changed["joins"], [item["node"] for item in changed["leaves"]]) == ([], ["edge-1"])
    running.kubectl("apply", "-f", "-", text=manifests)
    wait_for("the pool is as predicted", lambda: published(running, "gold", {"edge-2": "Ready"}), 60)
    predicted = {item["name"]: item["membersAfter"] for item in document["generators"][0]["pools"]}
    assert len(predicted) == 3
    wait_for("its pools are created", lambda: {name: len(running.members(name)) for name in predicted} == predicted, 60)
    names = {item["metadata"]["name"] for item in running.list("nodepools")}
    assert names == {"zh-en", "gold", *predicted}
    wait_for("it is applied", lambda: hotpool("diff", "-f", "-", text=manifests).returncode == 0)


def test_diff_asks_the_api_server_and_says_why_nobody_would_join(running: Fleet, hotpool: Run, tmp_path: Path) -> None:
    def write(name: str, *objects: dict[str, Any]) -> None:
        (tmp_path / name).write_text(yaml.safe_dump_all(objects), encoding="utf-8")

    def diff(code: int, **options: Any) -> str:
        result = hotpool("diff", "-f", str(tmp_path), **options)
        assert result.returncode == code, result
        assert (result.stderr == "") == (code < 2)
        return " ".join((result.stdout + result.stderr).split())

    admin = {"kubeconfig": running.admin}
    gold = running.get("nodepools", "gold") or {}
    write("a.yaml", gold)
    assert "nodepool/gold (unchanged)" in diff(0, **admin)
    none = pool("none", types=[{"type": "asr", "attributes": [{"key": "tier", "anyOf": ["golden"]}]}])
    write("b.yml", none)
    text = diff(1, **admin)
    assert "nodepool/none (new): 0 would join, 0 leave, 0 -> 0 members" in text
    assert "No member: 2 nodes Attribute. No asr service declares tier golden; similar: gold." in text
    assert "API server" not in text
    assert "WARNING: not allowed to patch nodepools, create nodepools in namespace" in diff(1)
    changed = {**gold, "spec": {**gold["spec"], "sliceSize": 7}}
    write("a.yaml", changed)
    write("b.yml", {**none, "spec": {**none["spec"], "minMembers": -1, "minMember": 1}})
    refused = diff(2, **admin)
    assert f"{tmp_path}/a.yaml: NodePool gold: " in refused
    assert "sliceSize" in refused
    assert f"{tmp_path}/b.yml: NodePool none: " in refused
    assert "minMember" in refused
    write("b.yml", {**none, "kind": "NodePol"})
    served = "the API server does not serve hotpool.dev/v1alpha1 NodePol; similar: NodePool"
    assert f"{tmp_path}/b.yml: NodePol none: {served}" in diff(2, **admin)
    assert {item["metadata"]["name"] for item in running.list("nodepools")} == {"zh-en", "gold"}


def test_a_viewer_can_run_every_query_and_nothing_else(running: Fleet, hotpool: Run) -> None:
    def nodes() -> dict[str, Any]:
        return {item["name"]: item for item in parsed(hotpool("top", "nodes", "-o", "json"))["nodes"]}

    wait_for("both have renewed their Leases", lambda: all(item["lastSeen"] for item in nodes().values()), 60)
    rows = nodes()
    assert rows.keys() == BOTH.keys()
    assert all((item["state"], item["pools"], item["servicesRunning"]) == ("Live", 2, 4) for item in rows.values())
    pools = parsed(hotpool("top", "pools", "-o", "json"))["pools"]
    assert {item["name"]: item["members"]["Ready"] for item in pools} == {"zh-en": 2, "gold": 2}
    result = hotpool("top")
    assert (result.returncode, result.stderr) == (0, "")
    assert parsed(hotpool("pick", "zh-en", "--redis", running.redis_url, "-o", "json"))["node"] in BOTH
    account = f"system:serviceaccount:{running.namespace}:hotpool-viewer"
    assert running.kubectl("auth", "can-i", "list", "nodepools", "--as", account).strip() == "yes"
    for verb, resource in (
        ("delete", "nodepools"),
        ("patch", "nodecapabilities"),
        ("list", "secrets"),
        ("watch", "leases"),
    ):
        with pytest.raises(RuntimeError):
            running.kubectl("auth", "can-i", verb, resource, "--as", account)


def test_status_is_healthy_until_no_operator_leads(running: Fleet, hotpool: Run) -> None:
    def status() -> Any:
        return parsed(hotpool("status", "--redis", running.redis_url, "-o", "json"))

    wait_for("the pools are ready", lambda: status()["healthy"], 60)
    document = status()
    assert document["operator"]["leads"]
    assert document["operator"]["version"] == document["agents"][0]["version"]
    assert (document["nodes"], document["pools"]) == ([{"reason": "Live", "count": 2}], {"count": 2, "ready": 2})
    assert (document["unreadable"], document["definitions"], document["redis"]["complete"]) == ([], None, True)
    assert running.operator
    running.operator.stop()
    result = hotpool("status")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith(f"{running.namespace}: NOT healthy, 1 problem\n")
    assert [item["reason"] for item in status()["problems"]] == ["NoLeader"]


def test_a_node_is_excluded_and_its_services_are_stopped_and_started_by_one_command_each(
    running: Fleet, hotpool: Run
) -> None:
    """Role hotpool-maintainer of the chart has the rights; others are refused."""
    maintainer = running.maintainer()

    def run(*words: str, code: int = 0) -> str:
        result = hotpool(*words, kubeconfig=maintainer)
        assert result.returncode == code, result.stderr
        return result.stdout or result.stderr

    assert run("exclude", "gold", "edge-1") == "edge-1: excluded from pool gold\n"
    assert run("exclude", "gold", "edge-1") == "edge-1: already excluded from pool gold\n"
    wait_for("it is out of this pool", lambda: running.members("gold") == {"edge-2": "Ready"})
    assert running.members("zh-en") == BOTH
    assert run("include", "gold", "edge-1") == "edge-1: not excluded from pool gold\n"
    wait_for("it is in again", lambda: published(running, "gold", BOTH))
    assert "similar: edge-1" in run("exclude", "gold", "edge-11", code=5)

    assert run("stop", "edge-1", "piper", "--timeout", "60") == "edge-1: piper is Stopped\n"
    wait_for("it is out", lambda: running.members("zh-en") == {"edge-2": "Ready"})
    assert run("start", "edge-1", "piper", "--timeout", "60") == "edge-1: piper is Running\n"
    wait_for("it is in again", lambda: published(running, "zh-en", BOTH))
    assert run("start", "edge-1", "pipe", code=5) == "hotpool start: edge-1 has no service pipe; similar: piper\n"
    assert run("drain", "edge-1") == "edge-1: draining\n"
    wait_for("it drains", lambda: running.members("zh-en") == {"edge-1": "Draining", "edge-2": "Ready"})
    assert run("undrain", "edge-1") == "edge-1: not draining\n"
    refused = hotpool("drain", "edge-1", kubeconfig=running.viewer())
    assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
    assert "patch nodecapabilities/edge-1" in refused.stderr
    assert "Role hotpool-maintainer" in refused.stderr
    account = f"system:serviceaccount:{running.namespace}:maintainer"
    for words in (
        ("create", "nodepools"),
        ("patch", "nodecapabilities", "--subresource=status"),
        ("delete", "nodecapabilities"),
    ):
        with pytest.raises(RuntimeError):
            running.kubectl("auth", "can-i", *words, "--as", account)
    running.agents["edge-2"].kill()
    assert "waiting for the agent" in run("stop", "edge-2", "piper", "--timeout", "0.1", code=1)


def test_a_forbidden_request_and_a_missing_object_are_one_line(running: Fleet, hotpool: Run) -> None:
    agent = running.folder / "hotpool-agent-edge-1.kubeconfig"
    for words, request in (
        (("top",), "list nodecapabilities"),
        (("why", "edge-2", "zh-en"), "get nodecapabilities/edge-2"),
    ):
        result = hotpool(*words, kubeconfig=agent)
        assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (4, "", 1)
        assert request in result.stderr
    result = hotpool("why", "edge-11", "zh-en")
    assert (result.returncode, result.stdout) == (5, "")
    assert "similar: edge-1" in result.stderr
    assert hotpool("why", "--pool", "zh-en", "--context", "nowhere").returncode == 3
