"""Slices against a model under random joins and leaves (behaviour D7)."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hotpool.api.slice import Member, MemberState
from hotpool.core.slicing import Packing, pack

SIZE = 3
NODES = [f"n{number}" for number in range(12)]
STATES: list[MemberState] = ["Ready", "Suspect", "Draining"]


def member(node: str) -> Member:
    return Member(node=node, state="Ready", since="before")


class Slices(RuleBasedStateMachine):
    """Wanted members change; the packing follows."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[str, MemberState] = {}
        self.packing: Packing = {}

    @rule(changes=st.dictionaries(st.sampled_from(NODES), st.sampled_from([*STATES, None]), max_size=5))
    def change(self, changes: dict[str, Any]) -> None:
        before = self.places()
        for node, state in changes.items():
            self.wanted.pop(node, None)
            if state:
                self.wanted[node] = state
        self.packing = pack(self.packing, self.wanted, SIZE, "now")
        after = self.places()
        assert {node: place for node, place in before.items() if node in self.wanted}.items() <= after.items()
        self.fills_lowest_places_first(set(after) - set(before))

    def fills_lowest_places_first(self, joined: set[str]) -> None:
        highest = max((self.places()[node] for node in joined), default=0)
        assert all(len(self.packing.get(index, ())) == SIZE for index in range(highest))

    @rule(index=st.integers(0, 4), nodes=st.lists(st.sampled_from(NODES), max_size=6))
    def edited_by_hand(self, index: int, nodes: list[str]) -> None:
        self.packing = pack({**self.packing, index: tuple(member(node) for node in nodes)}, self.wanted, SIZE, "now")

    def places(self) -> dict[str, int]:
        return {item.node: index for index, members in self.packing.items() for item in members}

    @invariant()
    def holds_exactly_the_wanted_once(self) -> None:
        listed = [(item.node, item.state) for members in self.packing.values() for item in members]
        assert sorted(listed) == sorted(self.wanted.items())

    @invariant()
    def no_slice_is_too_large_or_empty(self) -> None:
        assert all(len(members) <= SIZE for members in self.packing.values())
        assert all(members or index == 0 for index, members in self.packing.items())


TestSlices = Slices.TestCase


def test_d7_a_leaving_member_changes_one_slice() -> None:
    names = [f"n{number:03}" for number in range(250)]
    full = pack({}, dict.fromkeys(names, "Ready"), 100, "now")
    left = pack(full, dict.fromkeys(names[1:], "Ready"), 100, "later")
    assert [index for index in full if full[index] != left[index]] == [0]
