"""Effects of events on the cache: heartbeats, silence, restarts, and the pools marked by a change (C1-C4, D3, D4).

Requirements C2, C3, C5, C7, D2, D5, D10, F1.
"""

from collections import Counter
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.builders import (
    H,
    condition,
    generator,
    kube_node,
    lease,
    node,
    open_cache,
    pool,
    report,
    service,
    slice_,
    speech,
    stopped,
)

from hotpool.core import match_index
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.generators import admission
from hotpool.core.matching import match
from hotpool.core.model import Heartbeat, Key, Kind, Liveness
from hotpool.core.pool_membership import PoolMembership


def lease_of_n(renewed: str, holder: str = "i/1") -> Heartbeat:
    return Heartbeat("n", holder, renewed, H)


def cache_with_node(**more: Any) -> ClusterCache:
    cache = open_cache()
    cache.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    cache.upsert(pool("asr", requires={"types": [{"type": "asr"}]}), 0)
    cache.upsert(node("n", report(service("q", "llm")), **more), 0)
    cache.record_heartbeat(lease_of_n("0"), 0)
    return cache


def liveness(cache: ClusterCache) -> Liveness:
    return cache.nodes["n"].view.liveness


def test_suspect_at_3_h_offline_at_4_h_and_not_before() -> None:
    cache = cache_with_node()
    assert not cache.advance(3 * H - 0.01)
    assert Key(Kind.POOL, "llm") in cache.advance(3 * H)
    assert cache.pools["llm"].members == {"n": "Suspect"}
    cache.advance(4 * H - 0.01)
    assert liveness(cache) is Liveness.SUSPECT
    assert Key(Kind.POOL, "llm") in cache.advance(4 * H)
    assert cache.pools["llm"].members == {}
    assert Key(Kind.POOL, "llm") in cache.record_heartbeat(lease_of_n("1"), 5 * H)
    assert cache.pools["llm"].members == {"n": "Ready"}


def test_only_a_changed_renew_time_of_the_current_epoch_is_a_heartbeat() -> None:
    cache = cache_with_node()
    cache.record_heartbeat(lease_of_n("0"), 2 * H)
    cache.record_heartbeat(lease_of_n("9", "i/0"), 2 * H)
    cache.record_heartbeat(lease_of_n("9", "other/1"), 2 * H)
    cache.upsert(node("n", report(service("q", "llm")), version=2, labels={"a": "b"}), 2 * H)
    cache.advance(3 * H)
    assert liveness(cache) is Liveness.SUSPECT
    cache.record_heartbeat(lease_of_n("10"), 3 * H)
    assert liveness(cache) is Liveness.LIVE


def test_a_new_sequence_is_a_heartbeat() -> None:
    cache = cache_with_node()
    cache.upsert(node("n", report(service("q", "llm"), sequence=2), version=2), 2 * H)
    cache.advance(4 * H)
    assert liveness(cache) is Liveness.LIVE


def test_a_heartbeat_without_a_change_marks_nothing() -> None:
    cache = cache_with_node()
    assert cache.record_heartbeat(lease_of_n("1"), 1) == set()
    assert cache.upsert(node("n", report(service("q", "llm"), sequence=2), version=2), 1) == set()


def test_a_change_marks_only_the_pools_that_require_it() -> None:
    cache = cache_with_node()
    dirty = cache.upsert(node("n", report({**service("q", "llm"), "state": "Stopped"}, sequence=2), version=2), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == {Key(Kind.POOL, "llm")}
    assert cache.pools["llm"].members == {}


def test_after_a_restart_offline_stays_and_live_has_a_full_period() -> None:
    def restarted(reason: str) -> ClusterCache:
        cache = ClusterCache()
        cache.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 100)
        cache.upsert(node("n", report(service("q", "llm")), conditions=[condition(reason=reason)]), 100)
        cache.record_heartbeat(lease_of_n("0"), 100)
        cache.gate_open = True
        return cache

    assert restarted("Offline").pools["llm"].members == {}
    assert restarted("Suspect").pools["llm"].members == {"n": "Suspect"}
    live = restarted("Live")
    assert live.pools["llm"].members == {"n": "Ready"}
    live.advance(100 + 4 * H - 0.01)
    assert liveness(live) is Liveness.SUSPECT
    offline = restarted("Offline")
    offline.record_heartbeat(lease_of_n("1"), 101)
    assert offline.pools["llm"].members == {"n": "Ready"}


