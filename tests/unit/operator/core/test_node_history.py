"""Transitions of a node (requirement F2)."""

import pytest

from hotpool.core.model import TypeState
from hotpool.core.node_history import NodeHistory, Transition
from hotpool.projection.history import decode, encode

UP, STOPPED = TypeState(ready=True, services=("a",)), TypeState(ready=False, reason="Stopped")


def test_only_changes_of_reasons_and_types_are_recorded() -> None:
    history = NodeHistory()
    assert history.record("n", "Live", {"asr": UP}, None, "t0") == Transition("t0", None, "Live", ("asr",))
    assert history.record("n", "Live", {"asr": UP}, "Live", "t1") is None
    assert history.record("n", "Live", {"asr": STOPPED, "tts": UP}, "Live", "t2") == Transition(
        "t2", gained=("tts",), lost={"asr": "Stopped"}
    )
    assert history.record("n", "Suspect", {"asr": STOPPED}, "Live", "t3") == Transition(
        "t3", "Live", "Suspect", lost={"tts": "NotReported"}
    )


def test_after_a_restart_the_stored_condition_counts_and_types_are_not_guessed() -> None:
    assert NodeHistory().record("n", "Live", {"asr": UP}, "Live", "t") is None
    assert NodeHistory().record("n", "Offline", {"asr": UP}, "Suspect", "t") == Transition("t", "Suspect", "Offline")


def test_a_condition_that_is_not_stored_yet_is_not_recorded_twice() -> None:
    history = NodeHistory()
    assert history.record("n", "Suspect", {}, "Live", "t0")
    assert history.record("n", "Suspect", {}, "Live", "t1") is None


def test_a_deleted_node_that_returns_is_new() -> None:
    history = NodeHistory()
    history.record("n", "Live", {"asr": UP}, None, "t0")
    history.forget("n")
    assert history.record("n", "Live", {"asr": UP}, None, "t1") == Transition("t1", None, "Live", ("asr",))


def test_an_entry_is_small_however_many_types_there_are() -> None:
    types = {f"type-{number}": UP for number in range(500)}
    transition = NodeHistory().record("n", "Live", types, None, "t")
    assert transition
    assert len(transition.gained) == 20


@pytest.mark.parametrize(
    "transition",
    [
        Transition("t", None, "Live", ("asr",)),
        Transition("t", "Live", "Suspect"),
        Transition("t", gained=("tts", "ü"), lost={"asr": "Stopped"}),
    ],
)
def test_entries_from_redis_decode_to_the_written_transition(transition: Transition) -> None:
    assert decode(encode(transition)) == transition


@pytest.mark.parametrize("value", ["", "[]", "{}", "7", '{"at":"t","from":null,"to":null,"gained":[],"lost":[]}'])
def test_any_other_value_is_an_error(value: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode(value)
