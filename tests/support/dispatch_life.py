"""The life of reservations, failure reports and a drain on any kind of server, with either look-up client."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tests.support.capacity_fleet import Limits, write_fleet
from tests.support.redis_fixture_lookup import expect_picked, reason_of

from hotpool.lookup import Lookup, Reason, Reservation, SyncLookup
from hotpool.projection.documents import PoolDocument, PoolServices
from hotpool.projection.use import Use

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

AnyLookup = Lookup | SyncLookup
NODES = frozenset({"a", "b"})
_LIMITS = Limits({("asr", "fw"): 2})


async def answer(result: Any) -> Any:
    """Return the result of a call of either client."""
    return await result if inspect.isawaitable(result) else result


async def hold(lookup: AnyLookup) -> Reservation:
    """Reserve a slot."""
    found = expect_picked(await answer(lookup.pick("zh-en", types=["asr"], reserve=60)))
    assert found.reservation is not None
    return found.reservation


async def begin(client: Client) -> RedisWriter:
    """Write two nodes with two slots each."""
    return await write_fleet(client, dict.fromkeys(NODES, _LIMITS))


async def expect_limits(writer: RedisWriter, lookup: AnyLookup) -> list[Reservation]:
    """Fill all slots, be refused, and see the operator read both. Return the four reservations."""
    held = [await hold(lookup) for _ in range(4)]
    assert reason_of(await answer(lookup.pick("zh-en", types=["asr"], reserve=60))) is Reason.FULL
    assert await answer(lookup.renew(held[0], 60))
    expected = Use({name: {"fw": 2} for name in NODES}, {("zh-en", "Full"): 1})
    assert await writer.stamp(complete=True) == expected
    return held


async def expect_ejection(writer: RedisWriter, lookup: AnyLookup, held: Reservation) -> None:
    """Release a reservation with a failure. The node is picked last until a success."""
    assert await answer(lookup.release(held, failed="unreachable"))
    assert [item.node for item in await writer.ejections()] == [held.node]
    assert [item.node for item in await answer(lookup.ejections())] == [held.node]
    picked = [expect_picked(await answer(lookup.pick("zh-en", types=["asr"]))).node for _ in range(8)]
    assert held.node not in picked
    last = expect_picked(await answer(lookup.pick("zh-en", types=["asr"], exclude=[picked[0]])))
    assert (last.node, last.state) == (held.node, "Ejected")
    assert await answer(lookup.report_success(last)) == "Counted"
    assert await writer.ejections() == ()
    assert await answer(lookup.renew(held, 60)) is None, "it was released"


async def expect_drain(writer: RedisWriter, lookup: AnyLookup, held: list[Reservation]) -> None:
    """Drain a node: it is not picked any more, and its use falls to zero with the last release."""
    node = held[0].node
    [other] = NODES - {node}
    members = frozenset({other}), frozenset[str](), frozenset({node})
    await writer.replace_pool(PoolDocument("zh-en", "u1", None, None, *members, services=PoolServices(("asr",))))
    assert {expect_picked(await answer(lookup.pick("zh-en"))).node for _ in range(8)} == {other}
    own = [one for one in held if one.node == node]
    assert (await writer.read_ledger(0, [node])).in_use == {node: len(own)}
    for one in own:
        assert await answer(lookup.renew(one, 60)), "work on a draining node goes on"
        assert await answer(lookup.release(one, failed=False))
    ledger = await writer.read_ledger(0, [node])
    assert (ledger.in_use, ledger.last_expiry) == ({node: 0}, {})


async def expect_life(client: Client, lookup: AnyLookup) -> None:
    """Go through all of it."""
    writer = await begin(client)
    first, *held = await expect_limits(writer, lookup)
    await expect_ejection(writer, lookup, first)
    await expect_drain(writer, lookup, held)
