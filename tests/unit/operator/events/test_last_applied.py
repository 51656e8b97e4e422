"""Detection of edits by other clients (requirements C6, D5, D10)."""

from hotpool.core.model import Meta
from hotpool.events.last_applied import LastApplied

OWNER = Meta("zh-en", "u1", 1)


def tracked(**children: str) -> LastApplied[str]:
    last_applied: LastApplied[str] = LastApplied()
    last_applied.track(OWNER, children)
    return last_applied


def write(last_applied: LastApplied[str], child: str, value: str | None) -> None:
    last_applied.begin_write(OWNER, child)
    last_applied.write_stored(OWNER, child, value)


def test_the_last_written_state_is_no_edit() -> None:
    last_applied = tracked(a="1")
    assert not last_applied.changed_by_others(OWNER, "a", "1")
    assert not last_applied.changed_by_others(OWNER, "b", None)
    write(last_applied, "a", "2")
    assert not last_applied.changed_by_others(OWNER, "a", "2")
    write(last_applied, "a", None)
    assert not last_applied.changed_by_others(OWNER, "a", None)


def test_edits_deletions_and_creations_by_other_clients_are_detected() -> None:
    last_applied = tracked(a="1")
    write(last_applied, "b", "1")
    assert last_applied.changed_by_others(OWNER, "a", "edited")
    assert last_applied.changed_by_others(OWNER, "b", None)
    assert last_applied.changed_by_others(OWNER, "c", "made")


def test_after_a_lost_response_no_edit_is_reported_until_the_state_is_certain() -> None:
    last_applied = tracked(a="1")
    assert last_applied.begin_write(OWNER, "a")
    assert not last_applied.changed_by_others(OWNER, "a", "2")
    assert not last_applied.begin_write(OWNER, "a")
    last_applied.write_stored(OWNER, "a", "3")
    assert last_applied.changed_by_others(OWNER, "a", "2")


def test_a_rejected_write_keeps_the_former_state() -> None:
    last_applied = tracked(a="1")
    assert last_applied.begin_write(OWNER, "a")
    last_applied.write_rejected(OWNER, "a")
    assert last_applied.changed_by_others(OWNER, "a", "edited")


def test_another_owner_with_the_same_name_starts_empty() -> None:
    last_applied = tracked(a="1")
    again = Meta("zh-en", "u2", 9)
    last_applied.track(again, {})
    assert not last_applied.changed_by_others(again, "a", None)
    last_applied.forget("zh-en")
    last_applied.track(OWNER, {"a": "7"})
    assert not last_applied.changed_by_others(OWNER, "a", "7")


def test_children_that_are_not_retained_are_dropped() -> None:
    last_applied = tracked(a="1", b="1")
    last_applied.retain(OWNER, {"b"})
    assert not last_applied.changed_by_others(OWNER, "a", None)
    assert last_applied.changed_by_others(OWNER, "b", None)


def test_a_round_returns_the_state_before_it_also_after_several_attempts() -> None:
    last_applied = tracked(a="1", b="1")
    last_applied.begin_round(OWNER)
    write(last_applied, "a", "2")
    last_applied.begin_write(OWNER, "b")  # no response, although it was stored
    last_applied.begin_round(OWNER)
    before, after = last_applied.end_round(OWNER, {"a": "2", "b": "2"})
    assert (before, after) == ({"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    last_applied.begin_round(OWNER)
    write(last_applied, "c", "1")
    before, after = last_applied.end_round(OWNER, {})
    assert (set(before), set(after)) == ({"a", "b"}, {"a", "b", "c"})
