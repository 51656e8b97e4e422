"""Incremental counts of keys equal a full count, and language sets are found within bounds (requirement D5)."""

from collections import Counter
from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support.builders import core_report, generator, node, offer, report, service, view

from hotpool.core.generators import key_index
from hotpool.core.generators.admission import key_rule
from hotpool.core.generators.key_index import KeyIndex
from hotpool.core.generators.maximal_cliques import MAX_LANGUAGES, language_graph, language_sets
from hotpool.core.language_pairs import Grid, Pairs, pairs_of
from hotpool.core.languages import pairs
from hotpool.core.model import Liveness, NodeView, Rule

# Sets of languages.

CODES = "abcdef"
PAIR = st.builds(lambda source, target: (source, target), st.sampled_from(CODES), st.sampled_from(CODES))


def graph(edges: set[tuple[str, str]]) -> Pairs:
    """Return pairs in both directions."""
    return pairs_of((), {pair for a, b in edges for pair in ((a, b), (b, a))})


def naive_sets(of: Pairs, min_size: int) -> set[tuple[str, ...]]:
    cliques = {
        codes
        for size in range(1, len(CODES) + 1)
        for codes in combinations(CODES, size)
        if all(f"{a}-{b}" in of for a in codes for b in codes if a != b) and {*codes} <= of.sources & of.targets
    }
    largest = {codes for codes in cliques if not any({*codes} < {*other} for other in cliques)}
    return {codes for codes in largest if len(codes) >= min_size}


@given(
    st.lists(
        st.builds(
            Grid, st.frozensets(st.sampled_from(CODES)), st.frozensets(st.sampled_from(CODES)), st.frozensets(PAIR)
        ),
        max_size=3,
    ),
    st.sets(PAIR, max_size=20),
    st.integers(2, 4),
)
def test_language_sets_equal_those_of_an_exhaustive_search(
    grids: list[Grid], single: set[tuple[str, str]], min_size: int
) -> None:
    within = [
        Grid(g.sources, g.targets, frozenset(p for p in g.blocked if p[0] in g.sources and p[1] in g.targets))
        for g in grids
    ]
    of = pairs_of(within, single)
    found = language_sets(language_graph(of), min_size)
    assert not found.truncated
    assert len(found.sets) == len(set(found.sets))
    assert set(found.sets) == naive_sets(of, min_size)
    assert all(codes == tuple(sorted(codes)) for codes in found.sets)


def test_language_sets_of_every_graph_of_five_languages() -> None:
    edges = list(combinations("abcde", 2))
    for number in range(2 ** len(edges)):
        of = graph({edge for place, edge in enumerate(edges) if number >> place & 1})
        found = language_sets(language_graph(of), 2).sets
        paired = {code: {b for a, b in of.single if a == code} for code in "abcde"}
        assert all(not set.intersection(*(paired[code] for code in codes)) for codes in found), "one could be larger"
        assert all({*codes} - {code} <= paired[code] for codes in found for code in codes)
        assert {pair for codes in found for pair in combinations(codes, 2)} == {
            edge for place, edge in enumerate(edges) if number >> place & 1
        }