@pytest.mark.parametrize("listed", ["AwaitingHeartbeat", "Offline", None])
@pytest.mark.parametrize(("stored", "state"), [("Live", "Ready"), ("Suspect", "Suspect"), ("Offline", None)])
def test_a_standby_takes_over_a_node_that_beat_after_it_was_listed(
    listed: str | None, stored: str, state: str | None
) -> None:
    """The listed Lease was the renewed one already, and the listed condition the one before."""
    cache = ClusterCache()
    cache.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    content = report(service("q", "llm"))
    before = [condition(status="Unknown", reason=listed)] if listed else []
    cache.upsert(node("n", content, conditions=before), 0)
    cache.record_heartbeat(lease_of_n("1"), 0)
    cache.gate_open = True
    after = [condition(status="True" if stored == "Live" else "Unknown", reason=stored)]
    cache.upsert(node("n", content, version=2, conditions=after), 1)
    for _ in cache.on_leader_acquired(2):
        pass
    assert cache.pools["llm"].members.get("n") == state
    cache.advance(2 + 4 * H - 0.01)
    assert cache.pools["llm"].members.get("n") == (state and "Suspect")
    cache.advance(2 + 4 * H)
    assert cache.pools["llm"].members == {}


def test_a_standby_takes_over_a_member_whose_condition_the_former_leader_did_not_write() -> None:
    cache = ClusterCache()
    cache.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    cache.upsert(node("n", report(service("q", "llm"))), 0)
    cache.record_heartbeat(lease_of_n("1"), 0)
    cache.gate_open = True
    cache.upsert(slice_("llm", 0, "n"), 1)
    for _ in cache.on_leader_acquired(2):
        pass
    assert cache.pools["llm"].members == {"n": "Ready"}


def test_a_check_at_the_exact_deadline_takes_effect() -> None:
    """Rounding of float sums must not move the checked time before the deadline."""
    start = next(at for at in (8185.435038924 + step / 1e9 for step in range(10**6)) if (at + 3 * H) - at < 3 * H)
    cache = open_cache()
    cache.upsert(node("n", report(service("q", "llm"))), start)
    due = cache.next_deadline()
    assert due is not None
    cache.advance(due)
    assert liveness(cache) is Liveness.SUSPECT
    assert cache.next_deadline() == start + 4 * H


def test_a_mass_silence_is_processed_in_bounded_parts() -> None:
    cache = open_cache()
    for number in range(1000):
        cache.upsert(node(f"n{number}", report(service("q", "llm"))), 0)
    recorded, marked = [0], set[Key]()
    while (due := cache.next_deadline()) is not None and due <= 3 * H:
        assert not marked, "all are marked together, so that each slice is written once"
        marked = cache.advance(3 * H)
        recorded.append(sum(tracker.view.liveness is Liveness.SUSPECT for tracker in cache.nodes.values()))
    assert max(after - before for before, after in pairwise(recorded)) <= 200
    assert marked == {Key(Kind.NODE, name) for name in cache.nodes}
    assert recorded[-1] == 1000


def test_silence_while_a_new_pool_is_matched_reaches_every_pool() -> None:
    cache = open_cache()
    names = [f"n{number}" for number in range(5)]
    cache.upsert(pool("old", requires={"types": [{"type": "llm"}]}), 0)
    for name in names:
        cache.upsert(node(name, report(service("q", "llm"))), 0)
        cache.record_heartbeat(lease(name, "1"), 0)
    with patch.object(match_index, "_MATCHES_PER_STEP", 4):
        cache.upsert(pool("new", requires={"types": [{"type": "llm"}]}), 0)
        assert not cache.pools["new"].matched
        dirty = cache.advance(4 * H)
        assert cache.ageing
        while (due := cache.next_deadline()) is not None and due <= 4 * H:
            dirty |= cache.advance(4 * H)
    assert not cache.ageing
    assert dirty >= {Key(Kind.POOL, "old"), Key(Kind.POOL, "new"), *(Key(Kind.NODE, name) for name in names)}
    assert cache.pools["old"].unreachable.keys() == cache.pools["new"].unreachable.keys() == set(names)


