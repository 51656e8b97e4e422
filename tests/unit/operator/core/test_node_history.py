"""The last things that changed about a node (requirement F2)."""

import pytest

from hotpool.core.model import TypeState
from hotpool.core.node_history import NodeHistory, Transition
from hotpool.projection.history import decode, encode

UP, STOPPED = TypeState(ready=True, services=("a",)), TypeState(ready=False, reason="Stopped")


def test_reasons_and_types_are_told_when_they_change_and_only_then() -> None:
    seen = NodeHistory()
    assert seen.record("n", "Live", {"asr": UP}, None, "t0") == Transition("t0", None, "Live", ("asr",))
    assert seen.record("n", "Live", {"asr": UP}, "Live", "t1") is None
    assert seen.record("n", "Live", {"asr": STOPPED, "tts": UP}, "Live", "t2") == Transition(
        "t2", gained=("tts",), lost={"asr": "Stopped"}
    )
    assert seen.record("n", "Suspect", {"asr": STOPPED}, "Live", "t3") == Transition(
        "t3", "Live", "Suspect", lost={"tts": "NotReported"}
    )


def test_after_a_restart_the_stored_condition_counts_and_types_are_not_guessed() -> None:
    assert NodeHistory().record("n", "Live", {"asr": UP}, "Live", "t") is None
    assert NodeHistory().record("n", "Offline", {"asr": UP}, "Suspect", "t") == Transition("t", "Suspect", "Offline")


def test_a_condition_that_is_not_stored_yet_is_not_told_twice() -> None:
    seen = NodeHistory()
    assert seen.record("n", "Suspect", {}, "Live", "t0")
    assert seen.record("n", "Suspect", {}, "Live", "t1") is None


def test_a_node_that_is_gone_and_comes_back_is_new() -> None:
    seen = NodeHistory()
    seen.record("n", "Live", {"asr": UP}, None, "t0")
    seen.forget("n")
    assert seen.record("n", "Live", {"asr": UP}, None, "t1") == Transition("t1", None, "Live", ("asr",))


def test_an_entry_is_small_however_many_types_there_are() -> None:
    types = {f"type-{number}": UP for number in range(500)}
    told = NodeHistory().record("n", "Live", types, None, "t")
    assert told
    assert len(told.gained) == 20


@pytest.mark.parametrize(
    "transition",
    [
        Transition("t", None, "Live", ("asr",)),
        Transition("t", "Live", "Suspect"),
        Transition("t", gained=("tts", "ü"), lost={"asr": "Stopped"}),
    ],
)
def test_what_redis_holds_reads_as_it_was_written(transition: Transition) -> None:
    assert decode(encode(transition)) == transition


@pytest.mark.parametrize("value", ["", "[]", "{}", "7", '{"at":"t","from":null,"to":null,"gained":[],"lost":[]}'])
def test_anything_else_is_an_error(value: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode(value)
