"""Translation of a pod to a service (requirements A1, A3, A5, B3, B11); no content of the pod can raise."""

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fake_pods import SECONDS, pod, status
from tests.support.pod_services import BLANK_REPORT, EMPTY_CATALOGUE, service_of

from hotpool.api.capability import Report, ServiceEndpoint
from hotpool_agent.catalogue.model import ServiceSpec
from hotpool_agent.catalogue.pod_attributes import MAX_CHARACTERS
from hotpool_agent.pods.pod_registry import PodRegistry
from hotpool_agent.pods.pod_service import pod_service
from hotpool_agent.reporting.report_builder import build, to_json
from localfleet.kind import REPOSITORY

Json = dict[str, Any]


def waiting(reason: str, message: str = "", *, last: Json | None = None) -> Json:
    return {
        "name": "main",
        "restartCount": 3,
        "state": {"waiting": {"reason": reason, "message": message}},
        "lastState": {"terminated": last} if last else {},
    }


def unready(*containers: Json, phase: str = "Running", init: tuple[Json, ...] = (), **more: Any) -> Json:
    found = pod("a") | {"status": status(ready=False, at=3) | {"phase": phase, "containerStatuses": list(containers)}}
    found["status"] |= {"initContainerStatuses": list(init)} | more
    return found


KILLED = {"exitCode": 137, "reason": "OOMKilled"}
RUNS = {"name": "main", "restartCount": 0, "state": {"running": {"startedAt": SECONDS.format(5)}}}


@pytest.mark.parametrize(
    ("value", "state", "error"),
    [
        (pod("a"), "Running", None),
        (pod("a") | {"status": {}}, "Starting", None),
        (unready(RUNS), "Starting", None),
        (unready(waiting("ContainerCreating"), phase="Pending"), "Starting", None),
        (unready(waiting("PodInitializing"), phase="Pending"), "Starting", None),
        (
            unready(waiting("CrashLoopBackOff", "back-off 40s", last=KILLED)),
            "Failed",
            "main: exit code 137 (OOMKilled)",
        ),
        (unready(waiting("ErrImagePull", "no such image"), phase="Pending"), "Failed", "ErrImagePull: no such image"),
        (unready({"name": "main", "state": {"terminated": KILLED}}), "Failed", "main: exit code 137 (OOMKilled)"),
        (unready(RUNS | {"lastState": {"terminated": KILLED}}), "Starting", "main: exit code 137 (OOMKilled)"),
        (unready(waiting("PodInitializing"), init=(waiting("CrashLoopBackOff", last=KILLED),)), "Failed", "137"),
        (unready(waiting("PodInitializing"), init=({"name": "i", "state": {"terminated": KILLED}},)), "Failed", "137"),
        (unready(RUNS, init=({"name": "i", "state": {"terminated": {"exitCode": 0}}},)), "Starting", None),
        (pod("a") | {"status": status(ready=False, at=9)}, "Failed", "no longer ready"),
        (
            unready(phase="Failed", reason="Evicted", message="low on memory"),
            "Failed",
            "Failed: Evicted: low on memory",
        ),
        (unready(phase="Succeeded"), "Stopped", None),
        (pod("a") | {"status": status(ready=True) | {"phase": "Unknown"}}, "Failed", "pod Unknown"),
        (pod("a") | {"status": status(ready=True) | {"phase": "Pending"}}, "Starting", None),
    ],
)
def test_only_a_pod_that_is_ready_in_kubernetes_is_running(value: Json, state: str, error: str | None) -> None:
    found = service_of(value)
    assert found.state == state
    assert (error in (found.last_error or "")) if error else found.last_error is None


def test_a_pod_that_is_being_deleted_is_stopping_since_it_was_deleted() -> None:
    value = pod("a")
    value["metadata"] |= {"deletionTimestamp": SECONDS.format(40), "deletionGracePeriodSeconds": 30}
    found = service_of(value)
    assert (found.state, found.since) == ("Stopping", "2026-01-01T00:00:10.000000Z")


def test_restarts_are_those_of_all_containers_and_since_is_the_transition_of_the_condition() -> None:
    value = pod("a")
    value["status"]["containerStatuses"] = [RUNS | {"restartCount": 2}, RUNS | {"restartCount": 3}]
    assert (service_of(value).restarts, service_of(value).since) == (5, "2026-01-01T00:00:09.000000Z")


