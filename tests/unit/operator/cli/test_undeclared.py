"""Words that no service declares (requirement D2)."""

from typing import Any

import pytest
from tests.support.builders import pool, report, service, valid

from hotpool.cli.undeclared import undeclared

NODES = [
    valid(
        report(
            service("w", "asr", model="large-v3", attributes=[{"key": "tier", "values": ["gold"]}]),
            {**service("x", "asr", attributes=[{"key": "tier", "values": ["silver"]}]), "state": "Stopped"},
            service("q", "llm", languages=["zh"]),
        )
    ).services
]


def of(**required: Any) -> tuple[str, ...]:
    types = [{"type": required.pop("type", "asr"), "attributes": [required] if required else []}]
    return undeclared(pool("p", requires={"types": types}), NODES)


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        ({}, ()),
        ({"key": "tier", "anyOf": ["gold", "silver"]}, ()),
        ({"key": "model", "anyOf": ["large-v3"]}, ()),
        ({"key": "tier", "anyOf": ["golden"]}, ("no asr service declares tier golden; similar: gold",)),
        ({"key": "tear", "allOf": ["gold"]}, ("no asr service declares tear; similar: tier",)),
        ({"key": "price", "allOf": ["low"]}, ("no asr service declares price; declared are model, tier",)),
        ({"type": "asrr"}, ("no node has a service of type asrr; similar: asr",)),
        ({"type": "llm", "key": "languages", "anyOf": ["zh-cn"]}, ()),
    ],
)
def test_a_word_that_no_service_declares_is_named(required: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert of(**required) == expected


def test_nothing_is_said_of_a_fleet_without_services() -> None:
    assert undeclared(pool("p", requires={"types": [{"type": "asr"}]}), []) == ()
