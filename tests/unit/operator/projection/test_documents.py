"""Documents and their digests (E1, E2, E3)."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.capacity import NodeLimits, ReadyService
from hotpool.core.model import Endpoint
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints, encode_services
from hotpool.projection.keys import STATES

POOL = PoolDocument("zh-en", "u1", "speech", "zh-en", frozenset("ab"), frozenset("c"), frozenset("d"))
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)), ("tts", False, "Stopped", ())))


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
        {"services": PoolServices(("asr",))},
        {"services": PoolServices(("asr", "nmt"), filtered=True)},
        {"services": PoolServices(("asr", "nmt"), endpoint_required=True)},
        {"services": PoolServices(("asr", "nmt"), exceptions={"a": "fw"})},
    ],
)
def test_every_part_of_a_pool_is_in_its_digest(change: dict[str, object]) -> None:
    values = {field.name: getattr(POOL, field.name) for field in dataclasses.fields(POOL) if field.init}
    assert PoolDocument(**{**values, **change}).digest != POOL.digest
    assert PoolDocument(**values).digest == POOL.digest


def test_digests_are_the_same_in_every_process() -> None:
    assert (POOL.digest, NODE.digest) == ("b7896dcb6cb9dc5e309cc1a2", "2058dc42bdd2f0025d3f5296")


def test_a_nodes_digest_ignores_the_order_of_types_only() -> None:
    assert NodeDocument("edge-1", NODE.capabilities[::-1]).digest == NODE.digest
    changed = (("asr", True, None, ("other",)), NODE.capabilities[1])
    assert NodeDocument("edge-1", changed).digest != NODE.digest
    assert NodeDocument("edge-1", NODE.capabilities[:1]).digest != NODE.digest
    assert NodeDocument("edge-1", NODE.capabilities, "asr|fw|6007||10.0.3.7").digest != NODE.digest


def test_endpoints_are_encoded_in_the_order_of_type_and_service() -> None:
    found = [
        Endpoint("m", "nmt", 5008, ("10.0.3.7",)),
        Endpoint("fw-2", "asr", 6008, ("10.0.3.7",), (), "kubernetes.io/ws"),
        Endpoint("fw", "asr", 6007, ("10.0.3.7", "fd00::7"), ("10.0.3.7",), "http"),
    ]
    encoded = "asr|fw|6007|http|10.0.3.7,fd00::7 asr|fw-2|6008|kubernetes.io/ws|10.0.3.7 nmt|m|5008||10.0.3.7"
    assert encode_endpoints(found) == encoded
    assert encode_endpoints([]) == ""


def test_limits_follow_the_addresses_of_services_and_the_services_of_a_node() -> None:
    """Readers of five fields skip both: a service without an endpoint has no port, a limit of a type two fields."""
    found = [Endpoint("fw", "asr", 6007, ("10.0.3.7",), (), "http"), Endpoint("m", "nmt", 5008, ("10.0.3.7",))]
    services = {ReadyService("asr", "fw"): 8, ReadyService("asr", "x"): 2, ReadyService("nmt", "m"): None}
    limits = NodeLimits({**services, ReadyService("tts", "p"): None}, {"nmt": 3, "asr": 4})
    assert encode_endpoints(found, limits).split(" ") == [
        "asr|fw|6007|http|10.0.3.7|8",
        "asr|x||||2",
        "nmt|m|5008||10.0.3.7",
        "tts|p|||",
        "asr|4",
        "nmt|3",
    ]


@pytest.mark.parametrize("protocol", ["a b", "a|b", "a\nb"])
def test_a_protocol_that_would_break_the_encoding_is_left_out(protocol: str) -> None:
    assert encode_endpoints([Endpoint("fw", "asr", 6007, ("10.0.3.7",), (), protocol)]) == "asr|fw|6007||10.0.3.7"


def test_no_service_is_encoded_as_a_hyphen() -> None:
    assert (encode_services(("fw", "fw-2")), encode_services(())) == ("fw,fw-2", "-")


def test_a_change_has_the_exceptions_that_are_new_changed_or_gone() -> None:
    before = dataclasses.replace(POOL, services=PoolServices(("asr",), exceptions={"a": "fw", "b": "fw", "c": "fw"}))
    after = dataclasses.replace(POOL, services=PoolServices(("asr",), exceptions={"a": "fw", "b": "-", "d": "x"}))
    change = after.change_from(before)
    assert (change.exceptions, change.size) == ({"b": "-", "d": "x"}, 3)
    assert change.dropped == {"c"}
    assert not change.grows


def test_a_type_is_json_with_ready_reason_and_services() -> None:
    fields = {kind: json.loads(value) for kind, value in NODE.fields().items()}
    assert fields == {
        "asr": {"ready": True, "reason": None, "services": ["fw"]},
        "tts": {"ready": False, "reason": "Stopped", "services": []},
    }


def test_a_type_cannot_replace_the_facts() -> None:
    assert NodeDocument("edge-1", ((".facts", True, None, ()),)).fields() == {}


SETS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(STATES))


def make_pool(states: dict[str, str], former: PoolDocument | None = None) -> PoolDocument:
    ready, suspect, draining = (frozenset(n for n, state in states.items() if state == wanted) for wanted in STATES)
    return PoolDocument("p", "u", None, None, ready, suspect, draining, former)


@given(before=SETS, after=SETS)
def test_a_document_derived_from_a_former_one_equals_one_built_directly(
    before: dict[str, str], after: dict[str, str]
) -> None:
    former, direct = make_pool(before), make_pool(after)
    derived = make_pool(after, former)
    assert derived == direct
    assert (derived.members, derived.sums) == (direct.members, direct.sums)
    for ours, theirs in zip(derived.members, former.members, strict=True):
        assert ours != theirs or ours is theirs, "unchanged sets are shared"


@given(before=SETS, after=SETS)
def test_a_change_turns_one_document_into_the_other(before: dict[str, str], after: dict[str, str]) -> None:
    former, document = make_pool(before), make_pool(after)
    change = document.change_from(former)
    parts = zip(former.members, change.added, change.removed, strict=True)
    assert tuple((members - gone) | new for members, new, gone in parts) == document.members
    assert all(
        not members & new and gone <= members
        for members, new, gone in zip(former.members, change.added, change.removed, strict=True)
    )
    assert change.grows is (len(after) > len(before))