def test_missing_annotations_have_defaults_and_present_ones_win() -> None:
    value = pod("a")
    value["metadata"]["labels"]["app.kubernetes.io/version"] = "2.1"
    resources = {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
    value["spec"]["containers"] = [
        {},
        {"ports": [{"containerPort": 8000}, {"containerPort": 1}], "resources": resources},
    ]
    spec = service_of(value).spec
    assert (spec.device, spec.port, spec.version, spec.model) == ("gpu", 8000, "2.1", None)
    value["metadata"]["annotations"] = {"hotpool.dev/device": "cpu", "hotpool.dev/port": "9", "hotpool.dev/model": "m"}
    spec = service_of(value).spec
    assert (spec.device, spec.port, spec.model) == ("cpu", 9, "m")
    value["spec"]["containers"] = [{"resources": {"limits": {"nvidia.com/gpu": "0"}}}]
    value["metadata"]["annotations"] = {}
    assert (service_of(value).spec.device, service_of(value).spec.port) == (None, None)


LISTENS: Json = {"ports": [{"containerPort": 8}]}


@pytest.mark.parametrize(
    ("addresses", "containers", "expected"),
    [
        ([{"ip": "10.1.0.7"}, {"ip": "FD00:1::7"}], [LISTENS], (("10.1.0.7", "fd00:1::7"), 8)),
        ([{"ip": "10.1.0.7"}], [{}], "NoPort"),
        ([], [LISTENS], "NoAddress"),
        ([{"ip": "x"}, {}, 5], [LISTENS], "NoAddress"),
    ],
)
def test_the_endpoint_of_a_pod_has_its_own_addresses(
    addresses: list[Any], containers: list[Json], expected: Any
) -> None:
    value = pod("a")
    value["spec"]["containers"], value["status"]["podIPs"] = containers, addresses
    found = service_of(value)
    endpoint = found.endpoint
    assert ((endpoint.addresses, endpoint.port) if endpoint else found.endpoint_reason) == expected
    assert (found.pod, found.pod_uid) == ("speech/a", "uid-a")


def test_a_pod_that_does_not_run_has_no_endpoint_and_no_reason_for_that() -> None:
    found = service_of(pod("a", ready=False, port="8"))
    assert (found.endpoint, found.endpoint_reason) == (None, None)


PLAIN = {"languages": ["zh", "en"], "rules": [{"kind": "any_to_en"}], "tier": ["a"]}


@pytest.mark.parametrize(
    "text", [json.dumps(PLAIN), "languages: [zh, en]\nrules:\n- kind: any_to_en\ntier: [a]\n"], ids=["json", "yaml"]
)
def test_attributes_are_those_of_a_catalogue_entry_as_yaml_or_json(text: str) -> None:
    attributes = service_of(pod("a", attributes=text)).spec.attributes
    entry = ServiceSpec.model_validate({"id": "a", "type": "asr", "attributes": PLAIN})
    assert attributes == entry.attributes


def test_the_example_of_the_docs_is_read_as_described() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "pods.md").read_text(encoding="utf-8")
    deployment = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    template = deployment["spec"]["template"]
    template["metadata"]["name"] = "whisper-1"
    found = service_of(template | {"status": status(ready=True)})
    spec = found.spec
    assert (found.state, found.last_error, found.dropped) == ("Running", None, 0)
    assert (spec.type, spec.version, spec.model, spec.port, spec.device) == ("asr", "2.1", "large-v3", 8000, "gpu")
    assert (spec.attributes.languages, spec.attributes.others()) == (("en", "zh"), {"tier": ("gold",)})
    assert found.endpoint == ServiceEndpoint(addresses=("10.1.0.7", "fd00:1::7"), port=8000, app_protocol="http")
    assert build(EMPTY_CATALOGUE, [found], BLANK_REPORT, leaving=False).report.services[0].max_concurrent == 8


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("attributes", "{", "line 1"),
        ("attributes", "[en]", "must be a mapping"),
        ("attributes", "languages: en", "languages: must be a list (got 'en')"),
        ("attributes", "languages: [1]", "languages[0]: must be a string"),
        ("attributes", "languages: [en]\nrules: [{kind: any_to_any, block: [zh-en]}]", "did you mean 'blocked'?"),
        ("attributes", "languages: [en]\nlanguages: [zh]", "is there twice"),
        ("attributes", "tier: a", "tier: must be a list"),
        ("attributes", "x" * (MAX_CHARACTERS + 1), "longer than 16384"),
        ("device", "tpu", "must be cpu or gpu, not 'tpu'"),
        ("port", "http", "must be 1..65535, not 'http'"),
        ("port", "70000", "must be 1..65535"),
        ("port", "9" * 5000, "must be 1..65535"),
        ("model", "m" * 254, "longer than 253"),
        ("app-protocol", "ws://", "must be a protocol as in a Service port"),
        ("max-concurrent", "0", "must be 1..1000000, not '0'"),
        ("max-concurrent", "1.5", "must be 1..1000000, not '1.5'"),
    ],
)
def test_an_invalid_annotation_is_ignored_and_reported(key: str, text: str, message: str) -> None:
    value = pod("a")
    value["metadata"]["annotations"][f"hotpool.dev/{key}"] = text
    found = service_of(value)
    assert found.state == "Running"
    assert message in (found.last_error or "")
    assert f"annotation hotpool.dev/{key}: " in (found.last_error or "")
    assert found.spec == service_of(pod("a")).spec
    report = build(EMPTY_CATALOGUE, [found], BLANK_REPORT, leaving=False).report
    assert (report.dropped, report.capabilities[0].ready) == (1, True)


