"""Event drafts from the difference of stored states (requirements C6, D5, D11)."""

import pytest

from hotpool.api.meta import Condition
from hotpool.core.model import Kind, Member
from hotpool.events.aggregator import EventDraft
from hotpool.events.builders import changed_conditions, compare_members, membership_changed
from hotpool.events.messages import note


def condition(type_: str, status: str = "True", reason: str = "Because", message: str = "") -> Condition:
    return Condition.model_validate(
        {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "t"}
    )


def brief(drafts: list[EventDraft]) -> list[tuple[str, bool]]:
    return [(draft.reason, draft.warning) for draft in drafts]


def members(*nodes: str, state: str = "Ready") -> tuple[Member, ...]:
    return tuple(Member(node, state, "t") for node in nodes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, [], []),
        ({"Ready": ("True", "EnoughMembers")}, [("Ready", "True", "EnoughMembers")], []),
        ({}, [("Ready", "True", "EnoughMembers")], [("Ready", False)]),
        ({}, [("Ready", "False", "TooFewMembers")], [("NotReady", True)]),
        ({"Ready": ("True", "EnoughMembers")}, [("Ready", "False", "TooFewMembers")], [("NotReady", True)]),
        ({"Ready": ("False", "TooFewMembers")}, [("Ready", "False", "DryRun")], [("NotReady", False)]),
        ({"Ready": ("False", "DryRun")}, [("Ready", "True", "EnoughMembers")], [("Ready", False)]),
        ({}, [("MassSilence", "True", "BrakeHolds")], [("MassSilence", True)]),
        ({"MassSilence": ("True", "BrakeHolds")}, [], [("MassSilenceResolved", False)]),
        ({"MassSilence": ("True", "BrakeHolds")}, [("MassSilence", "False", "Calm")], [("MassSilenceResolved", False)]),
        ({"Odd": ("True", "A")}, [("Odd", "True", "B")], [("Odd", True)]),
        ({}, [("Odd", "False", "A")], []),
        ({"Odd": ("False", "A")}, [("Odd", "False", "B")], []),
        ({"Odd": ("False", "A")}, [], []),
        ({}, [("Paused", "True", "Paused")], [("Paused", False)]),
        ({"Paused": ("True", "Paused")}, [], [("Resumed", False)]),
    ],
)
def test_every_condition_that_appears_changes_or_ends_has_an_event(
    before: dict[str, tuple[str, str]], after: list[tuple[str, str, str]], expected: list[tuple[str, bool]]
) -> None:
    assert brief(changed_conditions(Kind.POOL, before, [condition(*words) for words in after])) == expected


@pytest.mark.parametrize(
    ("status", "reason", "warning"),
    [
        ("True", "Live", False),
        ("Unknown", "Suspect", True),
        ("Unknown", "Offline", True),
        ("False", "Leaving", False),
        ("False", "Draining", False),
        ("False", "Cordoned", False),
        ("False", "InvalidReport", True),
        ("Unknown", "AwaitingReport", False),
    ],
)
def test_a_node_has_one_event_with_the_reason_of_ready(status: str, reason: str, warning: bool) -> None:  # noqa: FBT001
    before = {"Ready": ("Unknown", "Other"), "Draining": ("False", "NotRequested")}
    after = [condition("Ready", status, reason), condition("Draining", "True", "Requested")]
    assert brief(changed_conditions(Kind.NODE, before, after)) == [(reason, warning)]
    assert changed_conditions(Kind.NODE, {"Ready": (status, reason)}, after[:1]) == []


def test_the_note_holds_reason_and_message() -> None:
    (draft,) = changed_conditions(Kind.POOL, {}, [condition("Ready", "False", "TooFewMembers", "0 of 1")])
    assert note(draft.content) == "TooFewMembers: 0 of 1"


def test_the_note_repeats_no_reason_and_a_node_has_the_former_one() -> None:
    def text(kind: Kind, before: dict[str, tuple[str, str]], now: Condition) -> str:
        (draft,) = changed_conditions(kind, before, [now])
        return note(draft.content)

    silent = condition("Ready", "Unknown", "Offline", "no heartbeat")
    assert text(Kind.NODE, {"Ready": ("Unknown", "Suspect")}, silent) == "no heartbeat; was Suspect"
    assert text(Kind.NODE, {}, silent) == "no heartbeat"
    assert text(Kind.POOL, {}, condition("Paused", "True", "Paused", "by annotation")) == "by annotation"


def test_the_note_names_joined_left_and_changed_nodes_with_the_criterion() -> None:
    before = {"p-0": members("a", "b", "c", "d")}
    after = {"p-0": (*members("a", "e"), *members("b", state="Suspect"))}
    draft = membership_changed(
        compare_members(before, after), {"c": "TypeNotReady", "d": "Deleted"}, emptied_by_dry_run=False
    )
    assert draft
    assert draft.reason == "MembersChanged"
    expected = "1 joined [e], 2 left (Deleted 1, TypeNotReady 1) [c, d], 1 changed (Suspect 1) [b]"
    assert note(draft.content) == expected


def test_a_member_that_only_moves_to_another_slice_is_no_change() -> None:
    before = {"p-0": members("a"), "p-1": members("b", "c"), "p-2": members("d")}
    after = {"p-0": members("a", "b", "c"), "p-2": members("d")}
    for stored in (after, before):
        assert len(compare_members(before, stored)) == 0
        assert membership_changed(compare_members(before, stored), {}, emptied_by_dry_run=False) is None


def test_dry_run_that_empties_a_pool_has_an_event_of_its_own() -> None:
    draft = membership_changed(compare_members({"p-0": members("a", "b")}, {}), {}, emptied_by_dry_run=True)
    assert draft
    assert (draft.reason, draft.warning) == ("DryRunEmptied", False)
    assert note(draft.content) == "mode DryRun: all 2 members were removed"
    assert membership_changed(compare_members({}, {}), {}, emptied_by_dry_run=True) is None
