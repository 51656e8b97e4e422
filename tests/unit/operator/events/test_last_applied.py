"""Detection of edits by other clients from the last written states."""

import pytest

from hotpool.core.model import Kind
from hotpool.errors import RetryableError, StaleError
from hotpool.events.last_applied import LastApplied


def lose_response(applied: LastApplied[str], child: str) -> None:
    with pytest.raises(RetryableError), applied.write(child):
        raise RetryableError("no response")


def test_the_states_found_at_first_and_written_later_are_no_edits() -> None:
    applied = LastApplied("uid", {"a": "1"})
    assert not applied.is_edited("a", "1")
    assert not applied.is_edited("b", None)
    applied.set("a", "2")
    assert not applied.is_edited("a", "2")
    applied.set("a", None)
    assert not applied.is_edited("a", None)


def test_every_other_state_is_an_edit() -> None:
    applied = LastApplied("uid", {"a": "1", "b": "1"})
    assert applied.is_edited("a", "edited")
    assert applied.is_edited("b", None)
    assert applied.is_edited("c", "made")


def test_a_write_without_a_response_leaves_the_state_uncertain_until_the_next_one() -> None:
    applied = LastApplied("uid", {"a": "1"})
    lose_response(applied, "a")
    assert not applied.is_edited("a", "2")
    assert not applied.is_edited("a", None)
    with applied.write("a"):
        pass
    applied.set("a", "3")
    assert applied.is_edited("a", "2")


@pytest.mark.parametrize("child", ["a", "b"])
def test_a_write_that_stored_nothing_leaves_the_former_state(child: str) -> None:
    applied = LastApplied("uid", {"a": "1"})
    with pytest.raises(StaleError), applied.write(child):
        raise StaleError("changed", Kind.SLICE, child)
    assert applied.states == {"a": "1"}
    assert applied.is_edited(child, "edited")


def test_an_uncertain_state_stays_so_after_a_write_that_stored_nothing() -> None:
    applied = LastApplied("uid", {"a": "1"})
    lose_response(applied, "a")
    with pytest.raises(StaleError), applied.write("a"):
        raise StaleError("changed", Kind.SLICE, "a")
    assert not applied.is_edited("a", "edited")