@pytest.mark.parametrize("type_", ["", "ASR", "a.b", "a_b", "a" * 64, "asr\n"])
def test_a_pod_with_an_invalid_type_is_rejected(type_: str) -> None:
    found = pod_service("speech", pod("a", type_))
    assert found.status is None
    assert "hotpool.dev/type" in (found.rejection or "")


TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from([SECONDS.format(1), "0001-01-01T00:00:00+14:00", "Running", "True"])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
PATHS: list[tuple[str | int, ...]] = []


def _walk(value: Any, path: tuple[str | int, ...] = ()) -> None:
    PATHS.append(path)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        _walk(item, (*path, key))


FULL = pod("a", attributes="languages: [en]", device="gpu", port="8", model="m")
FULL["metadata"]["annotations"]["hotpool.dev/app-protocol"] = "kubernetes.io/ws"
FULL["metadata"] |= {"deletionTimestamp": SECONDS.format(40), "deletionGracePeriodSeconds": 30}
FULL["spec"]["containers"][0] |= {"ports": [{"containerPort": 1}], "resources": {"limits": {"a/gpu": "1"}}}
FULL["status"]["initContainerStatuses"] = [waiting("CrashLoopBackOff", last=KILLED)]
FULL["status"]["containerStatuses"].append(waiting("x", "y", last=KILLED))
_walk(FULL)


def with_value(path: tuple[str | int, ...], value: Any) -> Any:
    whole: Any = {"pod": copy.deepcopy(FULL)}
    place = whole
    for part in ("pod", *path)[:-1]:
        place = place[part]
    place[("pod", *path)[-1]] = value
    return whole["pod"]


@given(st.sampled_from(sorted(PATHS, key=str)), JSON, st.sampled_from(["Stopping", "as its status says"]))
def test_any_value_in_a_pod_gives_a_service_or_a_rejection_and_a_report_that_the_schema_accepts(
    path: tuple[str | int, ...], junk: Any, state: str
) -> None:
    value = with_value(path, junk)
    if state != "Stopping" and path not in {(), ("metadata",)}:
        value["metadata"].pop("deletionTimestamp")
    found = pod_service("speech", value if isinstance(value, dict) else {})
    assert (found.status is None) != (found.rejection is None)
    if found.status:
        report = build(EMPTY_CATALOGUE, [found.status], BLANK_REPORT, leaving=False).report
        assert Report.model_validate(to_json(report)) == report


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_any_object_is_translated(value: Json) -> None:
    PodRegistry().replace("speech", [value])


@given(JSON)
def test_unknown_fields_change_nothing(more: Any) -> None:
    value = pod("a")
    for place in (value, value["metadata"], value["spec"], value["status"], value["status"]["conditions"][0]):
        place["unknown"] = more
    assert service_of(value) == service_of(pod("a"))
