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
    open_cache,
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
    """Return a cache with a node that serves llm, a pool of llm and a pool of site a."""
    cache = open_cache()
    cache.upsert(pool("llm", requires=requires("llm")), 0)
    cache.upsert(pool("here", requires=SITE), 0)
    cache.upsert(node("n", report(service("q", "llm")), **more), 0)
    return cache


def reasons(cache: ClusterCache) -> dict[str, tuple[str, str]]:
    return {c.type: (c.reason, c.message) for c in plan_node(cache.nodes["n"].view, "t").conditions}


def test_cordon_is_drain_and_uncordon_ends_it() -> None:
    cache = fleet()
    assert cache.upsert(kube_node("n", cordoned=True), 1) >= {NODE, LLM}
    assert cache.pools["llm"].members == {"n": "Draining"}
    assert reasons(cache)["Ready"] == ("Cordoned", "the Node is cordoned: offered no new work")
    assert reasons(cache)["Draining"][0] == "Cordoned"
    assert cache.upsert(kube_node("n", version=2), 2) >= {NODE, LLM}
    assert cache.pools["llm"].members == {"n": "Ready"}
    assert reasons(cache)["Draining"][0] == "NotRequested"


def test_spec_drain_stays_independent_of_a_cordon() -> None:
    cache = fleet(drain=True)
    cache.upsert(kube_node("n", cordoned=True), 1)
    assert reasons(cache)["Ready"][0] == "Draining"
    assert reasons(cache)["Draining"] == ("Requested", "spec.drain is true, and the Node is cordoned")
    cache.upsert(kube_node("n", version=2), 2)
    assert cache.pools["llm"].members == {"n": "Draining"}
    cache.upsert(kube_node("n", version=3, cordoned=True), 3)
    cache.upsert(node("n", report(service("q", "llm")), version=2), 4)
    assert reasons(cache)["Draining"][0] == "Cordoned"


def test_a_cordon_known_before_the_agent_reports_counts() -> None:
    cache = open_cache()
    cache.upsert(pool("llm", requires=requires("llm")), 0)
    assert cache.upsert(kube_node("n", cordoned=True), 0) == set()
    cache.upsert(node("n", report(service("q", "llm"))), 1)
    assert cache.pools["llm"].members == {"n": "Draining"}


def test_labels_of_the_node_reach_selectors_and_the_capability_overrides_them() -> None:
    cache = fleet()
    assert cache.upsert(kube_node("n", labels={"site": "a"}), 1) >= {HERE}
    assert cache.pools["here"].members == {"n": "Ready"}
    cache.upsert(node("n", report(service("q", "llm")), version=2, labels={"site": "b"}), 2)
    assert cache.pools["here"].criteria == {"n": Criterion.NODE_SELECTOR}
    cache.upsert(node("n", report(service("q", "llm")), version=3), 3)
    assert cache.pools["here"].members == {"n": "Ready"}
    assert cache.delete(Kind.KUBE_NODE, "n", "uid-kube-n") >= {HERE}
    assert cache.pools["here"].members == {}


def test_labels_with_the_agents_prefix_are_ignored_on_a_node() -> None:
    cache = open_cache()
    tier = "agent.hotpool.dev/tier"
    cache.upsert(pool("here", requires={"nodeSelector": {"matchLabels": {tier: "gold"}}}), 0)
    cache.upsert(node("n", report()), 0)
    cache.upsert(kube_node("n", labels={tier: "gold"}), 1)
    assert cache.pools["here"].members == {}
    cache.upsert(node("n", report(), version=2, labels={tier: "gold"}), 2)
    assert cache.pools["here"].members == {"n": "Ready"}


def test_a_status_of_the_kubelet_changes_nothing() -> None:
    cache = fleet()
    cache.upsert(kube_node("n", cordoned=True, labels={"site": "a"}), 1)
    view = cache.nodes["n"].view
    assert cache.upsert(kube_node("n", version=2, cordoned=True, labels={"site": "a"}), 2) == set()
    assert cache.nodes["n"].view is view
    assert cache.identities(Kind.KUBE_NODE)["n"].version == 2


def test_a_node_without_an_agent_affects_nothing() -> None:
    cache = fleet()
    assert cache.upsert(kube_node("m", cordoned=True, labels={"site": "a"}), 1) == set()
    assert cache.delete(Kind.KUBE_NODE, "m", "uid-kube-m") == set()


def test_only_a_possible_owner_marks_a_capability() -> None:
    cache = fleet()
    assert cache.upsert(kube_node("n"), 1) == {NODE}
    owned = replace(node("n", report(service("q", "llm")), version=2), owner="uid-kube-n")
    assert cache.upsert(owned, 2) == {NODE}
    assert cache.upsert(kube_node("n", version=2, uid="another"), 3) == set()
    assert cache.upsert(replace(owned, meta=replace(owned.meta, version=3), owner=None), 4) == {NODE}


