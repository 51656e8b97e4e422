"""Explanations why a node is in a pool or not, and remedies (requirements D8, F2, F3)."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import (
    condition,
    node_object,
    pool,
    report,
    requires,
    service,
    slice_object,
    speech,
    stopped,
    view,
)

from hotpool.api.meta import Condition
from hotpool.api.pool import PoolStatus
from hotpool.api.slice import MemberState
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.core.explain.explain import Explanation, MembershipState, explain, explain_pool
from hotpool.core.matching import Criterion, match
from hotpool.core.model import Kind, Liveness, Member, Pool

AS_READY, AS_SUSPECT, AS_DRAINING = (Member("n", state, "t0") for state in get_args(MemberState))
LIVE = [condition(lastTransitionTime="2026-11-24T10:00:00Z")]
OFFLINE = [condition(status="Unknown", reason="Offline", lastTransitionTime="2026-11-24T11:00:00Z")]
RULE = {"kind": "any_to_any", "languages": ["zh", "en", "ja"], "blocked": ["ja-zh"]}
ASR = service("whisper", "asr", languages=["zh", "ja"], since="2026-11-24T10:00:01Z")
NMT = service("m2m", "nmt", rules=[RULE], since="2026-11-24T10:00:03Z")
TTS = service("piper", "tts", languages=["en"], since="2026-11-24T10:00:02Z")
SPEECH_POOL: dict[str, Any] = {"requires": requires("asr", "nmt", "tts", languagePairs={"allOf": ["zh-en"]})}


def explained(content: dict[str, Any] | None, spec: Pool, member: Member | None = None, **more: Any) -> Explanation:
    """Return the explanation for a node named n, read like by the command line."""
    found = FleetSnapshot()
    assert found.add(Kind.NODE, node_object("n", content, **{"conditions": LIVE, **more}))
    return explain(found.facts("n"), spec, member)


def remedies_of(answer: Explanation) -> list[str]:
    return [remedy for item in answer.requirements if not item.met for remedy in item.remedies]


def observed(answer: Explanation, criterion: Criterion) -> str:
    return next(item.observed for item in answer.requirements if item.criterion is criterion)


def off(body: dict[str, Any], state: str = "Stopped", **more: Any) -> dict[str, Any]:
    return {**body, "state": state, **more}


def test_hardware_that_is_missing_or_unknown_names_what_to_look_at_and_what_to_change() -> None:
    spec = pool("p", requires={"hardware": {"cpus": 8, "gpu": {"models": ["L4"]}}})
    answer = explained(report(ASR, hardware={"cpus": 8, "gpus": []}), spec)
    assert observed(answer, Criterion.HARDWARE) == "8 CPUs"
    assert [(item.met, item.observed) for item in answer.requirements if item.criterion is Criterion.HARDWARE] == [
        (True, "8 CPUs"),
        (False, "no GPU reported"),
    ]
    status = "look at hotpool-agent status on n, which has the problem gpus if they cannot be read"
    assert remedies_of(answer) == [f"{status}, or require less in spec.requires.hardware of nodepool p"]


def test_a_member_meets_every_requirement_with_times() -> None:
    answer = explained(report(ASR, NMT, TTS), pool("p", **SPEECH_POOL), Member("n", "Ready", "t0"))
    assert (answer.membership, answer.first_unmet, remedies_of(answer)) == (MembershipState.MEMBER, None, [])
    since = {item.required: item.since for item in answer.requirements}
    assert since["type tts ready"] == TTS["since"]
    assert since["language pair zh-en"] == NMT["since"], "the last of the services that make the pair"
    assert since["a heartbeat"] == "2026-11-24T10:00:00Z"


@pytest.mark.parametrize(
    ("services", "reason", "expected"),
    [
        ([off(TTS)], "Stopped", "start service piper (tts) on n: hotpool-agent start piper"),
        ([off(TTS, "Starting")], "Starting", "wait until piper (tts) has started on n"),
        ([off(TTS, "Failed")], "Failed", "fix piper (tts) on n, which failed: hotpool-agent logs piper"),
        ([off(TTS, "Failed")], "Flapping", "wait until piper (tts) on n has run without a crash for a while"),
        ([off(TTS, "Running", device="cpu")], "DeviceNotAccepted", "piper (tts) on n runs on cpu"),
        ([], "NotInstalled", "add a service of type tts to the catalogue of n, and start it"),
    ],
)
def test_each_reason_of_a_type_has_its_own_remedy(services: list[dict[str, Any]], reason: str, expected: str) -> None:
    content = report(*services)
    content["capabilities"] = [{"type": "tts", "ready": False, "reason": reason, "services": []}]
    answer = explained(content, pool("p", requires=requires("tts")))
    assert answer.first_unmet
    assert (answer.membership, answer.first_unmet.criterion) == (MembershipState.OUT, Criterion.TYPE)
    assert answer.first_unmet.observed.startswith(reason)
    assert expected in remedies_of(answer)[0]
    assert answer.first_unmet.since == (TTS["since"] if services else None)


def test_several_services_are_alternatives() -> None:
    answer = explained(report(off(TTS), stopped("coqui", "tts")), pool("p", requires=requires("tts")))
    assert remedies_of(answer) == [
        (
            "start service piper (tts) on n: hotpool-agent start piper, "
            "or start service coqui (tts) on n: hotpool-agent start coqui"
        )
    ]


PAIRS: list[tuple[list[dict[str, Any]], dict[str, Any], str, list[str]]] = [
    (
        [off(ASR), NMT, TTS],
        {"allOf": ["zh-en"]},
        "zh is not in asr (no asr service counts)",
        ["start service whisper (asr) on n: hotpool-agent start whisper"],
    ),
    (
        [ASR, NMT, TTS],
        {"allOf": ["zh-ja"]},
        "ja is not in tts (tts offers en)",
        ["add ja to the languages of a running tts service in the catalogue of n"],
    ),
    (
        [ASR, NMT, service("piper", "tts", languages=["zh"])],
        {"allOf": ["ja-zh"]},
        "ja-zh is blocked in m2m",
        ["take ja-zh out of the blocked pairs of m2m in the catalogue of n"],
    ),
    (
        [ASR, service("opus", "nmt", rules=[{"kind": "en_to_any", "languages": ["zh"]}]), off(NMT), TTS],
        {"allOf": ["zh-en"]},
        "no nmt rule allows zh-en",
        ["start service m2m (nmt) on n: hotpool-agent start m2m"],
    ),
    (
        [ASR, NMT, TTS, service("repair", "semantic", languages=["en"])],
        {"allOf": ["zh-en"], "semantic": True},
        "zh is not in semantic (semantic offers en)",
        ["add zh to the languages of a running semantic service in the catalogue of n"],
    ),
    (
        [ASR, NMT, off(TTS)],
        {"allOf": ["*-en"]},
        "not from any source, the nearest ja-en: en is not in tts (no tts service counts)",
        ["start service piper (tts) on n: hotpool-agent start piper"],
    ),
    (
        [NMT, TTS],
        {"allOf": ["*-en"]},
        "no asr service with a language other than en",
        ["add a language to an asr service in the catalogue of n"],
    ),
    ([ASR, NMT, TTS], {"allOf": ["en-en"]}, "source and target are one language", ["require another pair"]),
]


@pytest.mark.parametrize(("services", "wanted", "expected", "remedies"), PAIRS)
def test_missing_parts_of_a_pair_have_text_and_remedy(
    services: list[dict[str, Any]], wanted: dict[str, Any], expected: str, remedies: list[str]
) -> None:
    answer = explained(report(*services), pool("p", requires={"languagePairs": wanted}))
    assert answer.first_unmet
    assert answer.first_unmet.criterion is Criterion.LANGUAGE_PAIR
    assert (answer.first_unmet.observed, remedies_of(answer)) == (expected, remedies)


def test_a_node_without_services_lacks_every_part_of_a_pair() -> None:
    answer = explained(report(), pool("p", requires={"languagePairs": {"allOf": ["zh-en"], "semantic": True}}))
    found = observed(answer, Criterion.LANGUAGE_PAIR)
    assert [part.split()[0] for part in found.split("; ")] == ["zh", "no", "en", "zh"]
    assert len(remedies_of(answer)) == 4


_GOLD_ASR = {"type": "asr", "attributes": [{"key": "tier", "anyOf": ["gold", "silver"]}]}
GOLD: dict[str, Any] = {"requires": {"types": [_GOLD_ASR]}}
_TIER = {"attributes": [{"key": "tier", "values": ["gold"]}]}


def test_the_remedy_of_an_attribute_names_a_suitable_service() -> None:
    answer = explained(report(ASR, stopped("big", "asr", **_TIER)), pool("p", **GOLD))
    assert answer.first_unmet
    assert answer.first_unmet.criterion is Criterion.ATTRIBUTE
    assert "whisper" in answer.first_unmet.observed
    assert remedies_of(answer) == ["start service big (asr) on n: hotpool-agent start big"]
    bare = explained(report(ASR), pool("p", **GOLD))
    assert remedies_of(bare) == ["declare tier=gold or silver on one running asr service in the catalogue of n"]
    met = explained(
        report(service("whisper", "asr", since="t1", **_TIER)), pool("p", **GOLD), Member("n", "Ready", "t")
    )
    assert [item.since for item in met.requirements if item.criterion is Criterion.ATTRIBUTE] == ["t1"]


def test_the_remedy_of_labels_lists_those_to_set_and_to_remove() -> None:
    selector = {
        "matchLabels": {"site": "berlin", "zone": "a"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["x", "y"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "new", "operator": "Exists"},
            {"key": "site", "operator": "NotIn", "values": ["paris"]},
        ],
    }
    answer = explained(
        report(ASR),
        pool("p", requires={"nodeSelector": selector}),
        labels={"site": "paris", "zone": "a", "old": "1"},
    )
    assert remedies_of(answer) == [
        (
            "set label site=berlin and set label tier=x or y and remove label old and set label new"
            " and set label site to anything but paris on nodecapability n"
        )
    ]


@pytest.mark.parametrize(
    ("content", "spec", "more", "criterion", "remedy"),
    [
        (None, SPEECH_POOL, {}, Criterion.NOT_REPORTED, "start the agent: hotpool-agent run on n"),
        ({"epoch": "x"}, SPEECH_POOL, {}, Criterion.NOT_REPORTED, "fix the agent: hotpool-agent run on n"),
        (report(ASR, leaving=True), GOLD, {}, Criterion.LEAVING, "start the agent again: hotpool-agent run on n"),
        (
            report(ASR),
            {"requires": requires("asr"), "excludeNodes": ["n"]},
            {},
            Criterion.EXCLUDED,
            "remove n from spec.excludeNodes of nodepool p",
        ),
        (
            report(ASR),
            {"requires": {"hash": {"count": 1024, "index": 7}}},
            {},
            Criterion.HASH,
            "nothing but another name: the part of n follows from its name, and another pool has it",
        ),
        (
            report(ASR),
            {},
            {},
            Criterion.EMPTY_REQUIREMENTS,
            "require something in spec.requires of nodepool p, or set matchAll: true",
        ),
        (
            report(ASR),
            {"requires": requires("asr")},
            {"conditions": OFFLINE},
            Criterion.OFFLINE,
            "wait for a heartbeat; look at the agent: hotpool-agent status on n",
        ),
    ],
)
def test_each_criterion_of_the_node_has_a_remedy(
    content: dict[str, Any] | None, spec: dict[str, Any], more: dict[str, Any], criterion: Criterion, remedy: str
) -> None:
    answer = explained(content, pool("p", **spec), **more)
    assert answer.first_unmet
    assert (answer.membership, answer.first_unmet.criterion, answer.first_unmet.remedies) == (
        MembershipState.OUT,
        criterion,
        (remedy,),
    )
    assert answer.verdict.criterion is criterion


def test_the_time_of_silence_comes_from_the_condition() -> None:
    answer = explained(report(ASR), pool("p", requires=requires("asr")), conditions=OFFLINE)
    assert answer.first_unmet
    assert (answer.first_unmet.observed, answer.first_unmet.since) == (
        "Offline (condition Ready)",
        "2026-11-24T11:00:00Z",
    )
    drained = [condition(status="False", reason="Draining", lastTransitionTime="2026-11-24T12:00:00Z")]
    answer = explained(report(ASR), pool("p", requires=requires("asr")), AS_DRAINING, conditions=drained, drain=True)
    assert answer.requirements[-1].since is None, "the start of the drain is not that of the silence"
    fresh = explained(report(ASR), pool("p", requires=requires("asr")), conditions=[])
    assert fresh.first_unmet
    assert fresh.first_unmet.observed == "the operator has not seen the node yet"


def braked(**spec: Any) -> Pool:
    mass_silence = Condition(
        type="MassSilence", status="True", last_transition_time="t9", reason="BrakeHolds", message="5 of 6"
    )
    return pool("p", status=PoolStatus(conditions=(mass_silence,)), **spec)


NEEDS_ASR: dict[str, Any] = {"requires": requires("asr")}
_MEMBERSHIP_CASES = [
    (pool("p", **NEEDS_ASR), LIVE, AS_READY, MembershipState.MEMBER),
    (pool("p", **NEEDS_ASR), LIVE, None, MembershipState.PENDING),
    (pool("p", **NEEDS_ASR), LIVE, AS_SUSPECT, MembershipState.PENDING),
    (pool("p", **NEEDS_ASR), OFFLINE, None, MembershipState.OUT),
    (pool("p", **NEEDS_ASR), OFFLINE, AS_SUSPECT, MembershipState.PENDING),
    (braked(**NEEDS_ASR), OFFLINE, AS_SUSPECT, MembershipState.RETAINED),
    (braked(**NEEDS_ASR), OFFLINE, None, MembershipState.OUT),
    (braked(requires=requires("tts")), OFFLINE, AS_SUSPECT, MembershipState.PENDING),
    (pool("p", mode="DryRun", **NEEDS_ASR), LIVE, None, MembershipState.DRY_RUN),
    (pool("p", mode="DryRun", **NEEDS_ASR), LIVE, AS_READY, MembershipState.PENDING),
    (pool("p", paused=True, **NEEDS_ASR), OFFLINE, AS_READY, MembershipState.PAUSED),
    (pool("p", problem="spec.x: wrong", **NEEDS_ASR), LIVE, None, MembershipState.INVALID_SPEC),
]


@pytest.mark.parametrize(("spec", "conditions", "member", "expected"), _MEMBERSHIP_CASES)
def test_slices_and_match_result_give_one_membership_state(
    spec: Pool, conditions: list[dict[str, Any]], member: Member | None, expected: MembershipState
) -> None:
    answer = explained(report(ASR), spec, member, conditions=conditions)
    assert answer.membership is expected
    has_remark = expected not in {MembershipState.MEMBER, MembershipState.OUT}
    assert bool(answer.remarks) == has_remark


def test_draining_and_suspect_members_have_a_remedy() -> None:
    drain = [*LIVE, condition("Draining", "True", "Requested", lastTransitionTime="t7")]
    answer = explained(report(ASR), pool("p", **NEEDS_ASR), Member("n", "Draining", "t"), drain=True, conditions=drain)
    assert answer.membership is MembershipState.MEMBER
    assert [(r.since, r.remedies) for r in answer.remarks] == [
        ("t7", ("undo the drain: set spec.drain to false in nodecapability n",))
    ]
    local = report(ASR, draining=True)
    answer = explained(local, pool("p", **NEEDS_ASR), Member("n", "Draining", "t"), conditions=drain)
    assert answer.membership is MembershipState.MEMBER
    assert [(r.since, r.remedies) for r in answer.remarks] == [("t7", ("undo the drain: hotpool-agent undrain on n",))]
    suspect = [condition(status="Unknown", reason="Suspect", lastTransitionTime="t8")]
    answer = explained(report(ASR), pool("p", **NEEDS_ASR), AS_SUSPECT, conditions=suspect)
    assert [(r.since, r.remedies) for r in answer.remarks] == [("t8", ("wait for a heartbeat of n",))]


def test_the_nearest_misses_fail_the_fewest_and_nodes_without_a_report_are_last() -> None:
    views = {
        "in": view(speech("zh", "en")),
        "one": view(report(ASR, NMT, off(TTS), service("say", "tts", languages=["ja"]))),
        "three": view(report(off(ASR), NMT, off(TTS))),
        "unreported": view(None),
        "offline": view(speech("zh", "en"), Liveness.OFFLINE),
    }
    found = explain_pool(views, pool("p", **SPEECH_POOL), {"in": AS_READY})
    assert found.candidates == ("offline", "one", "three", "unreported")
    assert found.reasons == {
        Criterion.OFFLINE: 1,
        Criterion.LANGUAGE_PAIR: 1,
        Criterion.TYPE: 1,
        Criterion.NOT_REPORTED: 1,
    }
    assert (found.members, found.pending) == ({"Ready": 1}, 0)
    assert explain_pool(views, pool("p", **SPEECH_POOL), {}).pending == 1


def test_members_are_those_of_all_slices_of_the_pool() -> None:
    found = FleetSnapshot()
    for index, names in enumerate((["a", "b"], ["c"])):
        assert found.add(Kind.SLICE, slice_object("p", index, *names))
    assert found.add(Kind.SLICE, slice_object("q", 0, "z"))
    assert found.members("p").keys() == {"a", "b", "c"}


_TYPES = st.sampled_from(["asr", "nmt", "tts", "semantic", "llm"])
_CODES = st.lists(st.sampled_from(["zh", "en", "ja"]), max_size=3, unique=True)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    services = []
    for index, type_ in enumerate(draw(st.lists(_TYPES, max_size=5))):
        body = service(f"s{index}", type_, languages=draw(_CODES), since=f"t{index}")
        body["state"] = draw(st.sampled_from(["Running", "Stopped", "Failed", "Starting"]))
        if type_ == "nmt":
            blocked = draw(st.lists(st.sampled_from(["zh-en", "ja-zh"]), max_size=1))
            body["rules"] = [{"kind": "any_to_any", "languages": draw(_CODES), "blocked": blocked}]
        services.append(body)
    return report(*services, leaving=draw(st.booleans()))


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    wire: dict[str, Any] = {"types": [{"type": type_} for type_ in draw(st.lists(_TYPES, max_size=3, unique=True))]}
    if draw(st.booleans()):
        pairs = draw(
            st.lists(st.sampled_from(["zh-en", "en-ja", "*-en", "ja-zh"]), min_size=1, max_size=2, unique=True)
        )
        wire["languagePairs"] = {"allOf": pairs, "semantic": draw(st.booleans())}
    if draw(st.booleans()):
        wire["nodeSelector"] = {"matchLabels": {"site": "a"}}
    return {"requires": wire, "excludeNodes": ["n"] if draw(st.booleans()) else []}


@given(contents(), specs(), st.sampled_from(["Live", "Suspect", "Offline"]), st.sampled_from([{}, {"site": "a"}]))
def test_the_explanation_agrees_with_the_match_for_random_nodes_and_pools(
    content: dict[str, Any], spec: dict[str, Any], reason: str, labels: dict[str, str]
) -> None:
    wanted = pool("p", **spec)
    answer = explained(content, wanted, conditions=[condition(reason=reason)], labels=labels)
    result = match(view(content, Liveness(reason), labels=labels), wanted.spec)
    assert answer.verdict == result
    assert (answer.first_unmet.criterion if answer.first_unmet else None) == result.criterion
    for item in answer.requirements:
        assert item.observed
        assert bool(item.remedies) == (not item.met), item


@given(contents(), specs())
def test_starting_every_named_service_makes_the_node_a_member(content: dict[str, Any], spec: dict[str, Any]) -> None:
    """If every remedy is a start, the node is a member after these starts."""
    spec["excludeNodes"] = []
    wanted = pool("p", **spec)
    content["leaving"] = False
    answer = explained(content, wanted, labels={"site": "a"})
    remedies = remedies_of(answer)
    if not remedies or any(not remedy.startswith("start service") for remedy in remedies):
        return
    named = {remedy.split()[2] for remedy in remedies}
    services = [off(s, "Running") if s["id"] in named else s for s in content["services"]]
    assert explained(report(*services), wanted, labels={"site": "a"}).verdict.state == "Ready"
