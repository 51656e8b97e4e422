"""Validation by the API server, and the samples (requirements B7, B11, D2, F1)."""

import json
import re
from typing import Any

import pytest
import yaml

from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for


def report(epoch: int, session: str, sequence: int, **more: Any) -> dict[str, Any]:
    content = {"schemaVersion": 1, "agentVersion": "t", "instance": "i", "session": session, "epoch": epoch}
    return {"status": {"report": {**content, "sequence": sequence, "time": "t", **more}}}


def patch_status(fleet: Fleet, name: str, body: dict[str, Any]) -> str:
    words = ("patch", "nodecapability", name, "--subresource=status", "--type=merge", "-p", json.dumps(body))
    return fleet.kubectl(*words)


def node(fleet: Fleet, name: str = "edge-1") -> str:
    fleet.apply({"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodeCapability", "metadata": {"name": name}})
    return name


@pytest.mark.parametrize(
    ("older", "reason"),
    [
        (report(2, "a", 4), "an older sequence"),
        (report(1, "a", 9), "an older epoch"),
        (report(2, "b", 9), "a second session in one epoch"),
        ({"status": {"report": None}}, "no report"),
        ({"status": None}, "no status"),
    ],
)
def test_a_stale_report_is_refused(fleet: Fleet, older: dict[str, Any], reason: str) -> None:
    name = node(fleet)
    patch_status(fleet, name, report(2, "a", 5))
    with pytest.raises(RuntimeError, match="stale report"):
        patch_status(fleet, name, older)
    found = fleet.get("nodecapabilities", name)
    assert found, reason
    assert found["status"]["report"]["sequence"] == 5


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ([{"type": "asr", "maxConcurrent": 0}], "greater than or equal to 1"),
        ([{"type": "ASR", "maxConcurrent": 1}], "for example faster-whisper"),
        ([{"type": "asr"}], "Required value"),
        ([{"type": "asr", "maxConcurrent": 1}, {"type": "asr", "maxConcurrent": 2}], "Duplicate value"),
    ],
)
def test_an_invalid_limit_of_a_type_is_refused(fleet: Fleet, limits: list[dict[str, Any]], message: str) -> None:
    name = node(fleet)
    fleet.apply(_limited(name, [{"type": "asr", "maxConcurrent": 1}, {"type": "llm", "maxConcurrent": 1}]))
    with pytest.raises(RuntimeError, match=message):
        fleet.apply(_limited(name, limits))


