"""Nodes that claim one address and port: the better right wins, an equal one counts for neither (requirement B13)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.endpoints.claimants import SEVERAL, Claimants, Rival

NAMES = [f"n{number}" for number in range(6)]
changes = st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 5)), max_size=20)


def naive(rights: dict[str, int], node: str) -> Rival | None:
    """Return the first of the others with the best right that is not worse than the node's own, if it is the only one.

    A node that is not one of the first two has several.
    """
    others = sorted(((-right, name) for name, right in rights.items() if name != node))
    if not others or -others[0][0] < rights[node]:
        return None
    if len(others) > 1 and others[1] < (-rights[node], node):
        return SEVERAL
    return Rival(others[0][1], equal=-others[0][0] == rights[node])


@given(changes)
def test_rivals_follow_from_the_rights_alone_and_each_change_names_the_nodes_that_it_affects(
    steps: list[tuple[str, int | None]],
) -> None:
    claimants, rights = Claimants(), dict[str, int]()
    for node, right in steps:
        before = {name: claimants.rival(name) for name in rights}
        affected = claimants.put(node, right)
        rights = {**rights, node: right} if right is not None else {k: v for k, v in rights.items() if k != node}
        after = {name: claimants.rival(name) for name in rights}
        assert after == {name: naive(rights, name) for name in rights}
        assert {name for name in after if name != node and after[name] != before[name]} <= affected
        assert len(affected) <= 4
        assert bool(claimants) == bool(rights)


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5), min_size=2))
def test_at_most_one_node_has_no_rival_and_an_equal_right_is_mutual(rights: dict[str, int]) -> None:
    claimants = Claimants()
    for name, right in rights.items():
        claimants.put(name, right)
    rivals = {name: claimants.rival(name) for name in rights}
    assert sum(rival is None for rival in rivals.values()) <= 1
    for rival in rivals.values():
        if rival and rival.equal:
            other = rivals[rival.node]
            assert other
            assert other.equal


def test_a_change_affects_few_other_nodes_whatever_their_number_and_their_order() -> None:
    claimants, nodes = Claimants(), [f"n{number:05}" for number in range(10_000)]
    for node in reversed(nodes):
        assert len(claimants.put(node, 1)) <= 2
    for node in nodes:  # one after the other falls silent, each the first of those that have not
        assert len(claimants.put(node, 0)) <= 3
    assert claimants.rival(nodes[0]) == Rival(nodes[1], equal=True)
    assert claimants.rival(nodes[-1]) == SEVERAL
