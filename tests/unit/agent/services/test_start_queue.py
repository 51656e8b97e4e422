"""Heavy services load one at a time (requirement A8)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.services.start_queue import StartQueue

SERVICES = ("a", "b", "c", "d")


def test_turns_come_in_the_order_of_asking() -> None:
    turns, went = StartQueue(), list[str]()
    for name in SERVICES:
        turns.acquire(name, lambda name=name: went.append(name))  # type: ignore[misc]
    turns.release("c")
    assert went == ["a"]
    turns.release("a")
    assert went == ["a", "b"]
    turns.release("b")
    assert went == ["a", "b", "d"]


def test_others_wait_for_one_that_was_adopted_while_it_loads() -> None:
    turns, went = StartQueue(), list[str]()
    turns.hold("a")
    turns.acquire("b", lambda: went.append("b"))
    assert went == []
    turns.release("a")
    assert went == ["b"]


def test_who_asks_again_keeps_its_turn() -> None:
    turns, went = StartQueue(), list[str]()
    turns.acquire("a", lambda: went.append("a"))
    turns.acquire("b", lambda: went.append("b"))
    turns.acquire("a", lambda: went.append("a"))
    assert went == ["a", "a"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(SERVICES)), max_size=40))
def test_never_two_and_never_none_while_somebody_waits(moves: list[tuple[bool, str]]) -> None:
    turns, loading, waiting = StartQueue(), set[str](), set[str]()

    def go(name: str) -> None:
        waiting.discard(name)
        loading.add(name)

    for asks, name in moves:
        if asks:
            waiting.add(name)
            turns.acquire(name, lambda name=name: go(name))  # type: ignore[misc]
        else:
            waiting.discard(name)
            loading.discard(name)
            turns.release(name)
        assert len(loading) == (1 if loading or waiting else 0)
