"""Arguments of failure reports (E8)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hotpool.lookup import Endpoint, Picked, Reservation
from hotpool.projection.lookup.report_options import check_source, default_source, outcome_arguments, outcome_of
from hotpool.projection.lookup.results import parse_pick

ASR = Endpoint("10.0.3.7", 6007, "http", "fw")
SECOND = Endpoint("10.0.3.7", 6008, None, "second")
TTS = Endpoint("fd00::7", 7000, None, "voice")


def picked(**endpoints: Any) -> Picked:
    return Picked("edge-1", "Ready", "zh-en", 1, 0.0, complete=True, endpoints=endpoints)


def test_the_picked_service_of_each_type_is_reported() -> None:
    found = outcome_arguments("one", picked(asr=(ASR, SECOND), tts=(TTS,)), "error", None)
    assert found[:4] == ("one", "zh-en", "error", "edge-1")
    services = {found[first : first + 3] for first in range(4, len(found), 3)}
    assert services == {("fw", 6007, "10.0.3.7"), ("voice", 7000, "fd00::7")}
    assert outcome_arguments("one", picked(asr=(ASR,), tts=(TTS,)), "error", ["tts"])[4:] == ("voice", 7000, "fd00::7")


def test_a_service_of_two_types_is_reported_once() -> None:
    assert outcome_arguments("one", picked(asr=(ASR,), nmt=(ASR,)), "success", None)[4:] == ("fw", 6007, "10.0.3.7")


def test_a_node_without_endpoints_is_reported_itself() -> None:
    assert outcome_arguments("one", picked(), "error", None)[4:] == ("-",)


@pytest.mark.parametrize(
    ("given", "types", "error"),
    [
        ("some-id", None, TypeError),
        (Reservation("id", "edge-1", 0.0), None, TypeError),
        (picked(asr=(ASR,)), "asr", TypeError),
        (picked(asr=(ASR,)), ["tts"], LookupError),
        (picked(), ["asr"], LookupError),
    ],
)
def test_invalid_arguments_are_refused(given: Any, types: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        outcome_arguments("one", given, "error", types)


def test_outcomes_and_sources() -> None:
    assert [outcome_of("unreachable"), outcome_of("error"), outcome_of(False)] == ["unreachable", "error", "success"]
    with pytest.raises(ValueError, match="must be unreachable or error"):
        outcome_of("success")  # type: ignore[arg-type]
    assert check_source(default_source()).endswith(f"/{os.getpid()}")


def test_a_due_trial_is_no_endpoint() -> None:
    answer = parse_pick("zh-en", b"edge-1 Ready 3 5 1 asr|fw|6007|http|10.0.3.7 trial")
    assert isinstance(answer, Picked)
    assert answer.endpoints == {"asr": (ASR,)}
    answer = parse_pick("zh-en", "edge-1 Ready 3 5 1 trial")
    assert isinstance(answer, Picked)
    assert answer.endpoints == {}
