"""Text from outside the agent (requirement A12)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.untrusted_text import parse_json, readable, representable

any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from("\ud83c\udfc6\0"), max_size=50)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gold", "gold"),
        ("gold 🏆", "gold 🏆"),
        ("gold \ud83c\udfc6", "gold 🏆"),
        ("gold \ud83c", None),
        ("\udfc6\ud83c", None),
        ("a\0b", None),
    ],
)
def test_surrogate_pairs_are_joined_and_halves_and_nul_are_refused(text: str, expected: str | None) -> None:
    assert representable(text) == expected


@given(any_text)
def test_any_text_is_representable_or_refused(text: str) -> None:
    result = representable(text)
    assert result is None or "\0" not in result.encode().decode()


@given(any_text, st.integers(0, 60))
def test_any_text_becomes_readable_within_the_limit(text: str, limit: int) -> None:
    shown = readable(text, limit)
    assert len(shown) <= limit
    assert shown.encode().decode() == shown


def test_readable_text_keeps_all_but_the_invalid_characters() -> None:
    assert readable("a\ud83dx\udc00\ud83c\udfc6\0", 10) == "a\ufffdx\ufffd🏆\ufffd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"\\ud83c\\udfc6"', "🏆"),
        ('{"\\ud83c": "\\udfc6"}', {"\ufffd": "\ufffd"}),
        ("[NaN, Infinity, -Infinity, 1e999, 1.5]", [None, None, None, None, 1.5]),
        (f"[{'9' * 5000}, {'9' * 64}]", [None, int("9" * 64)]),
    ],
)
def test_json_is_parsed_to_values_that_can_be_written_again(text: str, expected: object) -> None:
    assert parse_json(text) == parse_json(text.encode()) == expected


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "{", "\ud83c"])
def test_json_that_cannot_be_parsed_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@given(st.binary(max_size=50))
def test_any_bytes_are_json_or_a_value_error(data: bytes) -> None:
    try:
        value = parse_json(data)
    except ValueError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