def test_a_recovered_watch_gives_every_node_a_fresh_period() -> None:
    cache = cache_with_node()
    cache.reset_liveness(3.5 * H)
    cache.advance(6 * H)
    assert liveness(cache) is Liveness.LIVE


def test_drain_and_leaving() -> None:
    cache = cache_with_node()
    cache.upsert(node("n", report(service("q", "llm")), version=2, drain=True), 1)
    assert cache.pools["llm"].members == {"n": "Draining"}
    cache.upsert(node("n", report(service("q", "llm"), leaving=True, sequence=2), version=3, drain=True), 1)
    assert cache.pools["llm"].members == {}


def test_a_drain_by_the_agent_changes_the_members_state_in_both_directions() -> None:
    cache = cache_with_node()
    for sequence, draining, state in ((2, True, "Draining"), (3, False, "Ready")):
        drained = report(service("q", "llm"), draining=draining, sequence=sequence)
        assert cache.upsert(node("n", drained, version=sequence), 1), "the pool is planned again"
        assert cache.pools["llm"].members == {"n": state}


def test_events_of_older_versions_and_of_deleted_objects_are_ignored() -> None:
    cache = cache_with_node(version=5)
    assert cache.upsert(node("n", report(), version=4), 1) == set()
    assert Key(Kind.POOL, "llm") in cache.delete(Kind.NODE, "n", "uid-n")
    assert cache.upsert(node("n", report(service("q", "llm")), version=6), 1) == set()
    assert cache.delete(Kind.NODE, "n", "another") == set()


