"""Commands to services through the cluster (requirements A2, B11)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.api.capability import ServiceIntent
from hotpool_agent.reporting.commands import CommandKey, is_carried_out, new_commands, parse_intents


def entry(identifier: str, desired: str = "Stopped", request: str = "1") -> dict[str, Any]:
    return {"id": identifier, "desired": desired, "requestID": request}


def test_an_entry_is_a_command_until_it_was_carried_out() -> None:
    intents = parse_intents({"spec": {"services": [entry("a"), entry("b"), entry("c"), entry("x")]}})
    assert intents is not None
    carried_out = {"a": None, "b": ("Stopped", "1"), "c": ("Running", "1")}
    assert [command.id for command in new_commands(intents, carried_out)] == ["a", "c"]


@given(st.lists(st.tuples(st.sampled_from(["cluster", "local", "watch"]), st.sampled_from(["Running", "Stopped"]))))
def test_any_course_the_last_command_is_in_force_however_often_the_object_is_delivered(
    course: list[tuple[str, str]],
) -> None:
    """Each command of the cluster has a request id of its own, and the watch may deliver it again at any time."""
    desired = expected = "Stopped"
    services: list[dict[str, Any]] = []
    acted: dict[str, CommandKey | None] = {"a": None}
    for number, (source, command) in enumerate(course):
        if source == "cluster":
            services = [entry("a", command, str(number))]
        if source == "local":
            desired = command
        for intent in new_commands(parse_intents({"spec": {"services": services}}) or (), acted):
            acted["a"], desired = (intent.desired, intent.request_id), intent.desired
        expected = expected if source == "watch" else command
        assert desired == expected


def test_another_request_id_repeats_a_command() -> None:
    (intent,) = parse_intents({"spec": {"services": [entry("a", request="2")]}}) or ()
    assert new_commands([intent], {"a": ("Stopped", "1")}) == [intent]


def test_a_command_is_carried_out_while_the_object_has_it_unchanged() -> None:
    intents = parse_intents({"spec": {"services": [entry("a")]}}) or ()
    assert is_carried_out(intents, "a", ("Stopped", "1"))
    assert not is_carried_out(intents, "a", ("Stopped", "2"))
    assert not is_carried_out(intents, "b", ("Stopped", "1"))
    assert not is_carried_out(intents, "a", None)


def test_without_an_object_there_are_no_intents() -> None:
    assert parse_intents(None) is None


@pytest.mark.parametrize(
    "capability",
    [{}, {"spec": None}, {"spec": "x"}, {"spec": {"services": None}}, {"spec": {"drain": True}}],
)
def test_no_entry_is_no_command(capability: dict[str, Any]) -> None:
    assert parse_intents(capability) == ()


def test_an_invalid_entry_is_left_out() -> None:
    entries = [entry("a"), {"id": "b"}, {"id": "c", "desired": "Sleeping"}, 7, entry("d") | {"new": 1}]
    assert parse_intents({"spec": {"services": entries}}) == (
        ServiceIntent(id="a", desired="Stopped", request_id="1"),
        ServiceIntent(id="d", desired="Stopped", request_id="1"),
    )
