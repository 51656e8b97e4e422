"""What the state makes of events: heartbeats, silence, restarts, and which pools a change touches (C1-C4, D3, D4)."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.builders import node, open_state, pool, report, service

from hotpool.core.judge import judge
from hotpool.core.model import Heartbeat, Key, Kind, Liveness
from hotpool.core.state import State

H = 15.0


def beat(renewed: str, holder: str = "i/1") -> Heartbeat:
    return Heartbeat("n", holder, renewed, H)


def with_node(**more: Any) -> State:
    state = open_state()
    state.observe(pool("llm", requires={"types": [{"type": "llm"}]}), 0)
    state.observe(pool("asr", requires={"types": [{"type": "asr"}]}), 0)
    state.observe(node("n", report(service("q", "llm")), **more), 0)
    state.heartbeat(beat("0"), 0)
    return state


def liveness(state: State) -> Liveness:
    return state.nodes["n"].view.liveness


def test_c3_suspect_at_3_h_offline_at_4_h_and_not_before() -> None:
    state = with_node()
    assert not state.tick(3 * H - 0.01)
    assert Key(Kind.POOL, "llm") in state.tick(3 * H)
    assert state.pools["llm"].members == {"n": "Suspect"}
    state.tick(4 * H - 0.01)
    assert liveness(state) is Liveness.SUSPECT
    assert Key(Kind.POOL, "llm") in state.tick(4 * H)
    assert state.pools["llm"].members == {}
    assert Key(Kind.POOL, "llm") in state.heartbeat(beat("1"), 5 * H)
    assert state.pools["llm"].members == {"n": "Ready"}


def test_c2_only_a_changed_renew_time_of_the_current_epoch_is_a_heartbeat() -> None:
    state = with_node()
    state.heartbeat(beat("0"), 2 * H)
    state.heartbeat(beat("9", "i/0"), 2 * H)
    state.heartbeat(beat("9", "other/1"), 2 * H)
    state.observe(node("n", report(service("q", "llm")), version=2, labels={"a": "b"}), 2 * H)
    state.tick(3 * H)
    assert liveness(state) is Liveness.SUSPECT
    state.heartbeat(beat("10"), 3 * H)
    assert liveness(state) is Liveness.LIVE


def test_c2_a_new_sequence_is_a_heartbeat() -> None:
    state = with_node()
    state.observe(node("n", report(service("q", "llm"), sequence=2), version=2), 2 * H)
    state.tick(4 * H)
    assert liveness(state) is Liveness.LIVE


def test_d4_a_plain_heartbeat_touches_nothing() -> None:
    state = with_node()
    assert state.heartbeat(beat("1"), 1) == set()
    assert state.observe(node("n", report(service("q", "llm"), sequence=2), version=2), 1) == set()


def test_d3_a_change_touches_only_the_pools_that_require_it() -> None:
    state = with_node()
    dirty = state.observe(node("n", report({**service("q", "llm"), "state": "Stopped"}, sequence=2), version=2), 1)
    assert {key for key in dirty if key.kind is Kind.POOL} == {Key(Kind.POOL, "llm")}
    assert state.pools["llm"].members == {}


def test_c4_after_a_restart_offline_stays_and_live_has_a_full_period() -> None:
    def restarted(reason: str) -> State:
        state = State()
        condition = {"type": "Ready", "status": "Unknown", "reason": reason}
        state.observe(pool("llm", requires={"types": [{"type": "llm"}]}), 100)
        state.observe(node("n", report(service("q", "llm")), conditions=[condition]), 100)
        state.heartbeat(beat("0"), 100)
        state.gate_open = True
        return state

    assert restarted("Offline").pools["llm"].members == {}
    assert restarted("Suspect").pools["llm"].members == {"n": "Suspect"}
    live = restarted("Live")
    assert live.pools["llm"].members == {"n": "Ready"}
    live.tick(100 + 4 * H - 0.01)
    assert liveness(live) is Liveness.SUSPECT
    offline = restarted("Offline")
    offline.heartbeat(beat("1"), 101)
    assert offline.pools["llm"].members == {"n": "Ready"}


def test_c3_deafness_gives_every_node_a_fresh_period() -> None:
    state = with_node()
    state.hear_again(3.5 * H)
    state.tick(6 * H)
    assert liveness(state) is Liveness.LIVE


def test_c5_drain_and_leaving() -> None:
    state = with_node()
    state.observe(node("n", report(service("q", "llm")), version=2, drain=True), 1)
    assert state.pools["llm"].members == {"n": "Draining"}
    state.observe(node("n", report(service("q", "llm"), leaving=True, sequence=2), version=3, drain=True), 1)
    assert state.pools["llm"].members == {}


def test_events_of_older_versions_and_of_deleted_objects_are_dropped() -> None:
    state = with_node(version=5)
    assert state.observe(node("n", report(), version=4), 1) == set()
    assert Key(Kind.POOL, "llm") in state.forget(Kind.NODE, "n", "uid-n")
    assert state.observe(node("n", report(service("q", "llm")), version=6), 1) == set()
    assert state.forget(Kind.NODE, "n", "another") == set()


class Incremental(RuleBasedStateMachine):
    """The verdicts kept by the state are those that judging everything anew would give."""

    names = st.sampled_from(["a", "b", "c"])
    types = st.lists(st.sampled_from(["asr", "nmt", "tts", "llm"]), unique=True)

    def __init__(self) -> None:
        super().__init__()
        self.state = open_state()
        self.version = 0
        self.now = 0.0

    @rule(name=names, types=types, drain=st.booleans(), site=st.sampled_from(["x", "y"]))
    def node_changes(self, name: str, types: list[str], drain: bool, site: str) -> None:  # noqa: FBT001
        self.version += 1
        rules = [{"kind": "any_to_any", "languages": ["zh", "en"]}]
        services = [service(type_, type_, languages=["zh", "en"], rules=rules) for type_ in types]
        content = report(*services, sequence=self.version)
        seen = node(name, content, version=self.version, drain=drain, labels={"site": site})
        self.state.observe(seen, self.now)

    @rule(name=names)
    def node_goes(self, name: str) -> None:
        if name in self.state.nodes:
            self.state.forget(Kind.NODE, name, f"uid-{name}")
            self.state._deleted.clear()  # noqa: SLF001 - the next of this name is a new one.

    @rule(name=names, types=types, pair=st.booleans(), site=st.sampled_from([None, "x"]))
    def pool_changes(self, name: str, types: list[str], pair: bool, site: str | None) -> None:  # noqa: FBT001
        self.version += 1
        requires: dict[str, Any] = {"types": [{"type": type_} for type_ in types]}
        if pair:
            requires["languagePairs"] = {"allOf": ["zh-en"]}
        if site:
            requires["nodeSelector"] = {"matchLabels": {"site": site}}
        self.state.observe(pool(name, version=self.version, requires=requires), self.now)

    @rule(seconds=st.sampled_from([1.0, H, 3 * H]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.state.tick(self.now)

    @invariant()
    def verdicts_are_those_of_a_new_judgement(self) -> None:
        for subject in self.state.pools.values():
            verdicts = {name: judge(record.view, subject.spec) for name, record in self.state.nodes.items()}
            assert subject.members == {name: v.state for name, v in verdicts.items() if v.state}
            assert subject.gates == {name: v.gate for name, v in verdicts.items() if v.gate}


TestIncremental = Incremental.TestCase


def test_an_older_lease_interval_is_taken_over() -> None:
    state = with_node()
    state.heartbeat(replace(beat("1"), interval=2.0), 1)
    state.tick(1 + 3 * 2.0)
    assert liveness(state) is Liveness.SUSPECT
