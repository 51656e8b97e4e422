"""Parsers of replies, and URLs of picked services (E7)."""

from __future__ import annotations

import pytest

from hotpool.lookup import Counts, Endpoint, NoMember, Picked, Reason
from hotpool.projection.lookup.results import has_limit, parse_pick

REPLY = "edge-1 Ready 7 11 1"


def picked(words: str) -> Picked:
    answer = parse_pick("zh-en", f"{REPLY} {words}".rstrip().encode())
    assert isinstance(answer, Picked)
    return answer


def test_a_pick_without_a_node_is_false_in_a_condition() -> None:
    without = parse_pick("zh-en", b"- Empty 7 11 1 0 0 0 0 0")
    assert isinstance(without, NoMember)
    assert not without
    assert picked("")


def test_services_are_grouped_by_type_with_the_picked_one_first() -> None:
    answer = picked("asr|fw-2|6008|grpc|fd00::7,10.0.3.7 asr|fw|6007||10.0.3.7 nmt|m|5008|http|10.0.3.7")
    assert answer.endpoints == {
        "asr": (Endpoint("fd00::7", 6008, "grpc", "fw-2"), Endpoint("10.0.3.7", 6007, None, "fw")),
        "nmt": (Endpoint("10.0.3.7", 5008, "http", "m"),),
    }


def test_a_reply_without_services_has_no_endpoints_and_is_hashable() -> None:
    assert picked("").endpoints == {}
    assert len({picked(""), picked("asr|fw|6007||10.0.3.7")}) == 2


def test_fields_of_a_later_library_are_ignored() -> None:
    assert picked("asr|fw|6007||10.0.3.7|8|later").endpoints["asr"] == (Endpoint("10.0.3.7", 6007, None, "fw"),)


def test_picks_of_one_node_share_nothing_that_can_be_changed() -> None:
    answer = picked("asr|fw|6007||10.0.3.7")
    assert isinstance(answer.endpoints, dict)
    answer.endpoints.clear()
    assert "asr" in picked("asr|fw|6007||10.0.3.7").endpoints


@pytest.mark.parametrize("services", ["", "asr|fw|6007||10.0.3.7 "])
def test_the_announcement_of_a_trial_is_no_service(services: str) -> None:
    assert picked(f"{services}trial") == picked(services)


def test_the_expiry_of_a_reservation_precedes_the_services() -> None:
    answer = parse_pick("zh-en", f"{REPLY} 1795749543914 asr|fw|6007||10.0.3.7", "id")
    assert isinstance(answer, Picked)
    assert answer.reservation is not None
    assert answer.reservation.expires == 1795749543.914
    assert answer.url("asr") == "http://10.0.3.7:6007"


@pytest.mark.parametrize(
    ("word", "arguments", "url"),
    [
        ("asr|fw|6007||10.0.3.7", (), "http://10.0.3.7:6007"),
        ("asr|fw|6007||10.0.3.7", ("ws", "/stream"), "ws://10.0.3.7:6007/stream"),
        ("asr|fw|6007||fd00::7", ("ws", "/stream"), "ws://[fd00::7]:6007/stream"),
        ("asr|fw|6007||::1", ("https", "v1/health?deep=1"), "https://[::1]:6007/v1/health?deep=1"),
    ],
)
def test_a_url_encloses_an_ipv6_address_in_brackets(word: str, arguments: tuple[str, ...], url: str) -> None:
    assert picked(word).url("asr", *arguments) == url


def test_a_url_of_a_type_without_endpoint_names_the_option_that_asks_for_one() -> None:
    with pytest.raises(LookupError, match=r"node edge-1 has no endpoint of type tts: pick with types=\['tts'\]"):
        picked("asr|fw|6007||10.0.3.7").url("tts")


def test_members_without_an_endpoint_are_counted() -> None:
    answer = parse_pick("zh-en", "- NoEndpoint 7 11 1 3 1 2 1 3")
    counts = Counts(members=6, ready=3, suspect=1, draining=2, excluded=1, no_endpoint=3)
    assert answer == NoMember("zh-en", Reason.NO_ENDPOINT, counts, 0.011, complete=True)


@pytest.mark.parametrize("word", ["x", "asr|fw|6007|", "asr|fw|port||10.0.3.7"])
def test_an_invalid_service_is_an_invalid_reply(word: str) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        picked(word)


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ("", False),
        (" asr|fw|6007||10.0.3.7 nmt|m|5008|http|10.0.3.7", False),
        (" asr|fw|6007||10.0.3.7 nmt|m|5008|http|10.0.3.7|4", True),
        (" asr|x||||2", True),
    ],
)
def test_a_reply_shows_whether_a_service_has_a_limit(services: str, expected: bool) -> None:  # noqa: FBT001
    reply = f"edge-1 Ready 1 11 1{services}"
    assert has_limit(reply) == has_limit(reply.encode()) == expected
    assert has_limit(f"edge-1 Ready 1 11 1 1795749543914{services}", 6) == expected
    assert not has_limit("- Full 1 11 1 3 0 0 0 0 3 6 6 1000")
