"""What others changed, told from what we changed ourselves (requirements C6, D5, D10)."""

from hotpool.core.model import Meta
from hotpool.events.last_applied import LastApplied

OWNER = Meta("zh-en", "u1", 1)


def known(**children: str) -> LastApplied[str]:
    footprint: LastApplied[str] = LastApplied()
    footprint.track(OWNER, children)
    return footprint


def write(footprint: LastApplied[str], child: str, what: str | None) -> None:
    footprint.begin_write(OWNER, child)
    footprint.write_stored(OWNER, child, what)


def test_what_is_as_we_left_it_is_nobodys_doing() -> None:
    footprint = known(a="1")
    assert not footprint.changed_by_others(OWNER, "a", "1")
    assert not footprint.changed_by_others(OWNER, "b", None)
    write(footprint, "a", "2")
    assert not footprint.changed_by_others(OWNER, "a", "2")
    write(footprint, "a", None)
    assert not footprint.changed_by_others(OWNER, "a", None)


def test_edited_deleted_and_made_by_others_is_seen() -> None:
    footprint = known(a="1")
    write(footprint, "b", "1")
    assert footprint.changed_by_others(OWNER, "a", "edited")
    assert footprint.changed_by_others(OWNER, "b", None)
    assert footprint.changed_by_others(OWNER, "c", "made")


def test_after_a_lost_answer_nothing_is_said_until_it_is_known_again() -> None:
    footprint = known(a="1")
    assert footprint.begin_write(OWNER, "a")
    assert not footprint.changed_by_others(OWNER, "a", "2")
    assert not footprint.begin_write(OWNER, "a")
    footprint.write_stored(OWNER, "a", "3")
    assert footprint.changed_by_others(OWNER, "a", "2")


def test_a_refused_write_leaves_what_was_known() -> None:
    footprint = known(a="1")
    assert footprint.begin_write(OWNER, "a")
    footprint.write_rejected(OWNER, "a")
    assert footprint.changed_by_others(OWNER, "a", "edited")


def test_another_owner_of_the_name_starts_anew() -> None:
    footprint = known(a="1")
    again = Meta("zh-en", "u2", 9)
    footprint.track(again, {})
    assert not footprint.changed_by_others(again, "a", None)
    footprint.forget("zh-en")
    footprint.track(OWNER, {"a": "7"})
    assert not footprint.changed_by_others(OWNER, "a", "7")


def test_children_of_no_interest_are_forgotten() -> None:
    footprint = known(a="1", b="1")
    footprint.retain(OWNER, {"b"})
    assert not footprint.changed_by_others(OWNER, "a", None)
    assert footprint.changed_by_others(OWNER, "b", None)


def test_a_round_tells_what_was_before_it_also_when_it_needed_several_tries() -> None:
    footprint = known(a="1", b="1")
    footprint.begin_round(OWNER)
    write(footprint, "a", "2")
    footprint.begin_write(OWNER, "b")  # no answer: it was stored, as is seen later
    footprint.begin_round(OWNER)
    before, after = footprint.end_round(OWNER, {"a": "2", "b": "2"})
    assert (before, after) == ({"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    footprint.begin_round(OWNER)
    write(footprint, "c", "1")
    before, after = footprint.end_round(OWNER, {})
    assert (set(before), set(after)) == ({"a", "b"}, {"a", "b", "c"})
