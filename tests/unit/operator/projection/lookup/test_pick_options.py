"""Options of a pick, and the packages that a dispatcher needs (E6)."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from hotpool.lookup import Strategy
from hotpool.projection.lookup.pick_options import PickRequest, report_arguments

ONLY_REDIS = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"redis", "hotpool"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
from hotpool.lookup import Lookup, SyncLookup
Lookup.from_url("redis://127.0.0.1", namespace="speech")
SyncLookup.from_url("redis://127.0.0.1", namespace="speech")
try:
    import pydantic
except ModuleNotFoundError:
    print("alone")
"""


def half() -> float:
    return 0.5


def test_the_look_up_needs_only_redis() -> None:
    result = subprocess.run([sys.executable, "-c", ONLY_REDIS], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("alone\n", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("uniform", "0.5")),
        ({"strategy": Strategy.LEAST_LOADED}, ("least-loaded", "0.5")),
        ({"strategy": "affinity", "key": "u"}, ("affinity", "u")),
        ({"key": "u", "exclude": ["a", "b"], "max_age": 1.5}, ("affinity", "u", "", "", 1500, "a", "b")),
        ({"endpoint": True}, ("uniform", "0.5", ":")),
        ({"types": ["asr", "nmt"], "max_age": 2}, ("uniform", "0.5", ":asr,nmt", "", 2000)),
        ({"family": 6, "exclude": ["a"]}, ("uniform", "0.5", "6:", "", "", "a")),
        ({"types": ["asr"], "family": 4, "key": "u"}, ("affinity", "u", "4:asr")),
        ({"endpoint": False}, ("uniform", "0.5")),
        ({"max_age": 0}, ("uniform", "0.5", "", "", 0)),
    ],
)
def test_options_become_the_arguments_of_the_function(options: Any, words: tuple[object, ...]) -> None:
    assert PickRequest.from_options(options, half).arguments("") == words


def test_a_reservation_is_the_first_argument_and_has_its_own_id() -> None:
    requests = [PickRequest.from_options({"reserve": 2.5, "weight": 3}, half) for _ in range(2)]
    assert [request.arguments("speech/zh-en")[1:] for request in requests] == [
        (3, 2500, "uniform", "0.5", "", "speech/zh-en", "")
    ] * 2
    identities = [request.reservation[0] for request in requests if request.reservation]
    assert len(set(identities)) == 2
    assert all(len(identity) == 32 for identity in identities)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "best"},
        {"strategy": "affinity"},
        {"strategy": "affinity", "key": ""},
        {"strategy": "uniform", "key": "u"},
        {"strategy": Strategy.LEAST_LOADED, "key": "u"},
        {"weight": 1},
        {"reserve": 1, "weight": 0},
        {"reserve": 1, "weight": -1},
        {"reserve": 1, "weight": math.nan},
        {"reserve": 1, "weight": math.inf},
        {"reserve": 0},
        {"reserve": -1},
        {"reserve": math.nan},
        {"reserve": 86_401},
        {"max_age": -1},
        {"max_age": math.nan},
        {"max_age": math.inf},
        {"types": []},
        {"types": ["ASR"]},
        {"types": ["a b"]},
        {"types": ["a,b"]},
        {"types": ["a|b"]},
        {"types": [""]},
        {"family": 5},
    ],
)
def test_an_option_out_of_bounds_is_rejected(options: Any) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        PickRequest.from_options(options, half)


@pytest.mark.parametrize("options", [{"exclude": "edge-1"}, {"types": "asr"}, {"stratgy": "uniform"}])
def test_an_unknown_option_and_a_string_for_a_collection_are_rejected(options: Any) -> None:
    with pytest.raises(TypeError):
        PickRequest.from_options(options, half)


def test_a_load_report_is_validated() -> None:
    assert report_arguments({"a": 2, "b": 0}, "one", 1.5) == [("one", 1500, "a", 2, "b", 0)]
    assert report_arguments({}, "one", 1.5) == [("one", 1500)]
    assert [len(words) for words in report_arguments({f"n{number}": 1 for number in range(250)}, "one", 1)] == [
        202,
        202,
        102,
    ]
    for loads, source, seconds in (({"a": -1}, "one", 1), ({"a": math.nan}, "one", 1), ({}, "", 1), ({}, "one", 0)):
        with pytest.raises(ValueError, match=r"\w+"):
            report_arguments(loads, source, seconds)
