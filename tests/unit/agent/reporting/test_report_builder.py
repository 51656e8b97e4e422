"""Content of a report (requirements B1, B2, B3, B4, B5, B6, B10, B11)."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.pod_services import BLANK_REPORT

from hotpool.api.capability import (
    MAX_SERVICES,
    REPORT_BYTES,
    NodeAddress,
    Report,
    ServiceEndpoint,
    ServiceState,
    TypeCapability,
)
from hotpool_agent.catalogue.model import Catalogue, ServiceSpec, TypeRule
from hotpool_agent.reporting.report_builder import (
    Change,
    ReportContent,
    build,
    classify,
    listed_types,
    minimal,
    stamped,
    to_json,
)
from hotpool_agent.reporting.report_limits import truncate
from hotpool_agent.services.status import ServiceStatus

STATES: tuple[ServiceState, ...] = ("Stopped", "Starting", "Running", "Stopping", "Failed")


def snapshot(identifier: str, state: ServiceState = "Running", type_: str = "asr", **more: Any) -> ServiceStatus:
    spec = {"id": identifier, "type": type_, "run": {"command": ["x"]}} | more
    error = spec.pop("lastError", None)
    return ServiceStatus(ServiceSpec.model_validate(spec), state, last_error=error)


def report(*snapshots: ServiceStatus, leaving: bool = False, types: dict[str, TypeRule] | None = None) -> ReportContent:
    catalogue = Catalogue(version=1, types=types or {}, services=tuple(s.spec for s in snapshots))
    return build(catalogue, snapshots, BLANK_REPORT, leaving=leaving)


def capability(content: ReportContent, type_: str = "asr") -> TypeCapability:
    return next(item for item in content.report.capabilities if item.type == type_)


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        (["Failed", "Starting", "Stopped"], "Failed"),
        (["Starting", "Stopped"], "Starting"),
        (["Stopping"], "Stopped"),
        (["Stopped"], "Stopped"),
    ],
)
def test_the_reason_of_a_type_follows_precedence(states: list[ServiceState], reason: str) -> None:
    content = report(*(snapshot(f"s{index}", state) for index, state in enumerate(states)))
    assert capability(content) == TypeCapability(type="asr", ready=False, reason=reason)


def test_a_declared_type_without_a_service_is_not_installed() -> None:
    assert capability(report(types={"asr": TypeRule()})).reason == "NotInstalled"


def test_a_gpu_service_stopped_beside_a_cpu_service_running_has_its_own_reason() -> None:
    services = (snapshot("big", "Stopped", device="gpu"), snapshot("small", "Running", device="cpu"))
    assert capability(report(*services, types={"asr": TypeRule(devices=("gpu",))})).reason == "DeviceNotAccepted"
    assert capability(report(*services)) == TypeCapability(type="asr", ready=True, services=("small",))


def test_languages_are_normalised_and_auto_is_not_a_language() -> None:
    service = report(snapshot("s", attributes={"languages": ["zh-CN", "EN", "auto", "en-US", "iw"]})).report.services[0]
    assert service.languages == ("zh", "en", "he")


def test_the_pairs_of_rules_are_normalised() -> None:
    rule = {"kind": "specific_pairs", "pairs": ["zh-CN-EN"], "blocked": ["EN-iw"]}
    reported = report(snapshot("s", attributes={"rules": [rule]})).report.services[0].rules[0]
    assert (reported.pairs, reported.blocked) == (("zh-en",), ("en-he",))


def test_every_key_is_in_the_json() -> None:
    sent = stamped(report(snapshot("s")), 3, 4, "now")
    assert set(sent) == {field.alias or name for name, field in Report.model_fields.items()}
    assert sent["services"][0]["lastError"] is None
    assert sent["services"][0]["requestID"] is None
    assert (sent["epoch"], sent["sequence"], sent["time"], sent["summary"]) == (3, 4, "now", "1/1")


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([], ""),
        (["asr"], "asr"),
        (["asr", "nmt"], "asr,nmt"),
        (["a" * 63], "a" * 63),
        (["a" * 63, "b"], "+2"),
        (["a" * 40, "b" * 30, "c", "d"], f"{'a' * 40},+3"),
        (["a" * 30, "b" * 28, "c"], f"{'a' * 30},{'b' * 28},c"),
        (["a" * 30, "b" * 28, "c", "d"], f"{'a' * 30},{'b' * 28},c,d"),
    ],
)
def test_the_ready_types_are_one_short_text_for_people(types: list[str], expected: str) -> None:
    text = listed_types(types)
    assert (text, len(text) <= 63) == (expected, True)


def test_the_digest_changes_with_the_content_only() -> None:
    base = report(snapshot("s"))
    assert classify(base, report(snapshot("s"))) is Change.NONE
    assert report(snapshot("s", model="m")).digest != base.digest
    assert report(snapshot("s"), leaving=True).digest != base.digest


OBSERVED: dict[str, Any] = {"port": 1, "observe": {"http": {}}, "run": None}


def observed(error: str | None, body: str = "") -> ServiceStatus:
    status = snapshot("s", "Failed", lastError=f"{error}: {body}" if body else error, **OBSERVED)
    return replace(status, stable_error=error)


def of_pod(error: str) -> ServiceStatus:
    return ServiceStatus(ServiceSpec(id="p", type="asr"), "Failed", last_error=error, pod="speech/p")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (observed("HTTP 503", '{"uptime": 5}'), observed("HTTP 503", '{"uptime": 6, "words": "more"}'), Change.NONE),
        (observed(None), observed("HTTP 503"), Change.NEUTRAL),
        (observed("HTTP 503"), observed("HTTP 500"), Change.NEUTRAL),
        (of_pod("read udp 10.1.0.7:43567: i/o timeout"), of_pod("read udp 10.1.0.7:39: i/o timeout"), Change.NONE),
        (of_pod("ErrImagePull"), of_pod("OOMKilled"), Change.NEUTRAL),
        (snapshot("s", lastError="exit code 1"), snapshot("s", lastError="exit code 2"), Change.NEUTRAL),
    ],
)
def test_an_error_that_changes_by_itself_is_no_change(
    before: ServiceStatus, after: ServiceStatus, expected: Change
) -> None:
    assert classify(report(before), report(after)) is expected
    assert report(after).report.services[0].last_error == after.last_error


def test_the_length_of_errors_that_change_by_themselves_is_no_change_above_64_kib() -> None:
    def many(error: str) -> ReportContent:
        return report(*(replace(observed("HTTP 503", error), spec=snapshot(f"s{n}").spec) for n in range(150)))

    short, long = many("e" * 500), many("e" * 1000)
    assert short.report.truncated != long.report.truncated
    assert classify(short, long) is Change.NONE


def test_a_service_that_no_report_can_hold_is_not_offered_and_counted() -> None:
    invalid = ServiceStatus(snapshot("bad").spec, "Running", since="x" * 100)
    content = report(snapshot("good"), invalid)
    assert [service.id for service in content.report.services] == ["good"]
    assert capability(content).services == ("good",)
    assert (content.report.dropped, content.dropped_items) == (1, ("bad: since: invalid",))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([snapshot("a", "Starting")], [snapshot("a")], Change.GAIN),
        ([snapshot("a")], [snapshot("a", "Failed")], Change.WITHDRAWAL),
        ([snapshot("a"), snapshot("b")], [snapshot("a"), snapshot("b", "Stopping")], Change.WITHDRAWAL),
        ([snapshot("a"), snapshot("b", "Stopped")], [snapshot("a", "Stopped"), snapshot("b")], Change.WITHDRAWAL),
        ([snapshot("a", "Stopped")], [snapshot("a", "Starting")], Change.NEUTRAL),
        ([snapshot("a", version="1")], [snapshot("a", version="2")], Change.NEUTRAL),
        (
            [snapshot("a", attributes={"languages": ["en"]})],
            [snapshot("a", attributes={"languages": ["en", "zh"]})],
            Change.GAIN,
        ),
        (
            [snapshot("a", attributes={"languages": ["en"]})],
            [snapshot("a", attributes={"languages": ["zh"]})],
            Change.WITHDRAWAL,
        ),
        ([snapshot("a", attributes={"tier": ["x"]})], [snapshot("a", attributes={"tier": []})], Change.WITHDRAWAL),
        (
            [snapshot("a", attributes={"rules": [{"kind": "any_to_any", "languages": ["en", "zh"]}]})],
            [
                snapshot(
                    "a", attributes={"rules": [{"kind": "any_to_any", "languages": ["en", "zh"], "blocked": ["en-zh"]}]}
                )
            ],
            Change.WITHDRAWAL,
        ),
    ],
)
def test_a_change_is_a_gain_a_withdrawal_or_neutral(
    before: list[ServiceStatus], after: list[ServiceStatus], expected: Change
) -> None:
    assert classify(report(*before), report(*after)) is expected


def at(*ips: str, port: int = 1, protocol: str | None = None, **more: Any) -> ServiceStatus:
    """Return a service with an endpoint at these addresses of its own."""
    endpoint = ServiceEndpoint(addresses=ips, port=port, app_protocol=protocol)
    return replace(snapshot("a"), endpoint=endpoint, **more)


def reachable(status: ServiceStatus, *ips: str) -> ReportContent:
    """Return the report of a service on a node with these addresses."""
    addresses = tuple(NodeAddress(ip=ip, source="Route") for ip in ips)
    catalogue = Catalogue(version=1, services=(status.spec,))
    return build(catalogue, [status], BLANK_REPORT.model_copy(update={"addresses": addresses}), leaving=False)


@pytest.mark.parametrize(("before", "after"), [(8, 4), (4, 8), (None, 8), (8, None)])
def test_a_changed_limit_is_reported_at_once_and_its_neighbours_stay(before: int | None, after: int | None) -> None:
    """E9: as a changed port. A dispatcher that learns late of a lower limit overloads the service."""
    now = report(snapshot("a", maxConcurrent=after), snapshot("b"))
    assert classify(report(snapshot("a", maxConcurrent=before), snapshot("b")), now) is Change.WITHDRAWAL
    assert now.report.services[0].max_concurrent == after


WITHOUT = replace(snapshot("a"), endpoint_reason="LoopbackOnly")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (reachable(WITHOUT, "10.0.0.1"), reachable(at(), "10.0.0.1"), Change.GAIN),
        (reachable(at(), "10.0.0.1"), reachable(WITHOUT, "10.0.0.1"), Change.WITHDRAWAL),
        (reachable(at(), "10.0.0.1"), reachable(at(port=2), "10.0.0.1"), Change.WITHDRAWAL),
        (reachable(at(), "10.0.0.1"), reachable(at(protocol="grpc"), "10.0.0.1"), Change.WITHDRAWAL),
        (reachable(at(), "10.0.0.1"), reachable(at(), "10.0.0.2"), Change.WITHDRAWAL),
        (reachable(at(), "10.0.0.1"), reachable(at()), Change.WITHDRAWAL),
        (reachable(at(), "10.0.0.1", "fd00::1"), reachable(at("10.0.0.1"), "10.0.0.1", "fd00::1"), Change.WITHDRAWAL),
        (reachable(at("10.0.0.1"), "10.0.0.1", "fd00::1"), reachable(at(), "10.0.0.1", "fd00::1"), Change.GAIN),
        (reachable(at("10.1.0.7")), reachable(at("10.1.0.8")), Change.WITHDRAWAL),
        (reachable(at(), "10.0.0.1", "10.0.0.2"), reachable(at(), "10.0.0.2", "10.0.0.1"), Change.NEUTRAL),
        (reachable(WITHOUT), reachable(replace(WITHOUT, endpoint_reason="NoPort")), Change.NEUTRAL),
        (reachable(WITHOUT), reachable(WITHOUT, "10.0.0.1"), Change.NEUTRAL),
    ],
)
def test_a_changed_place_to_connect_to_is_a_withdrawal_and_a_new_one_a_gain(
    before: ReportContent, after: ReportContent, expected: Change
) -> None:
    assert classify(before, after) is expected


def test_the_endpoint_of_a_service_that_is_not_offered_is_no_gain() -> None:
    flapping = replace(at("10.0.0.1"), flapping=True)
    assert classify(report(replace(flapping, endpoint=None)), report(flapping)) is Change.NEUTRAL


def test_a_pod_is_named_with_its_uid() -> None:
    found = report(replace(of_pod("x"), pod_uid="u1")).report.services[0].pod
    assert found
    assert (found.namespace, found.name, found.uid) == ("speech", "p", "u1")
    assert report(of_pod("x")).report.services[0].pod is None


def test_leaving_is_a_withdrawal() -> None:
    assert (
        classify(report(snapshot("a", "Stopped")), report(snapshot("a", "Stopped"), leaving=True)) is Change.WITHDRAWAL
    )


def test_a_drain_is_a_withdrawal_and_its_end_a_gain() -> None:
    running = snapshot("a")
    catalogue = Catalogue(version=1, services=(running.spec,))
    offered, drained = (build(catalogue, [running], BLANK_REPORT, leaving=False, draining=on) for on in (False, True))
    assert drained.report.draining
    assert minimal(drained.report, "ReportRejected").report.draining
    assert (classify(offered, drained), classify(drained, offered)) == (Change.WITHDRAWAL, Change.GAIN)
    assert drained.report.capabilities == offered.report.capabilities, "the services continue to run"


def test_an_invalid_item_is_dropped_and_counted() -> None:
    attributes = {"languages": ["en", "x" * 64], "k" * 64: ["v"], "ok": ["v", "w" * 254]}
    content = report(snapshot("s", attributes=attributes, model="m" * 254))
    service = content.report.services[0]
    assert content.report.dropped == 4
    assert (service.languages, service.model) == (("en",), None)
    assert [(item.key, item.values) for item in service.attributes] == [("ok", ("v",))]
    assert content.dropped_items == (
        "s: model: invalid",
        "s: languages: invalid",
        "s: attribute ok: invalid",
        "s: attributes: invalid",
    )


def test_too_many_blocked_pairs_drop_the_rule_and_allow_nothing() -> None:
    blocked = [f"a{index}-en" for index in range(3000)]
    content = report(snapshot("s", attributes={"rules": [{"kind": "any_to_any", "blocked": blocked}]}))
    assert (content.report.services[0].rules, content.report.dropped) == ((), 1)


def test_more_services_than_the_schema_allows_are_counted() -> None:
    content = report(*(snapshot(f"s{index}", "Stopped") for index in range(MAX_SERVICES + 3)))
    assert content.report.dropped == 3


def test_above_64_kib_errors_go_first_then_details_then_stopped_services() -> None:
    def many(count: int, error: int, languages: int) -> ReportContent:
        words = [f"l{index}" for index in range(languages)]
        stopped = (
            snapshot(f"s{index}", "Failed", lastError="e" * error, attributes={"languages": words})
            for index in range(count)
        )
        return report(snapshot("run", attributes={"languages": ["en"]}, lastError="e"), *stopped)

    small = many(3, 10, 3).report
    assert small.truncated == 0
    errors = many(100, 1000, 3).report
    assert errors.truncated > 0
    assert all(service.languages for service in errors.services)
    details = many(100, 1000, 200).report
    assert len(details.services) == 101
    assert not all(service.languages for service in details.services)
    services = many(400, 10, 10).report
    assert len(services.services) < 401
    for truncated in (errors, details, services):
        assert len(json.dumps(to_json(truncated))) <= REPORT_BYTES
        assert truncated.services[0].languages == ("en",)
        assert truncated.capabilities[0].ready


def test_a_report_within_the_limit_is_not_changed() -> None:
    content = report(snapshot("s", lastError="e")).report
    assert truncate(content) is content


def test_the_minimal_report_has_no_ready_type() -> None:
    whole = report(snapshot("a"), snapshot("b", type_="nmt")).report
    addresses = (NodeAddress(ip="10.0.0.1", source="Route"),)
    small = minimal(whole.model_copy(update={"addresses": addresses}), "ReportRejected")
    assert (small.report.services, small.report.addresses) == ((), ())
    assert {(item.ready, item.reason) for item in small.report.capabilities} == {(False, "ReportRejected")}


words = st.lists(st.sampled_from(["en", "zh", "ja", "auto", "zh-CN"]), max_size=3)
nodes = st.lists(
    st.tuples(st.sampled_from(STATES), st.sampled_from(["asr", "nmt", "llm"]), st.sampled_from(["cpu", "gpu"]), words),
    min_size=1,
    max_size=6,
)


@given(nodes, st.data(), st.sampled_from(["Stopped", "Stopping", "Failed", "Starting"]))
def test_stopping_a_service_never_adds_a_capability(
    services: list[tuple[ServiceState, str, str, list[str]]], data: st.DataObject, ended: ServiceState
) -> None:
    index = data.draw(st.integers(0, len(services) - 1))
    types = {"asr": TypeRule(devices=("gpu",))}

    def built(states: list[ServiceState]) -> ReportContent:
        return report(
            *(
                snapshot(
                    f"s{number}", state, kind, device=device, attributes={"languages": languages, "tier": languages}
                )
                for number, (state, (_, kind, device, languages)) in enumerate(zip(states, services, strict=True))
            ),
            types=types,
        )

    states = [service[0] for service in services]
    before = built(states)
    states[index] = ended
    after = built(states)
    assert after.capabilities <= before.capabilities
    assert classify(before, after) is not Change.GAIN
