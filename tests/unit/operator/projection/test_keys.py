"""Key names and ring positions of the Redis projection (E2, E4, E6)."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from hotpool.projection.keys import FleetKeys, score, scored_members


def test_every_key_of_a_fleet_has_the_same_slot() -> None:
    keys = FleetKeys("hotpool", "speech")
    names = {keys.meta, keys.pools, keys.nodes, keys.index, keys.node("edge-1"), keys.node("edge-2")}
    names |= {keys.history("edge-1"), *keys.pool("zh-en"), *keys.pool("a.b-c"), *keys.staged("zh-en", 3, 7)}
    names |= {*keys.load, keys.endpoints, keys.services("zh-en")}
    assert len(names) == 4 + 2 + 1 + 8 + 4 + 3 + 2
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"hotpool:speech")}
    assert all(name.startswith("{hotpool:speech}:") for name in names)


def test_two_fleets_and_two_prefixes_share_no_key() -> None:
    fleets = [FleetKeys(*parts) for parts in (("hotpool", "a"), ("hotpool", "b"), ("other", "a"))]
    assert len({fleet.meta for fleet in fleets}) == 3


def test_staged_keys_of_two_writes_differ() -> None:
    keys = FleetKeys("hotpool", "speech")
    writes = [("zh-en", 3, 7), ("zh-en", 3, 8), ("zh-en", 4, 7), ("en-zh", 3, 7)]
    assert len({key for write in writes for key in keys.staged(*write)}) == 16


@pytest.mark.parametrize("part", ["", "a}b", "{a", "a b", "a\n"])
def test_a_prefix_that_would_break_the_hash_tag_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="prefix or namespace"):
        FleetKeys(part, "speech")
    with pytest.raises(ValueError, match="prefix or namespace"):
        FleetKeys("hotpool", part)


def test_ring_positions_are_exact_doubles_and_never_change() -> None:
    positions = {name: score(name) for name in ("edge-001", "edge-002", "a")}
    assert positions == {"edge-001": 3776263116993261, "edge-002": 870318732993163, "a": 749148223489649}
    assert all(int(float(score(f"n{number}"))) == score(f"n{number}") < 2**52 for number in range(1000))


def test_names_that_differ_in_one_digit_are_spread_over_the_ring() -> None:
    tenths = [0] * 10
    for number in range(1000):
        tenths[score(f"edge-{number:04d}") * 10 >> 52] += 1
    assert min(tenths) > 70
    assert max(tenths) < 130
    assert abs(score("edge-001") - score("edge-002")) > 2**44


def test_members_are_encoded_highest_score_first() -> None:
    parts = scored_members({"edge-001", "edge-002", "a"}).split(" ")
    assert sorted(parts[1::2]) == ["a", "edge-001", "edge-002"]
    assert [int(position) for position in parts[::2]] == sorted((score(name) for name in parts[1::2]), reverse=True)
    assert scored_members(()) == ""