class Incremental(RuleBasedStateMachine):
    """The match results in the cache equal those of a match of everything.

    A change of silence reuses the former results. Two matches are done at a time, so that others changes come between.
    """

    names = st.sampled_from(["a", "b", "c"])
    types = st.lists(st.sampled_from(["asr", "nmt", "tts", "semantic", "llm"]), unique=True)
    codes = st.sampled_from([["zh", "en"], ["zh", "ja"], ["zh", "en", "ja"]])
    steps = st.sampled_from([0, 1, 50, 50, 50])
    """50: until all is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = open_cache()
        self.version = 0
        self.now = 0.0
        self.before: dict[str, tuple[Any, ...]] = {}
        self.dirty: set[Key] = set()
        self.patch = patch.object(match_index, "_MATCHES_PER_STEP", 2)
        self.patch.start()

    def teardown(self) -> None:
        self.patch.stop()

    def mark(self, dirty: set[Key]) -> None:
        self.dirty |= dirty

    @property
    def recorded(self) -> bool:
        """True if no match is left to do."""
        return self.cache.matches.done and not self.cache.ageing

    @rule(
        name=names,
        types=types,
        codes=codes,
        drain=st.booleans(),
        more=st.sampled_from([{}, {"leaving": True}, {"draining": True}, None]),
    )
    def node_changes(
        self, *, name: str, types: list[str], codes: list[str], drain: bool, more: dict[str, Any] | None
    ) -> None:
        self.version += 1
        rules = [{"kind": "any_to_any", "languages": codes}]
        services = [service(type_, type_, languages=codes, rules=rules) for type_ in types]
        content = {"epoch": "bad"} if more is None else report(*services, sequence=self.version, **more)
        labels = {"site": "x"} if self.version % 2 else {}
        self.mark(self.cache.upsert(node(name, content, version=self.version, drain=drain, labels=labels), self.now))

    @rule(name=names)
    def node_goes(self, name: str) -> None:
        self.mark(self.cache.delete(Kind.NODE, name, f"uid-{name}"))
        self.cache.versions._deleted.clear()  # noqa: SLF001 - the next one of this name is new.

    @rule(name=names, types=types, pair=st.sampled_from([None, "zh-en", "*-ja"]), semantic=st.booleans(), steps=steps)
    def pool_changes(self, *, name: str, types: list[str], pair: str | None, semantic: bool, steps: int) -> None:
        self.version += 1
        requires: dict[str, Any] = {"types": [{"type": type_} for type_ in types]}
        if pair:
            requires["languagePairs"] = {"allOf": [pair], "semantic": semantic}
        if semantic:
            requires["nodeSelector"] = {"matchLabels": {"site": "x"}}
        self.mark(self.cache.upsert(pool(name, version=self.version, requires=requires), self.now))
        self.go_on(steps)

    @rule(types=types, many=st.booleans(), semantic=st.booleans(), steps=steps)
    def generator_changes(self, *, types: list[str], many: bool, semantic: bool, steps: int) -> None:
        self.version += 1
        template = {"spec": {"requires": {"types": [{"type": type_} for type_ in types]}}}
        by = {"languagePairs": {"manyToOne": many, "semantic": semantic}}
        self.mark(self.cache.upsert(generator("g", version=self.version, rule=by, template=template), self.now))
        self.go_on(steps)

    @rule(name=names, ready=st.sampled_from(["True", "False", "Unknown"]), off=st.booleans(), cordoned=st.booleans())
    def kube_node_changes(self, *, name: str, ready: str, off: bool, cordoned: bool) -> None:
        self.version += 1
        more = {"ready": ready, "labels": {"site": "y"} if self.version % 3 else {}}
        more |= {"taints": ["node.kubernetes.io/out-of-service"]} if off else {}
        self.mark(self.cache.upsert(kube_node(name, version=self.version, cordoned=cordoned, **more), self.now))

    @rule(name=names)
    def pool_goes(self, name: str) -> None:
        self.mark(self.cache.delete(Kind.POOL, name, f"uid-{name}"))
        self.cache.versions._deleted.clear()  # noqa: SLF001

    @rule(seconds=st.sampled_from([0.0, 1.0, H, 3 * H, 700.0]), steps=steps)
    def time_passes(self, seconds: float, steps: int) -> None:
        self.now += seconds
        self.go_on(steps)

    def go_on(self, steps: int) -> None:
        """Record silence and match in so many steps."""
        for _ in range(steps):
            self.mark(self.cache.advance(self.now))

    @rule(name=names)
    def beats(self, name: str) -> None:
        self.version += 1
        self.mark(self.cache.record_heartbeat(lease(name, str(self.version)), self.now))

    @invariant()
    def results_equal_those_of_a_new_match(self) -> None:
        for entry in self.cache.pools.values() if self.recorded else ():
            fresh = PoolMembership(entry.pool)
            for name, tracker in self.cache.nodes.items():
                fresh.update(name, tracker.view)
            assert contents(entry) == contents(fresh)
            results = {name: match(tracker.view, entry.spec) for name, tracker in self.cache.nodes.items()}
            assert entry.members == {name: result.state for name, result in results.items() if result.state}
            assert entry.criteria == {name: result.criterion for name, result in results.items() if result.criterion}
            counted = Counter(result.criterion for result in results.values() if result.criterion)
            assert {criterion: count for criterion, count in entry.excluded.items() if count} == counted

    @invariant()
    def keys_equal_those_of_a_new_derivation(self) -> None:
        for entry in self.cache.generators.values() if self.recorded else ():
            by = admission.key_rule(entry.generator.spec)
            sources = [by.source(tracker.view) for tracker in self.cache.nodes.values()]
            found = Counter(key for source in sources if source for key in by.offered(source).keys)
            assert entry.node_counts == found

    @invariant()
    def types_are_counted(self) -> None:
        reports = [tracker.view.node.report for tracker in self.cache.nodes.values()]
        assert self.cache.matches.known_types == Counter(type_ for seen in reports if seen for type_ in seen.types)

    @invariant()
    def every_change_is_marked(self) -> None:
        if not self.recorded:
            return
        after = {name: contents(found) for name, found in self.cache.pools.items()}
        changed = {name for name in {*after, *self.before} if after.get(name) != self.before.get(name)}
        self.before = after
        assert {Key(Kind.POOL, name) for name in changed} <= self.dirty
        self.dirty = set()


def contents(entry: PoolMembership) -> tuple[Any, ...]:
    """Return all that a plan reads of the match of a pool."""
    counts = ({key: count for key, count in counted.items() if count} for counted in (entry.excluded, entry.counts))
    return (dict(entry.members), dict(entry.criteria), dict(entry.unreachable), set(entry.suspect), *counts)


TestIncremental = Incremental.TestCase


def test_the_interval_of_a_lease_is_adopted() -> None:
    cache = cache_with_node()
    cache.record_heartbeat(replace(lease_of_n("1"), interval=2.0), 1)
    cache.advance(1 + 3 * 2.0)
    assert liveness(cache) is Liveness.SUSPECT


# Heartbeats (C2).


def test_a_first_listing_is_no_heartbeat_and_neither_is_a_new_one() -> None:
    cache = ClusterCache()
    offline = condition(status="Unknown", reason="Offline")
    cache.record_heartbeat(lease_of_n("0"), 0)
    cache.upsert(node("n", report(service("q", "llm")), conditions=[offline]), 0)
    cache.record_heartbeat(lease_of_n("0"), 1)
    cache.gate_open = True
    cache.record_heartbeat(lease_of_n("0"), 2)
    cache.upsert(node("n", report(service("q", "llm")), conditions=[offline], version=2), 3)
    assert liveness(cache) is Liveness.OFFLINE
    cache.record_heartbeat(lease_of_n("1"), 4)
    assert liveness(cache) is Liveness.LIVE


def test_a_lease_that_appears_after_the_gate_is_a_heartbeat() -> None:
    cache = open_cache()
    cache.upsert(node("n", report()), 0)
    cache.record_heartbeat(lease_of_n("0"), 2 * H)
    cache.advance(3 * H)
    assert liveness(cache) is Liveness.LIVE


def test_leases_without_a_node_or_of_another_epoch_mark_nothing() -> None:
    cache = open_cache()
    assert cache.record_heartbeat(lease("unknown", "0"), 0) == set()
    cache.upsert(node("n", None), 0)
    assert cache.record_heartbeat(lease_of_n("0"), 0) == set()
    assert cache.record_heartbeat(lease_of_n("1"), 0) == set()
    assert liveness(cache) is Liveness.OFFLINE


def test_the_next_epochs_lease_counts_once_its_report_is_accepted() -> None:
    cache = cache_with_node()
    cache.record_heartbeat(lease_of_n("1", "i/2"), 2.9 * H)
    cache.advance(3 * H)
    assert liveness(cache) is Liveness.SUSPECT
    cache.upsert(node("n", report(service("q", "llm"), epoch=2, session="z"), version=2), 3 * H)
    assert liveness(cache) is Liveness.LIVE
    cache.record_heartbeat(lease_of_n("2", "i/1"), 5.9 * H)
    cache.advance(6 * H)
    assert liveness(cache) is Liveness.SUSPECT
    cache.record_heartbeat(lease_of_n("3", "i/2"), 6 * H)
    assert liveness(cache) is Liveness.LIVE


def test_a_deleted_lease_is_no_evidence_and_a_deleted_node_is_out_at_once() -> None:
    cache = cache_with_node()
    dirty = cache.delete(Kind.NODE, "n", "uid-n")
    assert dirty == {Key(Kind.NODE, "n"), Key(Kind.POOL, "llm"), Key(Kind.POOL, "asr")}
    assert cache.pools["llm"].members == {}
    dirty = cache.upsert(node("n", report(service("q", "llm")), uid="another", version=2), 1)
    assert Key(Kind.POOL, "llm") in dirty
    assert cache.pools["llm"].members == {"n": "Ready"}


def test_a_node_recreated_under_its_name_is_another_node() -> None:
    cache = cache_with_node()
    dirty = cache.upsert(node("n", None, uid="another", version=2), 1)
    assert Key(Kind.POOL, "llm") in dirty
    assert cache.pools["llm"].members == {}
    assert cache.delete(Kind.NODE, "n", "uid-n") == set()
    assert "n" in cache.nodes


# Silence (C3): H for each node, and one deadline for each node.


def test_the_interval_comes_from_the_lease_also_after_a_report() -> None:
    cache = open_cache()
    cache.record_heartbeat(lease("n", "0", interval=2), 0)
    cache.upsert(node("n", report(intervalSeconds=60)), 0)
    cache.upsert(node("n", report(intervalSeconds=60, sequence=2), version=2), 100)
    cache.advance(105.9)
    assert liveness(cache) is Liveness.LIVE
    cache.advance(106)
    assert liveness(cache) is Liveness.SUSPECT


def test_each_node_has_its_own_interval() -> None:
    cache = open_cache()
    for name, interval in (("fast", 1.0), ("slow", 100.0)):
        cache.upsert(node(name, report(intervalSeconds=int(interval))), 0)
        cache.record_heartbeat(lease(name, "0", interval=interval), 0)
    cache.advance(4)
    found = {name: tracker.view.liveness for name, tracker in cache.nodes.items()}
    assert found == {"fast": Liveness.OFFLINE, "slow": Liveness.LIVE}


def test_a_fresh_period_after_a_stale_watch_is_a_full_one() -> None:
    cache = cache_with_node()
    cache.advance(3 * H)
    cache.reset_liveness(3.5 * H)
    cache.advance(7.5 * H - 0.01)
    assert liveness(cache) is Liveness.SUSPECT
    cache.advance(7.5 * H)
    assert liveness(cache) is Liveness.OFFLINE
    cache.reset_liveness(100 * H)
    cache.advance(101 * H)
    assert liveness(cache) is Liveness.OFFLINE
    cache.record_heartbeat(lease_of_n("1"), 102 * H)
    assert liveness(cache) is Liveness.LIVE


def test_the_next_deadline_is_never_late() -> None:
    cache = cache_with_node()
    for now in (1.0, 2 * H, 5 * H):
        cache.record_heartbeat(lease_of_n(str(now)), now)
        due = cache.next_deadline()
        assert due is not None
        assert due <= now + 3 * H
        cache.advance(now)


def test_the_cost_of_silence_does_not_grow_with_the_age_of_the_fleet() -> None:
    cache = cache_with_node()
    for turn in range(1, 200):
        cache.upsert(node("n", report(service("q", "llm"), sequence=turn + 1), version=turn + 1), turn * H)
        cache.reset_liveness(turn * H)
        cache.advance(turn * H)
    checks = 0
    while (due := cache.next_deadline()) is not None and due <= 205 * H:
        cache.advance(due)
        checks += 1
    assert liveness(cache) is Liveness.OFFLINE
    assert checks <= 5


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
    cache = ClusterCache()
    cache.upsert(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    conditions = [condition(reason=reason)] if reason else []
    cache.upsert(node("n", report(service("q", "llm")), conditions=conditions), 0)
    assert cache.pools["llm"].members.get("n") == expected


def test_offline_stays_offline_with_time_and_edits() -> None:
    cache = ClusterCache()
    offline = condition(status="Unknown", reason="Offline")
    cache.upsert(node("n", report(service("q", "llm")), conditions=[offline]), 0)
    cache.gate_open = True
    cache.advance(10 * H)
    cache.reset_liveness(11 * H)
    labelled = node("n", report(service("q", "llm")), conditions=[offline], version=2, labels={"a": "b"}, drain=True)
    cache.upsert(labelled, 12 * H)
    assert liveness(cache) is Liveness.OFFLINE
    assert cache.next_deadline() == 600


# Pools marked by a change (D3), and repeated or late events.


def test_semantic_and_custom_types_change_membership_at_once() -> None:
    cache = open_cache()
    for type_ in ("semantic", "phonetic", "my-own"):
        cache.upsert(pool(type_, requires={"types": [{"type": type_}]}), 0)
    types = ["semantic", "phonetic", "my-own"]
    for turn, type_ in enumerate(types, start=1):
        content = report(*(service(t, t) for t in types if t != type_), sequence=turn)
        cache.upsert(node("n", content, version=turn), 1)
        assert {name for name, entry in cache.pools.items() if entry.members} == {*types} - {type_}


def test_a_label_or_a_drain_affects_every_pool_of_the_node() -> None:
    cache = cache_with_node()
    cache.upsert(pool("berlin", requires={"nodeSelector": {"matchLabels": {"site": "berlin"}}}), 0)
    dirty = cache.upsert(node("n", report(service("q", "llm")), version=2, labels={"site": "berlin"}), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == {Key(Kind.POOL, "berlin")}
    drained = cache.upsert(node("n", report(service("q", "llm")), version=3, drain=True), 1)
    assert {key for key in drained if key.kind is Kind.POOL} == {Key(Kind.POOL, "berlin"), Key(Kind.POOL, "llm")}


def test_a_language_that_no_pool_requires_marks_no_pool() -> None:
    cache = open_cache()
    cache.upsert(pool("zh-en", requires={"languagePairs": {"allOf": ["zh-en"]}}), 0)
    cache.upsert(node("n", speech("zh", "en")), 0)
    dirty = cache.upsert(node("n", speech("zh", "en", "ja", sequence=2), version=2), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == set()
    assert cache.pools["zh-en"].members == {"n": "Ready"}
    gone = cache.upsert(node("n", speech("zh", "ja", sequence=3), version=3), 1)
    assert Key(Kind.POOL, "zh-en") in gone


def test_known_types_and_the_pools_that_require_them() -> None:
    cache = cache_with_node()
    assert dict(cache.matches.known_types) == {"llm": 1}
    dirty = cache.upsert(node("m", report(stopped("a", "asr"), service("q", "llm"))), 0)
    assert Key(Kind.POOL, "asr") in dirty
    assert dict(cache.matches.known_types) == {"llm": 2, "asr": 1}
    dirty = cache.upsert(node("m", report(service("q", "llm"), sequence=2), version=2), 0)
    assert Key(Kind.POOL, "asr") in dirty
    cache.delete(Kind.NODE, "n", "uid-n")
    assert dict(cache.matches.known_types) == {"llm": 1}


def test_a_type_reported_by_another_node_marks_no_pool_without_that_node() -> None:
    cache = cache_with_node()
    cache.upsert(node("m", report(stopped("a", "asr"))), 0)
    dirty = cache.upsert(node("n", report(service("q", "llm"), stopped("a", "asr"), sequence=2), version=2), 1)
    assert Key(Kind.POOL, "asr") not in dirty


def test_a_change_of_a_pools_status_does_not_match_again() -> None:
    cache = cache_with_node()
    entry = cache.pools["llm"]
    cache.upsert(replace(entry.pool, meta=replace(entry.pool.meta, version=2)), 1)
    assert cache.pools["llm"] is entry


def test_a_pool_recreated_under_its_name_is_matched_again() -> None:
    cache = cache_with_node()
    dirty = cache.upsert(pool("llm", uid="another", version=9, requires={"types": [{"type": "asr"}]}), 1)
    assert Key(Kind.POOL, "llm") in dirty
    assert cache.pools["llm"].members == {}
    assert cache.delete(Kind.POOL, "llm", "uid-llm") == set()
    assert "llm" in cache.pools


def test_slices_are_stored_by_pool_and_deleted_by_uid() -> None:
    cache = open_cache()
    assert cache.upsert(slice_("p", 0, "a", version=2), 0) == {Key(Kind.POOL, "p")}
    assert cache.upsert(slice_("p", 0, "b", version=2), 0) == set()
    assert cache.delete(Kind.SLICE, "p-0", "another") == set()
    assert cache.delete(Kind.SLICE, "p-0", "uid-p-0") == {Key(Kind.POOL, "p")}
    assert cache.upsert(slice_("p", 0, "a", version=3), 0) == set()
    assert cache.identities(Kind.SLICE) == {}


def test_a_slice_moved_to_another_pool_by_hand_marks_both_pools() -> None:
    cache = open_cache()
    both = {Key(Kind.POOL, "p"), Key(Kind.POOL, "q")}
    cache.upsert(slice_("p", 0, "a", version=1), 0)
    moved = slice_("q", 0, "a", version=2, name="p-0")
    assert cache.upsert(moved, 0) == both
    assert cache.slices["p"] == cache.slices["q"] == {"p-0": moved}
    assert cache.upsert(slice_("p", 0, "a", version=3), 0) == both
    assert (list(cache.slices["p"]), cache.slices["q"]) == (["p-0"], {})
    assert cache.delete(Kind.SLICE, "p-0", "uid-p-0") == {Key(Kind.POOL, "p")}


@pytest.mark.parametrize("term", [2**31 - 1, 2**53 - 1])
def test_a_slice_with_an_incredible_term_does_not_end_all_elections(term: int) -> None:
    cache = open_cache()
    cache.upsert(slice_("p", 0, term=7), 0)
    cache.upsert(slice_("q", 0, term=term), 0)
    assert cache.slices.largest_term == 7


def test_a_generated_pool_edited_or_deleted_by_hand_marks_its_generator() -> None:
    cache = open_cache()
    generated = {"by": "g", "kind": "LanguagePair", "key": "zh-en"}
    cache.upsert(generator("g"), 0)
    assert Key(Kind.GENERATOR, "g") in cache.upsert(pool("p", generated=generated), 0)
    assert Key(Kind.GENERATOR, "g") in cache.upsert(pool("p", version=2), 0)
    cache.upsert(pool("p", version=3, generated=generated), 0)
    assert Key(Kind.GENERATOR, "g") in cache.delete(Kind.POOL, "p", "uid-p")


def test_a_nodes_spec_change_marks_the_node_and_no_pool() -> None:
    cache = cache_with_node()
    dirty = cache.upsert(node("n", report(service("q", "llm")), version=2, generation=2), 1)
    assert dirty == {Key(Kind.NODE, "n")}


def entries(value: object) -> int:
    """Return the number of elements of all containers within a dataclass."""
    if is_dataclass(value):
        return sum(entries(getattr(value, item.name)) for item in fields(value))
    if isinstance(value, dict):
        return len(value) + sum(map(entries, value.values()))
    return len(value) if isinstance(value, set | list) else 0


def test_nothing_is_remembered_for_ever_of_deleted_objects() -> None:
    cache = cache_with_node()
    for number in range(50):
        name = f"gone-{number}"
        own = pool(name, requires={"types": [{"type": name}]})
        gone = node(name, report(service("q", name)))
        rule_ = generator(name)
        listed = slice_(name, 0, name)
        for item in (own, rule_, gone, listed):
            cache.upsert(item, 0)
        beat = Heartbeat(name, "i/1", "0", H, "uid")
        cache.record_heartbeat(beat, 0)
        for kind, item in ((Kind.SLICE, listed), (Kind.NODE, gone), (Kind.GENERATOR, rule_), (Kind.POOL, own)):
            cache.delete(kind, item.meta.name, item.meta.uid)
        cache.leases.delete(beat)
    cache.find_orphaned_leases(1)
    assert not cache.upsert(node("gone-1", report(service("q", "llm"))), 1), "a late event of a deleted object"
    for _ in range(2):
        cache.versions.forget_deletions()
    for membership in cache.pools.values():
        membership.dirty.snapshot()  # as a plan does
    while (due := cache.next_deadline()) is not None and due <= 10 * H:
        cache.advance(10 * H)
    unchanged = cache_with_node()
    unchanged.advance(10 * H)
    assert entries(cache) <= entries(unchanged)
