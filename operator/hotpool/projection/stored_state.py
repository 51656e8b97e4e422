"""Reads of the stored projection. Keys of a wrong type or content read as empty, never as an error."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from hotpool.projection.accepted_writes import WriteStamp
from hotpool.projection.connection.config import to_text
from hotpool.projection.documents import PoolDocument
from hotpool.projection.drift_rotation import POOLS_PER_CALL, RANKS_PER_CALL
from hotpool.projection.functions import Functions
from hotpool.projection.keys import STATES, FleetKeys

NODES_PER_CALL = 50
_SAFE_DIGITS = 15


def chunks(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of at most `size` names."""
    remaining = iter(names)
    while chunk := list(islice(remaining, size)):
        yield chunk


def parse_number(value: object) -> int | None:
    """Return a non-negative integer of at most 15 digits that Redis stores as text, or None."""
    plain = to_text(value)
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= _SAFE_DIGITS else None


def parse_stamp(term: object, version: object, digest: object) -> WriteStamp | None:
    """Return the stamp of a stored write, or None if it is damaged."""
    numbers = parse_number(term), parse_number(version)
    return None if numbers[0] is None or numbers[1] is None else WriteStamp(numbers[0], numbers[1], to_text(digest))


def parse_node_stamp(facts: object) -> WriteStamp | None:
    """Return the stamp of a stored node, `term version digest`, or None if it is damaged."""
    parts = to_text(facts).split(" ")
    return parse_stamp(*parts) if len(parts) == len(WriteStamp.__slots__) else None


async def scan(functions: Functions, kind: str, key: str) -> list[str]:
    """Return the elements of a set or hash. Elements that are written meanwhile may be missing."""
    return await scan_on(functions, kind, key, await functions.read("part", (key,), (kind, "0")))


async def scan_on(functions: Functions, kind: str, key: str, page: Sequence[Any]) -> list[str]:
    """Return the elements of a page, cursor and elements, and of all that follow."""
    found: list[str] = []
    while True:
        cursor = to_text(page[0])
        found += map(_decode_name, page[1])
        if cursor == "0":
            return found
        page = await functions.read("part", (key,), (kind, cursor))


async def read_digests(functions: Functions, keys: FleetKeys) -> tuple[dict[str, str], dict[str, str]]:
    """Return name → digest of the last write of each pool and of each node; empty for a damaged one."""
    pools: dict[str, str] = {}
    for names in chunks(await scan(functions, "set", keys.pools), POOLS_PER_CALL):
        replies = await functions.read("pool_facts", [key for name in names for key in keys.pool(name)])
        pools |= {name: to_text(facts[3]) for name, facts in zip(names, replies, strict=True)}
    nodes: dict[str, str] = {}
    for names in chunks(await scan(functions, "set", keys.nodes), NODES_PER_CALL):
        reply = await functions.read("node_facts", [keys.node(name) for name in names], names)
        stamps = map(parse_node_stamp, reply[::3])
        nodes |= {name: stamp.digest if stamp else "" for name, stamp in zip(names, stamps, strict=True)}
    return pools, nodes


async def read_pool(
    functions: Functions, keys: FleetKeys, document: PoolDocument
) -> tuple[WriteStamp, PoolDocument] | None:
    """Return stamp and content of the stored pool of that name, with generator and key of the document, no services.

    Return None if there is none, if it is damaged, or if it changes during the read.
    """
    names = keys.pool(document.name)
    (facts,) = await functions.read("pool_facts", names)
    stamp, sizes = parse_stamp(*facts[1:4]), [parse_number(size) for size in facts[7:10]]
    members: list[set[str]] = [set() for _ in STATES]
    for first in range(0, max(size or 0 for size in sizes), RANKS_PER_CALL):
        ((*stored, ready, suspect, draining),) = await functions.read(
            "pool_contents", names, (first, first + RANKS_PER_CALL - 1)
        )
        if parse_stamp(*stored) != stamp:
            return None
        for state, items in zip(members, (ready, suspect, draining), strict=True):
            state.update(map(to_text, items))
    if stamp is None or sizes != [len(state) for state in members]:
        return None
    sets: Any = map(frozenset, members)
    return stamp, PoolDocument(document.name, to_text(facts[0]), document.generator, document.key, *sets)


def _decode_name(value: object) -> str:
    """Decode a name. Invalid UTF-8 is kept as surrogates, because the key must be deleted under its exact name."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
