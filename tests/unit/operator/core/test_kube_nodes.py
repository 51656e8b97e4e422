"""v1 Nodes in the core: cordon is drain, labels reach selectors, and nothing else of a Node matters (C5, D2, D4).

Requirements C7, D1, F2.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import (
    H,
    condition,
    kube_node,
    node,
    open_state,
    pool,
    report,
    requires,
    service,
)

from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.explain.explain import explain
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.matching import Criterion
from hotpool.core.model import Key, Kind
from hotpool.core.planning.pool_plan import plan_node

NODE, LLM, HERE = Key(Kind.NODE, "n"), Key(Kind.POOL, "llm"), Key(Kind.POOL, "here")
SITE = {"nodeSelector": {"matchLabels": {"site": "a"}}}


def fleet(**more: Any) -> ClusterCache:
    """A node that serves llm, a pool of llm and a pool of site a."""
    state = open_state()
    state.upsert(pool("llm", requires=requires("llm")), 0)
    state.upsert(pool("here", requires=SITE), 0)
    state.upsert(node("n", report(service("q", "llm")), **more), 0)
    return state


def reasons(state: ClusterCache) -> dict[str, tuple[str, str]]:
    return {c.type: (c.reason, c.message) for c in plan_node(state.nodes["n"].view, "t").conditions}


def test_cordon_is_drain_and_uncordon_ends_it() -> None:
    state = fleet()
    assert state.upsert(kube_node("n", cordoned=True), 1) >= {NODE, LLM}
    assert state.pools["llm"].members == {"n": "Draining"}
    assert reasons(state)["Ready"] == ("Cordoned", "the Node is cordoned: offered no new work")
    assert reasons(state)["Draining"][0] == "Cordoned"
    assert state.upsert(kube_node("n", version=2), 2) >= {NODE, LLM}
    assert state.pools["llm"].members == {"n": "Ready"}
    assert reasons(state)["Draining"][0] == "NotRequested"


def test_spec_drain_stays_independent_of_a_cordon() -> None:
    state = fleet(drain=True)
    state.upsert(kube_node("n", cordoned=True), 1)
    assert reasons(state)["Ready"][0] == "Draining"
    assert reasons(state)["Draining"] == ("Requested", "spec.drain is true, and the Node is cordoned")
    state.upsert(kube_node("n", version=2), 2)
    assert state.pools["llm"].members == {"n": "Draining"}
    state.upsert(kube_node("n", version=3, cordoned=True), 3)
    state.upsert(node("n", report(service("q", "llm")), version=2), 4)
    assert reasons(state)["Draining"][0] == "Cordoned"


def test_a_cordon_known_before_the_agent_reports_counts() -> None:
    state = open_state()
    state.upsert(pool("llm", requires=requires("llm")), 0)
    assert state.upsert(kube_node("n", cordoned=True), 0) == set()
    state.upsert(node("n", report(service("q", "llm"))), 1)
    assert state.pools["llm"].members == {"n": "Draining"}


def test_labels_of_the_node_reach_selectors_and_our_resource_wins_a_clash() -> None:
    state = fleet()
    assert state.upsert(kube_node("n", labels={"site": "a"}), 1) >= {HERE}
    assert state.pools["here"].members == {"n": "Ready"}
    state.upsert(node("n", report(service("q", "llm")), version=2, labels={"site": "b"}), 2)
    assert state.pools["here"].criteria == {"n": Criterion.NODE_SELECTOR}
    state.upsert(node("n", report(service("q", "llm")), version=3), 3)
    assert state.pools["here"].members == {"n": "Ready"}
    assert state.delete(Kind.KUBE_NODE, "n", "uid-kube-n") >= {HERE}
    assert state.pools["here"].members == {}


def test_what_has_the_agents_prefix_is_not_seen_on_a_node() -> None:
    state = open_state()
    tier = "agent.hotpool.dev/tier"
    state.upsert(pool("here", requires={"nodeSelector": {"matchLabels": {tier: "gold"}}}), 0)
    state.upsert(node("n", report()), 0)
    state.upsert(kube_node("n", labels={tier: "gold"}), 1)
    assert state.pools["here"].members == {}
    state.upsert(node("n", report(), version=2, labels={tier: "gold"}), 2)
    assert state.pools["here"].members == {"n": "Ready"}


def test_a_status_of_the_kubelet_changes_nothing() -> None:
    state = fleet()
    state.upsert(kube_node("n", cordoned=True, labels={"site": "a"}), 1)
    view = state.nodes["n"].view
    assert state.upsert(kube_node("n", version=2, cordoned=True, labels={"site": "a"}), 2) == set()
    assert state.nodes["n"].view is view
    assert state.identities(Kind.KUBE_NODE)["n"].version == 2


def test_a_node_of_which_no_agent_reports_touches_nobody() -> None:
    state = fleet()
    assert state.upsert(kube_node("m", cordoned=True, labels={"site": "a"}), 1) == set()
    assert state.delete(Kind.KUBE_NODE, "m", "uid-kube-m") == set()


def test_only_a_node_that_could_be_its_owner_makes_a_capability_due() -> None:
    state = fleet()
    assert state.upsert(kube_node("n"), 1) == {NODE}
    owned = replace(node("n", report(service("q", "llm")), version=2), owner="uid-kube-n")
    assert state.upsert(owned, 2) == {NODE}
    assert state.upsert(kube_node("n", version=2, uid="another"), 3) == set()
    assert state.upsert(replace(owned, meta=replace(owned.meta, version=3), owner=None), 4) == {NODE}


def test_late_events_of_a_node_that_was_made_again_are_dropped() -> None:
    state = fleet()
    state.upsert(kube_node("n"), 1)
    state.upsert(kube_node("n", version=5, uid="another", cordoned=True), 2)
    assert state.delete(Kind.KUBE_NODE, "n", "uid-kube-n") == set()
    assert state.upsert(kube_node("n", version=4), 3) == set()
    assert state.pools["llm"].members == {"n": "Draining"}


def facts(state: ClusterCache) -> NodeFacts:
    return NodeFacts(state.nodes["n"].view)


def test_why_tells_the_cordon_and_where_a_label_comes_from() -> None:
    state = fleet(labels={"rack": "7"}, conditions=[condition("Draining", "True", "Cordoned")])
    state.upsert(kube_node("n", cordoned=True, labels={"site": "a", "rack": "8"}), 1)
    both = {"nodeSelector": {"matchLabels": {"site": "a", "rack": "7"}}}
    answer = explain(facts(state), pool("p", requires=both), None)
    (selected,) = [item for item in answer.requirements if item.criterion is Criterion.NODE_SELECTOR]
    assert selected.observed == "site=a (label of the Node), rack=7"
    (cordon,) = answer.remarks[:1]
    assert (cordon.since, cordon.remedies) == ("t", ("kubectl uncordon n",))


@pytest.mark.parametrize(
    ("own", "flip"),
    [
        ({}, ("remove label site on node n",)),
        ({"site": "b"}, ("remove label site on nodecapability n", "remove label site on node n")),
    ],
)
def test_a_label_is_removed_where_it_is(own: dict[str, str], flip: tuple[str, ...]) -> None:
    state = fleet(labels=own)
    state.upsert(kube_node("n", labels={"site": "a"}), 1)
    nowhere = {"nodeSelector": {"matchExpressions": [{"key": "site", "operator": "DoesNotExist"}]}}
    answer = explain(facts(state), pool("p", requires=nowhere), None)
    assert [item.remedies for item in answer.requirements if item.criterion is Criterion.NODE_SELECTOR] == [flip]


# The two objects of a name, in any order.

LABELS = st.dictionaries(st.sampled_from(["site", "rack", "agent.hotpool.dev/x"]), st.sampled_from("ab"), max_size=3)
NAMES = ("n", "m")


@dataclass
class Truth:
    """What is stored of the nodes; `None`: no such object."""

    ours: dict[str, tuple[dict[str, str], bool] | None] = field(default_factory=lambda: dict.fromkeys(NAMES))
    theirs: dict[str, tuple[dict[str, str], bool] | None] = field(default_factory=lambda: dict.fromkeys(NAMES))

    def members(self, selector: dict[str, str]) -> dict[str, str]:
        """Who has these labels, by the words of requirement D2 and C5."""
        found = {}
        for name in NAMES:
            ours, theirs = self.ours[name], self.theirs[name] or ({}, False)
            if ours is None:
                continue
            labels = {k: v for k, v in theirs[0].items() if not k.startswith("agent.hotpool.dev/")} | ours[0]
            if all(labels.get(key) == value for key, value in selector.items()):
                found[name] = "Draining" if ours[1] or theirs[1] else "Ready"
        return found


SELECTORS = ({"site": "a"}, {"site": "b", "rack": "a"}, {"agent.hotpool.dev/x": "a"})
STEP = st.tuples(st.booleans(), st.sampled_from(NAMES), st.none() | st.tuples(LABELS, st.booleans()))


@given(steps=st.lists(STEP, max_size=30))
@settings(max_examples=200, deadline=None)
def test_membership_is_a_function_of_both_objects_in_whatever_order_they_come(
    steps: list[tuple[bool, str, tuple[dict[str, str], bool] | None]],
) -> None:
    state, truth = open_state(), Truth()
    for index, selector in enumerate(SELECTORS):
        state.upsert(pool(f"p{index}", requires={"nodeSelector": {"matchLabels": selector}}), 0)
    before = [dict(state.pools[f"p{index}"].members) for index in range(len(SELECTORS))]
    for version, (ours, name, wanted) in enumerate(steps, 2):
        kind, uid = (Kind.NODE, f"{version}") if ours else (Kind.KUBE_NODE, f"{version}")
        stored = truth.ours if ours else truth.theirs
        known = state.identities(kind).get(name)
        uid = known.uid if known else uid
        if wanted is None:
            dirty = state.delete(kind, name, uid)
        elif ours:
            seen = node(name, report(), version=version, uid=uid, labels=wanted[0], drain=wanted[1])
            dirty = state.upsert(seen, version * H)
        else:
            kube = kube_node(name, version=version, uid=uid, labels=wanted[0], cordoned=wanted[1])
            dirty = state.upsert(kube, version * H)
        stored[name] = wanted
        after = [dict(state.pools[f"p{index}"].members) for index in range(len(SELECTORS))]
        assert after == [truth.members(selector) for selector in SELECTORS]
        changed = {
            Key(Kind.POOL, f"p{index}") for index, (a, b) in enumerate(zip(before, after, strict=True)) if a != b
        }
        assert changed <= dirty
        assert not any(key.kind is Kind.KUBE_NODE for key in dirty)
        before = after
