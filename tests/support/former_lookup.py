"""Picks and other calls as clients of the former library send them: words frozen at that release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

_TAG = "{hotpool:speech}:"
_LOAD = (f"{_TAG}load", f"{_TAG}load:entries", f"{_TAG}load:expiries")


def _pool(name: str) -> tuple[str, ...]:
    facts = f"{_TAG}pool:{name}"
    return f"{_TAG}meta", facts, f"{facts}:ready", f"{facts}:suspect"


async def _call(client: Client, verb: str, name: str, keys: tuple[str, ...], *words: Any) -> Any:
    return await client.execute_command(verb, f"hotpool_3_{name}", len(keys), *keys, *words)


async def pick(client: Client, pool: str, *how: Any) -> list[str]:
    """Return the words of the reply."""
    keys = (*_pool(pool), _LOAD[0]) if how[0] == "least-loaded" else _pool(pool)
    reply = await _call(client, "FCALL_RO", "pick", keys, *how)
    return reply.decode().split(" ")  # type: ignore[no-any-return]


async def reserve(client: Client, pool: str, identity: str, *how: Any) -> list[str]:
    """Reserve for a minute. Return the words of the reply."""
    reply = await _call(client, "FCALL", "reserve", (*_pool(pool), *_LOAD), identity, 1, 60_000, *how)
    return reply.decode().split(" ")  # type: ignore[no-any-return]


async def release(client: Client, identity: str) -> int:
    """Return 1, or 0 for an unknown id."""
    return await _call(client, "FCALL", "release", _LOAD, identity)  # type: ignore[no-any-return]


async def report(client: Client, source: str, node: str, weight: float) -> int:
    """Report the load of a node for a minute."""
    return await _call(client, "FCALL", "report", _LOAD, source, 60_000, node, weight)  # type: ignore[no-any-return]


async def members(client: Client, pool: str) -> Any:
    """Return the members by state."""
    return (await _call(client, "FCALL_RO", "members", (*_pool(pool), f"{_TAG}pool:{pool}:draining"), 0))[5:]


async def find(client: Client, field: str) -> str:
    """Return the name of a generated pool."""
    reply = await _call(client, "FCALL_RO", "find", (f"{_TAG}meta", f"{_TAG}index"), field)
    return reply[2].decode()  # type: ignore[no-any-return]


async def capability(client: Client, node: str) -> dict[str, str]:
    """Return type → JSON."""
    flat = (await _call(client, "FCALL_RO", "capability", (f"{_TAG}meta", f"{_TAG}node:{node}")))[2]
    fields = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
    return {name: value for name, value in fields.items() if not name.startswith(".")}


async def claim(client: Client, term: int) -> Any:
    """Claim a term, as an operator of the former release after a rollback."""
    return await _call(client, "FCALL", "claim", (f"{_TAG}meta",), term, "former", "", 60_000)
