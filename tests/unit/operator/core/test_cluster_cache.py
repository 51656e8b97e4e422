"""What the state makes of events: heartbeats, silence, restarts, and which pools a change touches (C1-C4, D3, D4).

Requirements C2, C3, C5, C7, D2, D5, D10, F1.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.builders import (
    H,
    condition,
    generator,
    lease,
    node,
    open_state,
    pool,
    report,
    service,
    slice_,
    speech,
    stopped,
)

from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.generators import admission
from hotpool.core.matching import match
from hotpool.core.model import Heartbeat, Key, Kind, Liveness


def beat(renewed: str, holder: str = "i/1") -> Heartbeat:
    return Heartbeat("n", holder, renewed, H)


def with_node(**more: Any) -> ClusterCache:
    state = open_state()
    state.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    state.upsert(pool("asr", requires={"types": [{"type": "asr"}]}), 0)
    state.upsert(node("n", report(service("q", "llm")), **more), 0)
    state.record_heartbeat(beat("0"), 0)
    return state


def liveness(state: ClusterCache) -> Liveness:
    return state.nodes["n"].view.liveness


def test_suspect_at_3_h_offline_at_4_h_and_not_before() -> None:
    state = with_node()
    assert not state.advance(3 * H - 0.01)
    assert Key(Kind.POOL, "llm") in state.advance(3 * H)
    assert state.pools["llm"].members == {"n": "Suspect"}
    state.advance(4 * H - 0.01)
    assert liveness(state) is Liveness.SUSPECT
    assert Key(Kind.POOL, "llm") in state.advance(4 * H)
    assert state.pools["llm"].members == {}
    assert Key(Kind.POOL, "llm") in state.record_heartbeat(beat("1"), 5 * H)
    assert state.pools["llm"].members == {"n": "Ready"}


def test_only_a_changed_renew_time_of_the_current_epoch_is_a_heartbeat() -> None:
    state = with_node()
    state.record_heartbeat(beat("0"), 2 * H)
    state.record_heartbeat(beat("9", "i/0"), 2 * H)
    state.record_heartbeat(beat("9", "other/1"), 2 * H)
    state.upsert(node("n", report(service("q", "llm")), version=2, labels={"a": "b"}), 2 * H)
    state.advance(3 * H)
    assert liveness(state) is Liveness.SUSPECT
    state.record_heartbeat(beat("10"), 3 * H)
    assert liveness(state) is Liveness.LIVE


def test_a_new_sequence_is_a_heartbeat() -> None:
    state = with_node()
    state.upsert(node("n", report(service("q", "llm"), sequence=2), version=2), 2 * H)
    state.advance(4 * H)
    assert liveness(state) is Liveness.LIVE


def test_a_plain_heartbeat_touches_nothing() -> None:
    state = with_node()
    assert state.record_heartbeat(beat("1"), 1) == set()
    assert state.upsert(node("n", report(service("q", "llm"), sequence=2), version=2), 1) == set()


def test_a_change_touches_only_the_pools_that_require_it() -> None:
    state = with_node()
    dirty = state.upsert(node("n", report({**service("q", "llm"), "state": "Stopped"}, sequence=2), version=2), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == {Key(Kind.POOL, "llm")}
    assert state.pools["llm"].members == {}


def test_after_a_restart_offline_stays_and_live_has_a_full_period() -> None:
    def restarted(reason: str) -> ClusterCache:
        state = ClusterCache()
        state.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 100)
        state.upsert(node("n", report(service("q", "llm")), conditions=[condition(reason=reason)]), 100)
        state.record_heartbeat(beat("0"), 100)
        state.gate_open = True
        return state

    assert restarted("Offline").pools["llm"].members == {}
    assert restarted("Suspect").pools["llm"].members == {"n": "Suspect"}
    live = restarted("Live")
    assert live.pools["llm"].members == {"n": "Ready"}
    live.advance(100 + 4 * H - 0.01)
    assert liveness(live) is Liveness.SUSPECT
    offline = restarted("Offline")
    offline.record_heartbeat(beat("1"), 101)
    assert offline.pools["llm"].members == {"n": "Ready"}


def test_a_look_at_the_very_deadline_ends_and_takes_effect() -> None:
    """Sums of floats round: the moment counted with must be the moment asked for."""
    began = next(at for at in (8185.435038924 + step / 1e9 for step in range(10**6)) if (at + 3 * H) - at < 3 * H)
    state = open_state()
    state.upsert(node("n", report(service("q", "llm"))), began)
    due = state.next_deadline()
    assert due is not None
    state.advance(due)
    assert liveness(state) is Liveness.SUSPECT
    assert state.next_deadline() == began + 4 * H


def test_a_mass_silence_is_looked_at_in_parts_and_whole_in_the_end() -> None:
    state = open_state()
    for number in range(1000):
        state.upsert(node(f"n{number}", report(service("q", "llm"))), 0)
    seen = [len(state.advance(3 * H))]
    while (due := state.next_deadline()) is not None and due <= 3 * H:
        seen.append(len(state.advance(3 * H)))
    assert max(seen) <= 100
    assert {record.view.liveness for record in state.nodes.values()} == {Liveness.SUSPECT}


def test_deafness_gives_every_node_a_fresh_period() -> None:
    state = with_node()
    state.reset_liveness(3.5 * H)
    state.advance(6 * H)
    assert liveness(state) is Liveness.LIVE


def test_drain_and_leaving() -> None:
    state = with_node()
    state.upsert(node("n", report(service("q", "llm")), version=2, drain=True), 1)
    assert state.pools["llm"].members == {"n": "Draining"}
    state.upsert(node("n", report(service("q", "llm"), leaving=True, sequence=2), version=3, drain=True), 1)
    assert state.pools["llm"].members == {}


def test_events_of_older_versions_and_of_deleted_objects_are_dropped() -> None:
    state = with_node(version=5)
    assert state.upsert(node("n", report(), version=4), 1) == set()
    assert Key(Kind.POOL, "llm") in state.delete(Kind.NODE, "n", "uid-n")
    assert state.upsert(node("n", report(service("q", "llm")), version=6), 1) == set()
    assert state.delete(Kind.NODE, "n", "another") == set()


class Incremental(RuleBasedStateMachine):
    """The verdicts kept by the state are those that judging everything anew would give."""

    names = st.sampled_from(["a", "b", "c"])
    types = st.lists(st.sampled_from(["asr", "nmt", "tts", "semantic", "llm"]), unique=True)
    codes = st.sampled_from([["zh", "en"], ["zh", "ja"], ["zh", "en", "ja"]])

    def __init__(self) -> None:
        super().__init__()
        self.state = open_state()
        self.version = 0
        self.now = 0.0
        self.before: dict[str, tuple[Any, Any]] = {}
        self.dirty: set[Key] = set()

    def took(self, dirty: set[Key]) -> None:
        self.dirty = dirty

    @rule(
        name=names, types=types, codes=codes, drain=st.booleans(), more=st.sampled_from([{}, {"leaving": True}, None])
    )
    def node_changes(
        self, *, name: str, types: list[str], codes: list[str], drain: bool, more: dict[str, Any] | None
    ) -> None:
        self.version += 1
        rules = [{"kind": "any_to_any", "languages": codes}]
        services = [service(type_, type_, languages=codes, rules=rules) for type_ in types]
        content = {"epoch": "bad"} if more is None else report(*services, sequence=self.version, **more)
        labels = {"site": "x"} if self.version % 2 else {}
        self.took(self.state.upsert(node(name, content, version=self.version, drain=drain, labels=labels), self.now))

    @rule(name=names)
    def node_goes(self, name: str) -> None:
        self.took(self.state.delete(Kind.NODE, name, f"uid-{name}"))
        self.state.versions._deleted.clear()  # noqa: SLF001 - the next of this name is a new one.

    @rule(name=names, types=types, pair=st.sampled_from([None, "zh-en", "*-ja"]), semantic=st.booleans())
    def pool_changes(self, *, name: str, types: list[str], pair: str | None, semantic: bool) -> None:
        self.version += 1
        requires: dict[str, Any] = {"types": [{"type": type_} for type_ in types]}
        if pair:
            requires["languagePairs"] = {"allOf": [pair], "semantic": semantic}
        if semantic:
            requires["nodeSelector"] = {"matchLabels": {"site": "x"}}
        self.took(self.state.upsert(pool(name, version=self.version, requires=requires), self.now))

    @rule(types=types, many=st.booleans(), semantic=st.booleans())
    def generator_changes(self, *, types: list[str], many: bool, semantic: bool) -> None:
        self.version += 1
        template = {"spec": {"requires": {"types": [{"type": type_} for type_ in types]}}}
        by = {"languagePairs": {"manyToOne": many, "semantic": semantic}}
        self.took(self.state.upsert(generator("g", version=self.version, rule=by, template=template), self.now))

    @rule(name=names)
    def pool_goes(self, name: str) -> None:
        self.took(self.state.delete(Kind.POOL, name, f"uid-{name}"))
        self.state.versions._deleted.clear()  # noqa: SLF001

    @rule(seconds=st.sampled_from([1.0, H, 3 * H]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.took(self.state.advance(self.now))

    @rule(name=names)
    def beats(self, name: str) -> None:
        self.version += 1
        self.took(self.state.record_heartbeat(lease(name, str(self.version)), self.now))

    @invariant()
    def verdicts_are_those_of_a_new_judgement(self) -> None:
        for subject in self.state.pools.values():
            verdicts = {name: match(record.view, subject.spec) for name, record in self.state.nodes.items()}
            assert subject.members == {name: v.state for name, v in verdicts.items() if v.state}
            assert subject.criteria == {name: v.criterion for name, v in verdicts.items() if v.criterion}
            counted = Counter(v.criterion for v in verdicts.values() if v.criterion)
            assert {gate: count for gate, count in subject.excluded.items() if count} == counted

    @invariant()
    def keys_are_those_of_a_new_derivation(self) -> None:
        for subject in self.state.generators.values():
            by = admission.key_rule(subject.generator.spec)
            sources = [by.source(record.view) for record in self.state.nodes.values()]
            found = Counter(key for source in sources if source for key in by.offered(source).keys)
            assert subject.node_counts == found

    @invariant()
    def types_are_counted(self) -> None:
        reports = [record.view.node.report for record in self.state.nodes.values()]
        assert self.state.known_types == Counter(type_ for seen in reports if seen for type_ in seen.types)

    @invariant()
    def every_flip_is_told(self) -> None:
        after = {name: (dict(found.members), dict(found.criteria)) for name, found in self.state.pools.items()}
        flipped = {name for name in {*after, *self.before} if after.get(name) != self.before.get(name)}
        self.before = after
        assert {Key(Kind.POOL, name) for name in flipped} <= self.dirty


TestIncremental = Incremental.TestCase


def test_an_older_lease_interval_is_taken_over() -> None:
    state = with_node()
    state.record_heartbeat(replace(beat("1"), interval=2.0), 1)
    state.advance(1 + 3 * 2.0)
    assert liveness(state) is Liveness.SUSPECT


# Heartbeats (C2).


def test_a_first_listing_is_no_heartbeat_and_neither_is_a_new_one() -> None:
    state = ClusterCache()
    offline = condition(status="Unknown", reason="Offline")
    state.record_heartbeat(beat("0"), 0)
    state.upsert(node("n", report(service("q", "llm")), conditions=[offline]), 0)
    state.record_heartbeat(beat("0"), 1)
    state.gate_open = True
    state.record_heartbeat(beat("0"), 2)
    state.upsert(node("n", report(service("q", "llm")), conditions=[offline], version=2), 3)
    assert liveness(state) is Liveness.OFFLINE
    state.record_heartbeat(beat("1"), 4)
    assert liveness(state) is Liveness.LIVE


def test_a_lease_that_appears_after_the_gate_is_a_heartbeat() -> None:
    state = open_state()
    state.upsert(node("n", report()), 0)
    state.record_heartbeat(beat("0"), 2 * H)
    state.advance(3 * H)
    assert liveness(state) is Liveness.LIVE


def test_leases_of_no_node_and_of_another_epoch_touch_nothing() -> None:
    state = open_state()
    assert state.record_heartbeat(lease("unknown", "0"), 0) == set()
    state.upsert(node("n", None), 0)
    assert state.record_heartbeat(beat("0"), 0) == set()
    assert state.record_heartbeat(beat("1"), 0) == set()
    assert liveness(state) is Liveness.OFFLINE


def test_the_next_epochs_lease_counts_once_its_report_is_accepted() -> None:
    state = with_node()
    state.record_heartbeat(beat("1", "i/2"), 2.9 * H)
    state.advance(3 * H)
    assert liveness(state) is Liveness.SUSPECT
    state.upsert(node("n", report(service("q", "llm"), epoch=2, session="z"), version=2), 3 * H)
    assert liveness(state) is Liveness.LIVE
    state.record_heartbeat(beat("2", "i/1"), 5.9 * H)
    state.advance(6 * H)
    assert liveness(state) is Liveness.SUSPECT
    state.record_heartbeat(beat("3", "i/2"), 6 * H)
    assert liveness(state) is Liveness.LIVE


def test_a_deleted_lease_is_no_evidence_and_a_deleted_node_is_out_at_once() -> None:
    state = with_node()
    dirty = state.delete(Kind.NODE, "n", "uid-n")
    assert dirty == {Key(Kind.NODE, "n"), Key(Kind.POOL, "llm"), Key(Kind.POOL, "asr")}
    assert state.pools["llm"].members == {}
    again = state.upsert(node("n", report(service("q", "llm")), uid="another", version=2), 1)
    assert Key(Kind.POOL, "llm") in again
    assert state.pools["llm"].members == {"n": "Ready"}


def test_a_node_recreated_under_its_name_is_another_node() -> None:
    state = with_node()
    dirty = state.upsert(node("n", None, uid="another", version=2), 1)
    assert Key(Kind.POOL, "llm") in dirty
    assert state.pools["llm"].members == {}
    assert state.delete(Kind.NODE, "n", "uid-n") == set()
    assert "n" in state.nodes


# Silence (C3): H for each node, and one deadline for each node.


def test_h_is_what_the_lease_says_also_after_a_report() -> None:
    state = open_state()
    state.record_heartbeat(lease("n", "0", interval=2), 0)
    state.upsert(node("n", report(intervalSeconds=60)), 0)
    state.upsert(node("n", report(intervalSeconds=60, sequence=2), version=2), 100)
    state.advance(105.9)
    assert liveness(state) is Liveness.LIVE
    state.advance(106)
    assert liveness(state) is Liveness.SUSPECT


def test_h_is_each_nodes_own() -> None:
    state = open_state()
    for name, interval in (("fast", 1.0), ("slow", 100.0)):
        state.upsert(node(name, report(intervalSeconds=int(interval))), 0)
        state.record_heartbeat(lease(name, "0", interval=interval), 0)
    state.advance(4)
    found = {name: record.view.liveness for name, record in state.nodes.items()}
    assert found == {"fast": Liveness.OFFLINE, "slow": Liveness.LIVE}


def test_a_fresh_period_after_deafness_is_a_whole_one() -> None:
    state = with_node()
    state.advance(3 * H)
    state.reset_liveness(3.5 * H)
    state.advance(7.5 * H - 0.01)
    assert liveness(state) is Liveness.SUSPECT
    state.advance(7.5 * H)
    assert liveness(state) is Liveness.OFFLINE
    state.reset_liveness(100 * H)
    state.advance(101 * H)
    assert liveness(state) is Liveness.OFFLINE
    state.record_heartbeat(beat("1"), 102 * H)
    assert liveness(state) is Liveness.LIVE


def test_the_next_deadline_is_never_late() -> None:
    state = with_node()
    for now in (1.0, 2 * H, 5 * H):
        state.record_heartbeat(beat(str(now)), now)
        due = state.next_deadline()
        assert due is not None
        assert due <= now + 3 * H
        state.advance(now)


def test_the_work_that_silence_makes_does_not_grow_with_the_age_of_the_fleet() -> None:
    state = with_node()
    for turn in range(1, 200):
        state.upsert(node("n", report(service("q", "llm"), sequence=turn + 1), version=turn + 1), turn * H)
        state.reset_liveness(turn * H)
        state.advance(turn * H)
    looks = 0
    while (due := state.next_deadline()) is not None and due <= 205 * H:
        state.advance(due)
        looks += 1
    assert liveness(state) is Liveness.OFFLINE
    assert looks <= 5


# Restarts (C4).


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Live", "Ready"),
        ("Suspect", "Suspect"),
        ("Draining", "Ready"),
        ("Offline", None),
        ("AwaitingHeartbeat", None),
        (None, None),
    ],
)
def test_state_comes_from_the_stored_condition(reason: str | None, expected: str | None) -> None:
    state = ClusterCache()
    state.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    conditions = [condition(reason=reason)] if reason else []
    state.upsert(node("n", report(service("q", "llm")), conditions=conditions), 0)
    assert state.pools["llm"].members.get("n") == expected


def test_offline_stays_offline_whatever_time_and_people_do() -> None:
    state = ClusterCache()
    offline = condition(status="Unknown", reason="Offline")
    state.upsert(node("n", report(service("q", "llm")), conditions=[offline]), 0)
    state.gate_open = True
    state.advance(10 * H)
    state.reset_liveness(11 * H)
    labelled = node("n", report(service("q", "llm")), conditions=[offline], version=2, labels={"a": "b"}, drain=True)
    state.upsert(labelled, 12 * H)
    assert liveness(state) is Liveness.OFFLINE
    assert state.next_deadline() == 600


# What a change touches (D3), and what a watch brings twice or late.


def test_semantic_and_custom_types_move_membership_at_once() -> None:
    state = open_state()
    for type_ in ("semantic", "phonetic", "my-own"):
        state.upsert(pool(type_, requires={"types": [{"type": type_}]}), 0)
    types = ["semantic", "phonetic", "my-own"]
    for turn, type_ in enumerate(types, start=1):
        content = report(*(service(t, t) for t in types if t != type_), sequence=turn)
        state.upsert(node("n", content, version=turn), 1)
        assert {name for name, subject in state.pools.items() if subject.members} == {*types} - {type_}


def test_a_label_or_a_drain_matters_to_every_pool_of_the_node() -> None:
    state = with_node()
    state.upsert(pool("berlin", requires={"nodeSelector": {"matchLabels": {"site": "berlin"}}}), 0)
    dirty = state.upsert(node("n", report(service("q", "llm")), version=2, labels={"site": "berlin"}), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == {Key(Kind.POOL, "berlin")}
    drained = state.upsert(node("n", report(service("q", "llm")), version=3, drain=True), 1)
    assert {key for key in drained if key.kind is Kind.POOL} == {Key(Kind.POOL, "berlin"), Key(Kind.POOL, "llm")}


def test_a_language_that_no_pool_asks_for_touches_no_pool() -> None:
    state = open_state()
    state.upsert(pool("zh-en", requires={"languagePairs": {"allOf": ["zh-en"]}}), 0)
    state.upsert(node("n", speech("zh", "en")), 0)
    dirty = state.upsert(node("n", speech("zh", "en", "ja", sequence=2), version=2), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == set()
    assert state.pools["zh-en"].members == {"n": "Ready"}
    gone = state.upsert(node("n", speech("zh", "ja", sequence=3), version=3), 1)
    assert Key(Kind.POOL, "zh-en") in gone


def test_known_types_and_the_pools_that_speak_of_them() -> None:
    state = with_node()
    assert dict(state.known_types) == {"llm": 1}
    dirty = state.upsert(node("m", report(stopped("a", "asr"), service("q", "llm"))), 0)
    assert Key(Kind.POOL, "asr") in dirty
    assert dict(state.known_types) == {"llm": 2, "asr": 1}
    dirty = state.upsert(node("m", report(service("q", "llm"), sequence=2), version=2), 0)
    assert Key(Kind.POOL, "asr") in dirty
    state.delete(Kind.NODE, "n", "uid-n")
    assert dict(state.known_types) == {"llm": 1}


def test_a_type_that_more_nodes_come_to_know_touches_no_pool_that_has_none_of_them() -> None:
    state = with_node()
    state.upsert(node("m", report(stopped("a", "asr"))), 0)
    dirty = state.upsert(node("n", report(service("q", "llm"), stopped("a", "asr"), sequence=2), version=2), 1)
    assert Key(Kind.POOL, "asr") not in dirty


def test_a_pools_own_status_is_no_reason_to_judge_anew() -> None:
    state = with_node()
    subject = state.pools["llm"]
    state.upsert(replace(subject.pool, meta=replace(subject.pool.meta, version=2)), 1)
    assert state.pools["llm"] is subject


def test_a_pool_recreated_under_its_name_is_judged_anew() -> None:
    state = with_node()
    dirty = state.upsert(pool("llm", uid="another", version=9, requires={"types": [{"type": "asr"}]}), 1)
    assert Key(Kind.POOL, "llm") in dirty
    assert state.pools["llm"].members == {}
    assert state.delete(Kind.POOL, "llm", "uid-llm") == set()
    assert "llm" in state.pools


def test_slices_are_known_by_pool_and_forgotten_by_uid() -> None:
    state = open_state()
    assert state.upsert(slice_("p", 0, "a", version=2), 0) == {Key(Kind.POOL, "p")}
    assert state.upsert(slice_("p", 0, "b", version=2), 0) == set()
    assert state.delete(Kind.SLICE, "p-0", "another") == set()
    assert state.delete(Kind.SLICE, "p-0", "uid-p-0") == {Key(Kind.POOL, "p")}
    assert state.upsert(slice_("p", 0, "a", version=3), 0) == set()
    assert state.identities(Kind.SLICE) == {}


def test_a_slice_given_to_another_pool_by_hand_is_looked_at_by_both_pools() -> None:
    state = open_state()
    both = {Key(Kind.POOL, "p"), Key(Kind.POOL, "q")}
    state.upsert(slice_("p", 0, "a", version=1), 0)
    moved = slice_("q", 0, "a", version=2, name="p-0")
    assert state.upsert(moved, 0) == both
    assert state.slices["p"] == state.slices["q"] == {"p-0": moved}
    assert state.upsert(slice_("p", 0, "a", version=3), 0) == both
    assert (list(state.slices["p"]), state.slices["q"]) == (["p-0"], {})
    assert state.delete(Kind.SLICE, "p-0", "uid-p-0") == {Key(Kind.POOL, "p")}


@pytest.mark.parametrize("term", [2**31 - 1, 2**53 - 1])
def test_a_slice_with_a_term_that_no_lease_could_count_to_does_not_end_all_elections(term: int) -> None:
    state = open_state()
    state.upsert(slice_("p", 0, term=7), 0)
    state.upsert(slice_("q", 0, term=term), 0)
    assert state.largest_term == 7


def test_a_generated_pool_edited_or_deleted_by_hand_marks_its_generator() -> None:
    state = open_state()
    made = {"by": "g", "kind": "LanguagePair", "key": "zh-en"}
    state.upsert(generator("g"), 0)
    assert Key(Kind.GENERATOR, "g") in state.upsert(pool("p", generated=made), 0)
    assert Key(Kind.GENERATOR, "g") in state.upsert(pool("p", version=2), 0)
    state.upsert(pool("p", version=3, generated=made), 0)
    assert Key(Kind.GENERATOR, "g") in state.delete(Kind.POOL, "p", "uid-p")


def test_a_nodes_spec_change_marks_the_node_and_no_pool() -> None:
    state = with_node()
    dirty = state.upsert(node("n", report(service("q", "llm")), version=2, generation=2), 1)
    assert dirty == {Key(Kind.NODE, "n")}
