"""What others changed, told from what we changed ourselves (requirements C6, D5, D10)."""

from hotpool.core.model import Meta
from hotpool.events.last_applied import LastApplied

OWNER = Meta("zh-en", "u1", 1)


def known(**children: str) -> LastApplied[str]:
    footprint: LastApplied[str] = LastApplied()
    footprint.know(OWNER, children)
    return footprint


def write(footprint: LastApplied[str], child: str, what: str | None) -> None:
    footprint.write(OWNER, child)
    footprint.stored(OWNER, child, what)


def test_what_is_as_we_left_it_is_nobodys_doing() -> None:
    footprint = known(a="1")
    assert not footprint.foreign(OWNER, "a", "1")
    assert not footprint.foreign(OWNER, "b", None)
    write(footprint, "a", "2")
    assert not footprint.foreign(OWNER, "a", "2")
    write(footprint, "a", None)
    assert not footprint.foreign(OWNER, "a", None)


def test_edited_deleted_and_made_by_others_is_seen() -> None:
    footprint = known(a="1")
    write(footprint, "b", "1")
    assert footprint.foreign(OWNER, "a", "edited")
    assert footprint.foreign(OWNER, "b", None)
    assert footprint.foreign(OWNER, "c", "made")


def test_after_a_lost_answer_nothing_is_said_until_it_is_known_again() -> None:
    footprint = known(a="1")
    assert footprint.write(OWNER, "a")
    assert not footprint.foreign(OWNER, "a", "2")
    assert not footprint.write(OWNER, "a")
    footprint.stored(OWNER, "a", "3")
    assert footprint.foreign(OWNER, "a", "2")


def test_a_refused_write_leaves_what_was_known() -> None:
    footprint = known(a="1")
    assert footprint.write(OWNER, "a")
    footprint.refused(OWNER, "a")
    assert footprint.foreign(OWNER, "a", "edited")


def test_another_owner_of_the_name_starts_anew() -> None:
    footprint = known(a="1")
    again = Meta("zh-en", "u2", 9)
    footprint.know(again, {})
    assert not footprint.foreign(again, "a", None)
    footprint.forget("zh-en")
    footprint.know(OWNER, {"a": "7"})
    assert not footprint.foreign(OWNER, "a", "7")


def test_children_of_no_interest_are_forgotten() -> None:
    footprint = known(a="1", b="1")
    footprint.keep(OWNER, {"b"})
    assert not footprint.foreign(OWNER, "a", None)
    assert footprint.foreign(OWNER, "b", None)


def test_a_round_tells_what_was_before_it_also_when_it_needed_several_tries() -> None:
    footprint = known(a="1", b="1")
    footprint.begin(OWNER)
    write(footprint, "a", "2")
    footprint.write(OWNER, "b")  # no answer: it was stored, as is seen later
    footprint.begin(OWNER)
    before, after = footprint.end(OWNER, {"a": "2", "b": "2"})
    assert (before, after) == ({"a": "1", "b": "1"}, {"a": "2", "b": "2"})
    footprint.begin(OWNER)
    write(footprint, "c", "1")
    before, after = footprint.end(OWNER, {})
    assert (set(before), set(after)) == ({"a", "b"}, {"a", "b", "c"})
