"""Heavy services load one at a time (requirement A8)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.services.start_queue import StartQueue

SERVICES = ("a", "b", "c", "d")


def test_services_load_in_the_order_of_their_requests() -> None:
    queue, granted = StartQueue(), list[str]()
    for name in SERVICES:
        queue.acquire(name, lambda name=name: granted.append(name))  # type: ignore[misc]
    queue.release("c")
    assert granted == ["a"]
    queue.release("a")
    assert granted == ["a", "b"]
    queue.release("b")
    assert granted == ["a", "b", "d"]


def test_others_wait_for_a_service_that_was_adopted_while_it_loads() -> None:
    queue, granted = StartQueue(), list[str]()
    queue.hold("a")
    queue.acquire("b", lambda: granted.append("b"))
    assert granted == []
    queue.release("a")
    assert granted == ["b"]


def test_a_service_that_requests_again_keeps_its_place() -> None:
    queue, granted = StartQueue(), list[str]()
    queue.acquire("a", lambda: granted.append("a"))
    queue.acquire("b", lambda: granted.append("b"))
    queue.acquire("a", lambda: granted.append("a"))
    assert granted == ["a", "a"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(SERVICES)), max_size=40))
def test_exactly_one_service_loads_while_any_waits(moves: list[tuple[bool, str]]) -> None:
    queue, loading, waiting = StartQueue(), set[str](), set[str]()

    def load(name: str) -> None:
        waiting.discard(name)
        loading.add(name)

    for acquires, name in moves:
        if acquires:
            waiting.add(name)
            queue.acquire(name, lambda name=name: load(name))  # type: ignore[misc]
        else:
            waiting.discard(name)
            loading.discard(name)
            queue.release(name)
        assert len(loading) == (1 if loading or waiting else 0)