def test_late_events_of_a_recreated_node_are_ignored() -> None:
    cache = fleet()
    cache.upsert(kube_node("n"), 1)
    cache.upsert(kube_node("n", version=5, uid="another", cordoned=True), 2)
    assert cache.delete(Kind.KUBE_NODE, "n", "uid-kube-n") == set()
    assert cache.upsert(kube_node("n", version=4), 3) == set()
    assert cache.pools["llm"].members == {"n": "Draining"}


def facts(cache: ClusterCache) -> NodeFacts:
    return NodeFacts(cache.nodes["n"].view)


def test_the_explanation_has_the_cordon_and_the_source_of_a_label() -> None:
    cache = fleet(labels={"rack": "7"}, conditions=[condition("Draining", "True", "Cordoned")])
    cache.upsert(kube_node("n", cordoned=True, labels={"site": "a", "rack": "8"}), 1)
    both = {"nodeSelector": {"matchLabels": {"site": "a", "rack": "7"}}}
    answer = explain(facts(cache), pool("p", requires=both), None)
    (requirement,) = [item for item in answer.requirements if item.criterion is Criterion.NODE_SELECTOR]
    assert requirement.observed == "site=a (label of the Node), rack=7"
    (cordon,) = answer.remarks[:1]
    assert (cordon.since, cordon.remedies) == ("t", ("kubectl uncordon n",))


@pytest.mark.parametrize(
    ("own", "remedies"),
    [
        ({}, ("remove label site on node n",)),
        ({"site": "b"}, ("remove label site on nodecapability n", "remove label site on node n")),
    ],
)
def test_a_label_is_removed_where_it_is(own: dict[str, str], remedies: tuple[str, ...]) -> None:
    cache = fleet(labels=own)
    cache.upsert(kube_node("n", labels={"site": "a"}), 1)
    nowhere = {"nodeSelector": {"matchExpressions": [{"key": "site", "operator": "DoesNotExist"}]}}
    answer = explain(facts(cache), pool("p", requires=nowhere), None)
    assert [item.remedies for item in answer.requirements if item.criterion is Criterion.NODE_SELECTOR] == [remedies]


# Both objects of a name, in any order of events.

LABELS = st.dictionaries(st.sampled_from(["site", "rack", "agent.hotpool.dev/x"]), st.sampled_from("ab"), max_size=3)
NAMES = ("n", "m")


@dataclass
class Expected:
    """Stored labels and drain of both objects of each node; `None`: no such object."""

    own: dict[str, tuple[dict[str, str], bool] | None] = field(default_factory=lambda: dict.fromkeys(NAMES))
    kube: dict[str, tuple[dict[str, str], bool] | None] = field(default_factory=lambda: dict.fromkeys(NAMES))

    def members(self, selector: dict[str, str]) -> dict[str, str]:
        """Return the members of a pool with this selector, by requirements D2 and C5."""
        found = {}
        for name in NAMES:
            own, kube = self.own[name], self.kube[name] or ({}, False)
            if own is None:
                continue
            labels = {k: v for k, v in kube[0].items() if not k.startswith("agent.hotpool.dev/")} | own[0]
            if all(labels.get(key) == value for key, value in selector.items()):
                found[name] = "Draining" if own[1] or kube[1] else "Ready"
        return found


SELECTORS = ({"site": "a"}, {"site": "b", "rack": "a"}, {"agent.hotpool.dev/x": "a"})
STEP = st.tuples(st.booleans(), st.sampled_from(NAMES), st.none() | st.tuples(LABELS, st.booleans()))


@given(steps=st.lists(STEP, max_size=30))
@settings(max_examples=200, deadline=None)
def test_membership_is_a_function_of_both_objects_in_any_order_of_events(
    steps: list[tuple[bool, str, tuple[dict[str, str], bool] | None]],
) -> None:
    cache, expected = open_cache(), Expected()
    for index, selector in enumerate(SELECTORS):
        cache.upsert(pool(f"p{index}", requires={"nodeSelector": {"matchLabels": selector}}), 0)
    before = [dict(cache.pools[f"p{index}"].members) for index in range(len(SELECTORS))]
    for version, (own, name, wanted) in enumerate(steps, 2):
        kind, uid = (Kind.NODE, f"{version}") if own else (Kind.KUBE_NODE, f"{version}")
        stored = expected.own if own else expected.kube
        known = cache.identities(kind).get(name)
        uid = known.uid if known else uid
        if wanted is None:
            dirty = cache.delete(kind, name, uid)
        elif own:
            seen = node(name, report(), version=version, uid=uid, labels=wanted[0], drain=wanted[1])
            dirty = cache.upsert(seen, version * H)
        else:
            kube = kube_node(name, version=version, uid=uid, labels=wanted[0], cordoned=wanted[1])
            dirty = cache.upsert(kube, version * H)
        stored[name] = wanted
        after = [dict(cache.pools[f"p{index}"].members) for index in range(len(SELECTORS))]
        assert after == [expected.members(selector) for selector in SELECTORS]
        changed = {
            Key(Kind.POOL, f"p{index}") for index, (a, b) in enumerate(zip(before, after, strict=True)) if a != b
        }
        assert changed <= dirty
        assert not any(key.kind is Kind.KUBE_NODE for key in dirty)
        before = after
