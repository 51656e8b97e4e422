"""Slices compared with a model, for random joins and leaves (requirements D7, D10)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hotpool.api.slice import MemberState
from hotpool.core.model import Member
from hotpool.core.planning import slice_packing
from hotpool.core.planning.slice_packing import Packing, merge, slice_to_merge

SIZE = 5
NODES = [f"n{number}" for number in range(16)]
STATES: list[MemberState] = ["Ready", "Suspect", "Draining"]


def pack(current: Packing, wanted: Mapping[str, MemberState], size: int, now: str) -> Packing:
    """Pack all nodes. Packing only the changed nodes must give the same result."""
    whole = slice_packing.pack(current, wanted, size, now)
    found = {item.node: item.state for members in current.values() for item in members}
    changed = {node for node in {*found, *wanted} if found.get(node) != wanted.get(node)}
    regular = sum(map(len, current.values())) == len(found) and all(len(m) <= size for m in current.values())
    if regular and all(current[index] for index in current if index):
        assert slice_packing.pack(current, wanted, size, now, changed) == whole
    return whole.slices


def member(node: str) -> Member:
    return Member(node=node, state="Ready", since="before")


class Slices(RuleBasedStateMachine):
    """Packing of members that change."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, MemberState] = {}
        self.packing: Packing = {}

    @rule(changes=st.dictionaries(st.sampled_from(NODES), st.sampled_from([*STATES, None]), max_size=5))
    def change(self, changes: dict[str, Any]) -> None:
        before, known = self.places(), set(self.packing)
        for node, state in changes.items():
            self.wanted.pop(node, None)
            if state:
                self.wanted[node] = state
        self.packing = pack(self.packing, self.wanted, SIZE, "now")
        after = self.places()
        assert {node: place for node, place in before.items() if node in self.wanted}.items() <= after.items()
        self.fills_lowest_places_first(set(after) - set(before), known)

    def fills_lowest_places_first(self, joined: set[str], known: set[int]) -> None:
        """Check that existing slices are filled in order, then the lowest free indices."""
        order = [*sorted(known & set(self.packing)), *sorted(set(range(20)) - known)]
        used = [order.index(self.places()[node]) for node in joined if self.places()[node] in order]
        assert all(len(self.packing[index]) == SIZE for index in order[: max(used, default=0)])

    @rule(index=st.integers(0, 4), nodes=st.lists(st.sampled_from(NODES), max_size=6))
    def edited_by_hand(self, index: int, nodes: list[str]) -> None:
        edited = {**self.packing, index: tuple(member(node) for node in nodes)}
        self.packing = pack(edited, self.wanted, SIZE, "now")

    @rule()
    def merged(self) -> None:
        index = slice_to_merge(self.packing, SIZE)
        if index is None:
            return
        packed = merge(self.packing, index, SIZE)
        assert index not in packed
        assert Counter(sum(packed.values(), ())) == Counter(sum(self.packing.values(), ()))
        stay = {node: place for node, place in self.places().items() if place != index}
        self.packing = packed
        assert stay.items() <= self.places().items()

    def places(self) -> dict[str, int]:
        return {item.node: index for index, members in self.packing.items() for item in members}

    @rule(index=st.integers(0, 9))
    def deleted_by_hand(self, index: int) -> None:
        remaining = {number: members for number, members in self.packing.items() if number != index}
        lost = {item.node for item in self.packing.get(index, ())}
        stay = {node: place for node, place in self.places().items() if node not in lost}
        self.packing = pack(remaining, self.wanted, SIZE, "now")
        assert stay.items() <= self.places().items()

    @invariant()
    def a_second_packing_changes_nothing(self) -> None:
        assert pack(self.packing, self.wanted, SIZE, "later") == self.packing

    @invariant()
    def contains_exactly_the_desired_members_once(self) -> None:
        listed = [(item.node, item.state) for members in self.packing.values() for item in members]
        assert sorted(listed) == sorted(self.wanted.items())

    @invariant()
    def no_slice_is_too_large_or_empty(self) -> None:
        assert all(len(members) <= SIZE for members in self.packing.values())
        assert all(members or index == 0 for index, members in self.packing.items())


TestSlices = Slices.TestCase


@pytest.mark.parametrize(
    ("found", "emptied"),
    [
        ({0: 8, 1: 1}, None),
        ({0: 7, 1: 1}, 1),
        ({0: 1, 1: 7}, 0),
        ({0: 1, 1: 7, 2: 1}, 2),
        ({0: 7, 1: 2}, None),
        ({0: 1}, None),
        ({0: 0}, None),
        ({}, None),
    ],
)
def test_a_slice_less_than_a_quarter_full_that_fits_elsewhere_is_merged(
    found: dict[int, int], emptied: int | None
) -> None:
    packing = {index: tuple(member(f"n{index}{number}") for number in range(held)) for index, held in found.items()}
    assert slice_to_merge(packing, 8) == emptied


def test_a_leaving_member_changes_one_slice() -> None:
    names = [f"n{number:03}" for number in range(250)]
    full = pack({}, dict.fromkeys(names, "Ready"), 100, "now")
    left = pack(full, dict.fromkeys(names[1:], "Ready"), 100, "later")
    assert [index for index in full if full[index] != left[index]] == [0]


def test_the_lowest_free_place_is_taken_first_and_a_hole_hides_no_slice() -> None:
    found = {0: (member("a"),), 3: (member("b"), member("c"))}
    wanted: dict[str, MemberState] = dict.fromkeys("abcdefg", "Ready")
    packed = pack(found, wanted, 2, "now")
    nodes = {index: [item.node for item in members] for index, members in packed.items()}
    assert nodes == {0: ["a", "d"], 1: ["e", "f"], 2: ["g"], 3: ["b", "c"]}


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({0: "aa"}, "a", {0: "a"}),
        ({0: "ab", 1: "ba"}, "ab", {0: "ab"}),
        ({0: "abcd"}, "abcd", {0: "abc", 1: "d"}),
        ({0: "xyz", 1: "a"}, "a", {1: "a"}),
        ({2: "a"}, "", {}),
        ({0: "a"}, "", {0: ""}),
        ({}, "", {}),
    ],
)
def test_edits_by_hand_are_repaired(found: dict[int, str], wanted: str, expected: dict[int, str]) -> None:
    current = {index: tuple(member(node) for node in nodes) for index, nodes in found.items()}
    packed = pack(current, dict.fromkeys(wanted, "Ready"), 3, "now")
    assert {index: "".join(item.node for item in members) for index, members in packed.items()} == expected


def test_members_that_stay_keep_since_and_only_new_members_get_a_new_one() -> None:
    packed = pack({0: (member("a"), member("b"))}, {"a": "Suspect", "c": "Ready"}, 3, "now")
    assert packed[0] == (
        Member(node="a", state="Suspect", since="before"),
        Member(node="c", state="Ready", since="now"),
    )
