"""Use of pools from what Redis holds (E9)."""

from __future__ import annotations

import pytest

from hotpool.projection.documents import PoolDocument, PoolServices
from hotpool.projection.use import FleetSlots, parse_refused, parse_slots

NODES = {
    "a": "asr|fw|6007|http|10.0.0.1|4 asr|vosk|6008||10.0.0.1|2 tts|kokoro|||",
    "b": "asr|fw|6007||10.0.0.2|4 asr|vosk|6008||10.0.0.2 asr|3",
    "c": "asr|fw|6007||10.0.0.3",
    "d": "tts|kokoro|6009||10.0.0.4|8",
}
SLOTS = parse_slots(["a fw", "3", "a vosk", "1", "a gone", "7", "b fw", "2", "c fw", "5", "d kokoro", "6", "x fw", "9"])


def fleet() -> FleetSlots:
    found = FleetSlots()
    for name, text in NODES.items():
        found.update(name, text)
    return found


def use_of(slots: FleetSlots, document: PoolDocument) -> dict[str, tuple[int, int | None]]:
    return {
        kind: (slots.in_use(SLOTS, kind).of_pool(document), slots.total(document, kind))
        for kind in document.services.types
    }


def pool(*ready: str, suspect: str = "", draining: str = "", types: str = "asr", **exceptions: str) -> PoolDocument:
    services = PoolServices(tuple(types.split()), filtered=bool(exceptions), exceptions=exceptions)
    sets = frozenset(ready), frozenset(suspect), frozenset(draining)
    return PoolDocument("p", "u", None, None, *sets, services=services)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (pool("a"), {"asr": (4, 6)}),
        (pool("a", "b"), {"asr": (6, 9)}),  # a limit of the type where a service has none
        (pool("a", suspect="b"), {"asr": (6, 9)}),
        (pool("a", draining="b"), {"asr": (4, 6)}),
        (pool("a", "c"), {"asr": (9, None)}),  # a member without a limit
        (pool("a", "unknown"), {"asr": (4, None)}),
        (pool("a", types="asr tts"), {"asr": (4, 6), "tts": (0, None)}),
        (pool("a", "b", a="vosk"), {"asr": (3, 5)}),  # a service that fails the pool
        (pool("a", "b", b="vosk"), {"asr": (4, 9)}),
        (pool("a", "b", a="-"), {"asr": (2, 3)}),
        (pool("a", types=""), {}),
        (pool(), {"asr": (0, 0)}),
    ],
)
def test_slots_are_those_of_the_services_that_meet_the_pool(
    document: PoolDocument, expected: dict[str, tuple[int, int | None]]
) -> None:
    assert use_of(fleet(), document) == expected


def test_a_changed_or_deleted_node_changes_the_total() -> None:
    found = fleet()
    found.update("a", NODES["a"].replace("|4", "|1"))
    assert use_of(found, pool("a")) == {"asr": (4, 3)}
    found.keep(["b", "c", "d"])
    assert use_of(found, pool("a")) == {"asr": (0, None)}


def test_replies_of_redis_are_parsed_and_garbage_is_left_out() -> None:
    assert parse_slots(["a fw", "1", "a", "2", "a vosk", "none"]) == {"a": {"fw": 1}}
    flat = [b"Full {h:s}:pool:zh-en", 3, "Stale {h:s}:pool:de", 1]
    assert parse_refused("{h:s}:pool:", flat) == {("zh-en", "Full"): 3, ("de", "Stale"): 1}
