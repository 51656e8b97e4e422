"""Nodes with limits in a real Redis, and their slots in use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.redis_fixture_lookup import KEYS, claimed_writer

from hotpool.core.capacity import NodeLimits, ReadyService
from hotpool.core.model import Endpoint
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

SLOTS, SLOT_ENTRIES, SLOT_EXPIRIES = KEYS.slots


@dataclass(frozen=True)
class Limits:
    """Limits of one node. `services`: (type, id) to the limit, None for none. `types`: type to the limit of all."""

    services: Mapping[tuple[str, str], int | None]
    types: Mapping[str, int] = field(default_factory=dict)
    endpoints: bool = True

    def document(self, name: str) -> NodeDocument:
        """Return the document of a node with these services."""
        ready = {ReadyService(*service): limit for service, limit in self.services.items()}
        limited = bool(self.types) or any(limit is not None for limit in self.services.values())
        places = [Endpoint(item.service, item.type, 6007, ("10.0.3.7",)) for item in ready] if self.endpoints else []
        text = encode_endpoints(places, NodeLimits(ready, self.types) if limited else None)
        kinds = sorted({item.type for item in ready})
        states = ((kind, True, None, tuple(item.service for item in ready if item.type == kind)) for kind in kinds)
        return NodeDocument(name, tuple(states), text)


def asr(limit: int | None) -> Limits:
    """Return a node with one service `fw` of type asr."""
    return Limits({("asr", "fw"): limit})


async def write_fleet(
    client: Client,
    nodes: Mapping[str, Limits],
    types: tuple[str, ...] = ("asr",),
    *,
    suspect: Collection[str] = (),
    exceptions: Mapping[str, str] | None = None,
) -> RedisWriter:
    """Write the pool zh-en of these nodes."""
    writer = await claimed_writer(client)
    for name, limits in nodes.items():
        await writer.replace_node(limits.document(name))
    members = frozenset(nodes.keys() - set(suspect)), frozenset(suspect), frozenset[str]()
    services = PoolServices(types, filtered=exceptions is not None, exceptions=exceptions or {})
    await writer.replace_pool(PoolDocument("zh-en", "u1", None, None, *members, services=services))
    await writer.stamp(complete=True)
    return writer


async def slots_in_use(client: Client) -> dict[str, int]:
    """Return `node service` to the number of slots in use."""
    flat = await client.execute_command("HGETALL", SLOTS)
    items = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {field.decode(): int(number) for field, number in items}