def _limited(name: str, limits: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodeCapability", "metadata": {"name": name}}
    return body | {"spec": {"limits": limits}}


def test_the_same_sequence_and_the_next_epoch_are_accepted(fleet: Fleet) -> None:
    name = node(fleet)
    for accepted in (report(2, "a", 5), report(2, "a", 5), report(2, "a", 6), report(3, "b", 1)):
        patch_status(fleet, name, accepted)


def test_a_field_of_a_newer_agent_is_pruned_and_the_report_stored(fleet: Fleet) -> None:
    name = node(fleet)
    patch_status(fleet, name, report(1, "a", 1, novelty={"x": 1}))
    found = fleet.get("nodecapabilities", name)
    assert found
    assert "novelty" not in found["status"]["report"]


def test_a_report_with_ten_thousand_services_is_refused_and_the_stored_one_stays(fleet: Fleet) -> None:
    name = node(fleet)
    patch_status(fleet, name, report(1, "a", 1))
    services = [{"id": f"s{n}", "type": "t", "state": "Running"} for n in range(10_000)]
    body = report(1, "a", 2, services=services)
    with pytest.raises(Exception, match=r"Too many|at most 1000 items"):
        fleet.objects.patch_namespaced_custom_object_status(
            "hotpool.dev", "v1alpha1", fleet.namespace, "nodecapabilities", name, body
        )
    found = fleet.get("nodecapabilities", name)
    assert found
    assert found["status"]["report"]["sequence"] == 1


def service_of(*types: str, port: int | None = None, **more: Any) -> dict[str, Any]:
    """Return the spec of a pool that requires asr and nmt, with a Service that has these ports."""
    ports = [{"type": type_, "port": port or 80 + number} for number, type_ in enumerate(types)]
    return {"requires": {"types": [{"type": "asr"}, {"type": "nmt"}]}, "service": {"ports": ports, **more}}


TEMPLATE, UNNAMED = {"spec": service_of("asr", name="one")}, {"spec": service_of("asr")}


@pytest.mark.parametrize(
    ("kind", "name", "spec", "message"),
    [
        ("NodePool", "p" * 58, {}, "at most 57"),
        ("NodePool", "a.b", {}, "DNS label"),
        ("NodePool", "p", {"sliceSize": 101}, "less than or equal to 100"),
        ("NodePool", "p", {"requires": {"languagePairs": {"allOf": ["zh"]}}}, "for example zh-en"),
        ("NodePool", "p", {"requires": {"types": [{"type": "asr", "attributes": [{"key": "x"}]}]}}, "anyOf or allOf"),
        ("NodePool", "p", {"requires": {"types": [{"type": "asr"}, {"type": "asr"}]}}, "Duplicate value"),
        ("NodePool", "p", {"requires": {"languagePairs": {"allOf": ["ZH-en"]}}}, "for example zh-en"),
        ("NodePool", "p", {"requires": {"types": [{"type": "a.b"}]}}, "for example faster-whisper"),
        ("NodePool", "p", {"excludeNodes": ["Edge_1"]}, "for example edge-017"),
        ("NodePool", "p", service_of("asr", name="1st"), "must begin with a letter, .* for example zh-en"),
        ("NodePool", "p", service_of("asr", name="s" * 64), "may not be more than 63|at most 63|longer than 63"),
        ("NodePool", "1st", service_of("asr"), "the name of a Service begins with a letter"),
        ("NodePool", "p", service_of("tts"), "must be one of requires.types"),
        ("NodePool", "p", service_of("asr", "asr"), "Duplicate value"),
        ("NodePool", "p", service_of("asr", "nmt", port=80), "two ports have the same number"),
        ("NodePool", "p", service_of("asr", clusterIP="10.96.0.1"), "supported values"),
        ("NodePool", "p", {"requires": {"hardware": {}}}, "cpus, memoryMiB or gpu is required, for example"),
        ("NodePool", "p", {"requires": {"hardware": {"gpu": {"models": ["--"]}}}}, "letter or a digit: for example L4"),
        ("NodePool", "p", {"requires": {"hardware": {"gpu": {"count": 0}}}}, "greater than or equal to 1"),
        (
            "NodePoolGenerator",
            "g",
            {"rule": {"hash": {"count": 2}}, "template": {"spec": {"requires": {"hardware": {"memoryMiB": 0}}}}},
            "greater than or equal to 1",
        ),
        (
            "NodePool",
            "p",
            service_of("asr", ports=[{"type": "asr", "port": 80, "appProtocol": "a b"}]),
            "for example http, grpc",
        ),
        ("NodePoolGenerator", "g", {"rule": {"hash": {"count": 2}}, "template": TEMPLATE}, "not allowed in a template"),
        ("NodePoolGenerator", "1st", {"rule": {"hash": {"count": 2}}, "template": UNNAMED}, "begins with a letter"),
        ("NodePoolGenerator", "g", {"rule": {}}, "exactly one of"),
        ("NodePoolGenerator", "g", {"rule": {"hash": {"count": 2}, "languagePairs": {}}}, "exactly one of"),
        ("NodeCapability", "n" * 201, {}, "at most 200"),
        ("NodeCapability", "edge-1", {"services": [{"id": "a", "desired": "Maybe"}]}, "supported values"),
    ],
)
def test_an_invalid_object_is_refused_with_the_reason(
    fleet: Fleet, kind: str, name: str, spec: dict[str, Any], message: str
) -> None:
    body = {"apiVersion": "hotpool.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    with pytest.raises(RuntimeError, match=message):
        fleet.apply(body)


def test_the_pool_of_the_page_about_gpus_is_stored_and_one_gpu_is_the_default(fleet: Fleet) -> None:
    page = (REPOSITORY / "docs/how-to/gpu-pools.md").read_text(encoding="utf-8")
    body = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    for written, count in ((body["spec"]["requires"]["hardware"]["gpu"], 2), ({}, 1)):
        body["spec"]["requires"]["hardware"]["gpu"] = written
        fleet.apply(body)
        found = fleet.get("nodepools", "llm-large")
        assert found
        assert found["spec"]["requires"]["hardware"]["gpu"] == {**written, "count": count}


def test_slice_size_is_immutable_and_other_fields_can_change(fleet: Fleet) -> None:
    body = {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePool",
        "metadata": {"name": "p"},
        "spec": {"sliceSize": 7},
    }
    fleet.apply(body)
    fleet.kubectl("patch", "nodepool", "p", "--type=merge", "-p", '{"spec":{"minMembers":3}}')
    with pytest.raises(RuntimeError, match="immutable"):
        fleet.kubectl("patch", "nodepool", "p", "--type=merge", "-p", '{"spec":{"sliceSize":8}}')


def test_the_samples_apply_and_explain_shows_descriptions(fleet: Fleet) -> None:
    fleet.kubectl("apply", "-f", str(REPOSITORY / "crds" / "samples"))
    assert "Types that must be ready" in fleet.kubectl("explain", "nodepools.spec.requires.types")
    assert "zh-en" in fleet.kubectl("get", "hotpool", "-o", "name")


def test_a_pool_without_requirements_has_a_condition_and_kubectl_wait_works(fleet: Fleet) -> None:
    for name, requires in (
        ("nothing", {}),
        ("everyone", {"matchAll": True}),
        ("future", {"types": [{"type": "tomorrow"}]}),
        ("misspelt", {"types": [{"type": "llm", "attributes": [{"key": "teir", "anyOf": ["gold"]}]}]}),
    ):
        spec = {"requires": requires}
        fleet.apply(
            {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": name}, "spec": spec}
        )
    fleet.start_operator()
    fleet.start_agent("edge-1", [service("qwen", "llm")], debounce=0.2)
    fleet.wait_leading()
    fleet.kubectl("wait", "nodepool/everyone", "--for=condition=Ready", "--timeout=30s")

    def reasons(name: str) -> set[str]:
        found = fleet.get("nodepools", name)
        return {c["reason"] for c in (found or {}).get("status", {}).get("conditions", [])}

    wait_for("EmptyRequirements", lambda: "EmptyRequirements" in reasons("nothing"))
    wait_for("UnknownRequirement", lambda: "UnknownType" in reasons("future"))
    wait_for("UnknownRequirement", lambda: "UnknownAttribute" in reasons("misspelt"))
    assert fleet.members("nothing") == {}


def test_the_examples_of_the_reference_are_accepted(fleet: Fleet) -> None:
    page = (REPOSITORY / "docs/reference/pools.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 3
    for text in blocks:
        fleet.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
