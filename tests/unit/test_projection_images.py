"""Images and their digests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hotpool.projection.images import NodeImage, PoolImage

POOL = PoolImage("zh-en", "u1", "speech", "zh-en", frozenset("ab"), frozenset("c"), frozenset("d"))
NODE = NodeImage("edge-1", (("asr", True, None, ("fw",)), ("tts", False, "Stopped", ())))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "en-zh"},
        {"uid": "u2"},
        {"generator": None, "key": None},
        {"key": "zh-de"},
        {"ready": frozenset("a")},
        {"ready": frozenset("abc"), "suspect": frozenset()},
        {"suspect": frozenset("d"), "draining": frozenset("c")},
        {"draining": frozenset()},
    ],
)
def test_e1_every_part_of_a_pool_is_in_its_digest(change: dict[str, object]) -> None:
    values = {field.name: getattr(POOL, field.name) for field in dataclasses.fields(POOL) if field.init}
    assert PoolImage(**{**values, **change}).digest != POOL.digest
    assert PoolImage(**values).digest == POOL.digest


def test_e1_digests_are_the_same_in_every_process() -> None:
    assert (POOL.digest, NODE.digest) == ("386c8eec330166fd5870205b", "19ad88353a519ce28ede6d38")


def test_e1_a_nodes_digest_ignores_the_order_of_types_only() -> None:
    assert NodeImage("edge-1", NODE.capabilities[::-1]).digest == NODE.digest
    changed = (("asr", True, None, ("other",)), NODE.capabilities[1])
    assert NodeImage("edge-1", changed).digest != NODE.digest
    assert NodeImage("edge-1", NODE.capabilities[:1]).digest != NODE.digest


def test_e3_a_type_is_json_with_ready_reason_and_services() -> None:
    fields = {kind: json.loads(value) for kind, value in NODE.fields().items()}
    assert fields == {
        "asr": {"ready": True, "reason": None, "services": ["fw"]},
        "tts": {"ready": False, "reason": "Stopped", "services": []},
    }


def test_e3_a_type_cannot_take_the_place_of_the_facts() -> None:
    assert NodeImage("edge-1", ((".facts", True, None, ()),)).fields() == {}