def test_a_hostile_graph_ends_the_search_with_a_deterministic_result() -> None:
    """Groups of three languages without pairs among them have 3^40 maximal sets."""
    codes = [f"l{number:03}" for number in range(120)]
    of = graph({(a, b) for a, b in combinations(codes, 2) if int(a[1:]) // 3 != int(b[1:]) // 3})
    found = language_sets(language_graph(of), 2)
    assert found.truncated
    assert 0 < len(found.sets) <= 1000
    assert found == language_sets(language_graph(of), 2)
    assert all(language_graph(of).connects(frozenset(codes)) for codes in found.sets[:10])


def test_a_search_without_a_result_ends() -> None:
    codes = [f"l{number:03}" for number in range(120)]
    of = graph({(a, b) for a, b in combinations(codes, 2) if int(a[1:]) // 3 != int(b[1:]) // 3})
    found = language_sets(language_graph(of), 41)
    assert found.sets == ()


def test_the_largest_possible_number_of_languages_is_one_set() -> None:
    codes = frozenset(f"l{number:03}" for number in range(MAX_LANGUAGES))
    found = language_sets(language_graph(pairs_of([Grid(codes, codes)], ())), 2)
    assert found.sets == (tuple(sorted(codes)),)
    assert not found.truncated
    more = codes | {"x", "y"}
    assert language_sets(language_graph(pairs_of([Grid(more, more)], ())), 2).truncated


# Counting.


KEY_RULES: dict[str, Any] = {
    "pairs": {"languagePairs": {"manyToOne": True}},
    "sets": {"languageSets": {"maxLanguages": 3}},
    "values": {"attributeValues": {"type": "asr", "key": "languages"}},
    "hash": {"hash": {"count": 2}},
}


def count(index: KeyIndex) -> None:
    while not index.count_step():
        pass


class Counting(RuleBasedStateMachine):
    """After any sequence of changes, the counts equal those of all nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[str, NodeView] = {}
        self.indexes = {name: KeyIndex(key_rule(generator("g", rule=by).spec)) for name, by in KEY_RULES.items()}

    names = st.sampled_from(["a", "b", "c", "d"])
    groups = st.lists(st.lists(st.sampled_from("vwxyz"), min_size=1, max_size=4, unique=True), max_size=3)

    @rule(name=names, groups=groups)
    def node_changes(self, name: str, groups: list[list[str]]) -> None:
        codes = sorted({code for group in groups for code in group})
        rules = tuple(Rule("any_to_any", frozenset(group)) for group in groups)
        spoken = [offer(type_, type_, *codes, languages=codes) for type_ in ("asr", "tts")]
        content = core_report(*spoken, offer("m", "nmt", rules=rules))
        seen = NodeView(node(name, report()), Liveness.LIVE)
        seen = NodeView(
            type(seen.node)(seen.node.meta, report=content), Liveness.LIVE, pairs=pairs(content, semantic=False)
        )
        self.views[name] = seen
        for index in self.indexes.values():
            index.update(name, seen)

    @rule(name=names)
    def node_goes(self, name: str) -> None:
        self.views.pop(name, None)
        for index in self.indexes.values():
            index.update(name, None)

    @rule()
    def counted(self) -> None:
        for name, index in self.indexes.items():
            assert index.rule
            count(index)
            expected = self.expected(name)
            found = {**index.ranking.counts, **index.refused.counts}
            assert found == expected
            assert set(index.refused.counts) == {key for key in expected if index.rule.refusal_reason(key)}

    @invariant()
    def no_obsolete_group_remains(self) -> None:
        for index in self.indexes.values():
            assert {node for group in index._groups.values() for node in group.members} <= {*self.views}  # noqa: SLF001

    def expected(self, name: str) -> dict[str, int]:
        by = self.indexes[name].rule
        assert by
        sources = [source for seen in self.views.values() if (source := by.source(seen)) is not None]
        own = [by.offered(source).keys for source in sources]
        if not by.shared:
            return dict(Counter(key for keys in own for key in keys))
        all_keys = frozenset().union(*own)
        return {key: sum(connects(source, key.split("+")) for source in sources) for key in all_keys}


def connects(source: Pairs, codes: list[str]) -> bool:
    return all(f"{src}-{tgt}" in source for src, tgt in permutations(codes, 2))


TestCounting = Counting.TestCase


def test_a_node_with_more_languages_counts_for_the_smaller_sets_of_others() -> None:
    index = KeyIndex(key_rule(generator("g", rule={"languageSets": {"maxLanguages": 3}}).spec))
    for name, codes in (("small", "ab"), ("large", "abcd"), ("other", "bc")):
        index.update(name, view_of(*codes))
    count(index)
    assert dict(index.ranking.counts) == {"a+b": 2, "b+c": 2}
    assert dict(index.refused.counts) == {"a+b+c+d": 1}
    index.update("small", None)
    count(index)
    assert dict(index.ranking.counts) == {"b+c": 2}


def view_of(*codes: str) -> NodeView:
    spoken = [service(type_, type_, languages=list(codes)) for type_ in ("asr", "tts")]
    rules = [{"kind": "any_to_any", "languages": list(codes)}]
    return view(report(*spoken, service("m", "nmt", rules=rules)))


def test_nodes_with_too_many_keys_are_listed() -> None:
    index = KeyIndex(key_rule(generator("g").spec))
    index.update("modest", view_of("a", "b"))
    index.update("greedy", view_of(*(f"l{number}" for number in range(120))))
    count(index)
    assert index.nodes_over_key_limit() == ["greedy"]
    assert len(index.ranking) == 10_002
    index.update("greedy", view_of("a", "b"))
    count(index)
    assert index.nodes_over_key_limit() == []
    assert dict(index.ranking.counts) == {"a-b": 2, "b-a": 2}


def test_language_sets_of_all_nodes_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "MAX_SHARED_KEYS", 2)
    index = KeyIndex(key_rule(generator("g", rule={"languageSets": {}}).spec))
    for number, codes in enumerate(("ab", "cd", "ef", "ab")):
        index.update(f"n{number}", view_of(*codes))
    count(index)
    assert len(index.ranking) == 2
    assert len(index.nodes_with_truncated_search()) in {1, 2}


def test_counting_takes_several_steps() -> None:
    """Very many keys are not counted in one step."""
    index = KeyIndex(key_rule(generator("g").spec))
    for number in range(6):
        index.update(f"n{number}", view_of(*(f"l{number}x{place}" for place in range(80))))
    assert not index.count_step()
    count(index)
    assert len(index.ranking) == 6 * 6_320
