"""What Redis really holds, compared with what it should hold (E1): the names to write again and those to drop.

Facts and counts are compared each time, contents in turn. It only reads, and must not repair anything: the mirror
decides when to write. Keys of a wrong type or content count as different, never as an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hotpool.projection.accepted_writes import WriteStamp
from hotpool.projection.connection.config import to_text
from hotpool.projection.functions import source
from hotpool.projection.keys import STATES, entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hotpool.projection.accepted_writes import AcceptedWrites
    from hotpool.projection.documents import NodeDocument, PoolDocument
    from hotpool.projection.functions import Functions
    from hotpool.projection.keys import FleetKeys

POOLS_PER_CALL = 50
NODES_PER_CALL = 50
NODES_PER_ROUND = 200
MEMBERS_PER_ROUND = 5_000
"""Members read and compared one by one in each audit; 1.3 million have had their turn after 22 minutes."""
RANKS_PER_CALL = 500
"""Of all member sets of a call together, or of each where a pool is larger: while Redis reads it answers nobody."""
_SAFE_DIGITS = 15


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What differs. All empty and `claimed`: Redis holds what it should.

    `claimed`: Redis knows our term. `pools`, `nodes`: names to write again. `stray_*`: names in Redis that nobody
    gave, to drop; `stray_index`: fields of the index that point nowhere.
    """

    claimed: bool
    pools: frozenset[str]
    stray_pools: frozenset[str]
    stray_index: frozenset[str]
    nodes: frozenset[str]
    stray_nodes: frozenset[str]

    @property
    def clean(self) -> bool:
        """Tell whether nothing is to be done."""
        return self.claimed and not (
            self.pools or self.stray_pools or self.stray_index or self.nodes or self.stray_nodes
        )


@dataclass(frozen=True, slots=True)
class _Overview:
    term: int | None
    pools: frozenset[str]
    nodes: frozenset[str]
    index: dict[str, str]


def _chunks(names: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(names)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _small_enough(pools: Mapping[str, PoolDocument]) -> Iterator[list[str]]:
    """Yield names of pools that have together at most RANKS_PER_CALL members, or one name."""
    names: list[str] = []
    members = 0
    for name, image in pools.items():
        members += sum(map(len, image.members))
        if names and (members > RANKS_PER_CALL or len(names) == POOLS_PER_CALL):
            yield names
            names, members = [], sum(map(len, image.members))
        names.append(name)
    if names:
        yield names


def whole(value: object) -> int | None:
    """Return a number that Redis kept as text, or None for what is none."""
    plain = to_text(value)
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= _SAFE_DIGITS else None


def _mark(term: object, version: object, digest: object) -> WriteStamp | None:
    numbers = whole(term), whole(version)
    return None if numbers[0] is None or numbers[1] is None else WriteStamp(numbers[0], numbers[1], to_text(digest))


class Rotation:
    """Whose contents are read next: everybody's in turn."""

    def __init__(self) -> None:
        self._pools: list[str] = []
        self._nodes: list[str] = []

    def pools(self, wanted: Mapping[str, PoolDocument]) -> list[str]:
        """Return pools that have together at most MEMBERS_PER_TURN members, at least one pool."""
        self._pools = self._pools or list(wanted)
        chosen: list[str] = []
        members = 0
        while self._pools:
            image = wanted.get(self._pools[-1])
            members += sum(map(len, image.members)) if image else 0
            if chosen and members > MEMBERS_PER_ROUND:
                break
            name = self._pools.pop()
            chosen += [name] if image else []
        return chosen

    def nodes(self, wanted: Mapping[str, NodeDocument]) -> list[str]:
        """Return at most NODES_PER_TURN nodes."""
        self._nodes = self._nodes or list(wanted)
        chosen, self._nodes = self._nodes[-NODES_PER_ROUND:], self._nodes[:-NODES_PER_ROUND]
        return [name for name in chosen if name in wanted]


class DriftCheck:
    """One comparison; make a new one each time."""

    def __init__(
        self,
        functions: Functions,
        keys: FleetKeys,
        pool_ledger: AcceptedWrites,
        node_ledger: AcceptedWrites,
        turns: Rotation,
    ) -> None:
        self._rotation = turns
        self._functions = functions
        self._keys = keys
        self._pool_ledger = pool_ledger
        self._node_ledger = node_ledger
        self._foreign: set[str] = set()
        """Pools of which Redis does not hold the write that this process knows of."""

    async def run(self, term: int, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> DriftReport:
        """Compare. Names that this process writes meanwhile are left out. Errors of redis pass through."""
        pools, nodes = dict(pools), dict(nodes)
        with self._pool_ledger.recording() as busy_pools, self._node_ledger.recording() as busy_nodes:
            found = await self._overview()
            bad_pools = await self._pools(pools, found)
            bad_nodes = await self._nodes(nodes, found)
            bad_pools |= await self._pool_contents({name: pools[name] for name in self._rotation.pools(pools)})
            bad_nodes |= await self._node_contents({name: nodes[name] for name in self._rotation.nodes(nodes)})
            for name in self._foreign - busy_pools:
                self._pool_ledger.doubt(name)
            return DriftReport(
                claimed=found.term == term,
                pools=frozenset(bad_pools - busy_pools),
                stray_pools=found.pools.difference(pools, busy_pools),
                stray_index=_stray_index(pools, found.index, busy_pools),
                nodes=frozenset(bad_nodes - busy_nodes),
                stray_nodes=found.nodes.difference(nodes, busy_nodes),
            )

    async def _overview(self) -> _Overview:
        digest, term, *_ = await self._functions.read("overview", (self._keys.meta,))
        if to_text(digest) != source()[1]:
            await self._functions.load(self._keys.meta)
            digest, term = await self._functions.read("overview", (self._keys.meta,))
        index = await self._all("hash", self._keys.index)
        return _Overview(
            term=whole(term),
            pools=frozenset(await self._all("set", self._keys.pools)),
            nodes=frozenset(await self._all("set", self._keys.nodes)),
            index=dict(zip(index[::2], index[1::2], strict=True)),
        )

    async def _all(self, kind: str, key: str) -> list[str]:
        """What a set or hash held all the time, and maybe more: who was written meanwhile is left out anyway."""
        found: list[str] = []
        cursor = "0"
        while True:
            following, some = await self._functions.read("part", (key,), (kind, cursor))
            found += map(_name, some)
            cursor = to_text(following)
            if cursor == "0":
                return found

    async def _pools(self, pools: Mapping[str, PoolDocument], found: _Overview) -> set[str]:
        bad = {name for name, image in pools.items() if not _listed(image, found)}
        for names in _chunks(pools, POOLS_PER_CALL):
            keys = [key for name in names for key in self._keys.pool(name)]
            replies = await self._functions.read("pool_facts", keys)
            bad.update(
                name for name, facts in zip(names, replies, strict=True) if not self._pool_is_right(pools[name], facts)
            )
        return bad

    def _pool_is_right(self, image: PoolDocument, facts: list[Any]) -> bool:
        mark = _mark(facts[1], facts[2], facts[3])
        stated, actual = [whole(fact) for fact in facts[4:7]], [whole(fact) for fact in facts[7:10]]
        if mark:
            self._pool_ledger.learn(mark.version)
        if mark is None or stated != actual:
            self._foreign.add(image.name)
            return False
        right = (
            to_text(facts[0]) == image.uid
            and [len(members) for members in image.members] == actual
            and self._pool_ledger.accepts(image.name, mark, image.digest)
        )
        if right:
            self._pool_ledger.found(image.name, mark)
        elif mark != self._pool_ledger.last_accepted(image.name):
            self._foreign.add(image.name)
        return right

    async def _nodes(self, nodes: Mapping[str, NodeDocument], found: _Overview) -> set[str]:
        bad = {name for name in nodes if name not in found.nodes}
        for names in _chunks(nodes, NODES_PER_CALL):
            reply = await self._functions.read("node_facts", [self._keys.node(name) for name in names])
            facts = zip(names, reply[::2], reply[1::2], strict=True)
            bad.update(name for name, marked, size in facts if not self._node_is_right(nodes[name], marked, size))
        return bad

    def _node_is_right(self, image: NodeDocument, marked: object, size: object) -> bool:
        parts = to_text(marked).split(" ")
        mark = _mark(*parts) if len(parts) == len(WriteStamp.__slots__) else None
        if mark is None:
            return False
        self._node_ledger.learn(mark.version)
        return whole(size) == len(image.fields()) + 1 and self._node_ledger.accepts(image.name, mark, image.digest)

    async def _pool_contents(self, pools: Mapping[str, PoolDocument]) -> set[str]:
        """Pools with the right facts and other members: somebody changed them by hand."""
        bad: set[str] = set()
        for names in _small_enough(pools):
            bad |= await self._changed_by_hand({name: pools[name] for name in names})
        self._foreign |= bad
        return bad

    async def _changed_by_hand(self, pools: Mapping[str, PoolDocument]) -> set[str]:
        largest = max((len(members) for image in pools.values() for members in image.members), default=0)
        keys = [key for name in pools for key in self._keys.pool(name)]
        held: dict[str, list[set[str]]] = {name: [set() for _ in STATES] for name in pools}
        rewritten: set[str] = set()
        for first in range(0, largest + 1, RANKS_PER_CALL):
            replies = await self._functions.read("pool_contents", keys, (first, first + RANKS_PER_CALL - 1))
            for (name, image), (term, version, digest, *sets) in zip(pools.items(), replies, strict=True):
                standing = self._pool_ledger.last_accepted(name)
                if _mark(term, version, digest) != standing or to_text(digest) != image.digest:
                    rewritten.add(name)
                for members, some in zip(held[name], sets, strict=True):
                    members.update(map(to_text, some))
        return {name for name, sets in held.items() if name not in rewritten and sets != list(pools[name].members)}

    async def _node_contents(self, nodes: Mapping[str, NodeDocument]) -> set[str]:
        replies: list[Any] = []
        for names in _chunks(nodes, NODES_PER_CALL):
            replies += await self._functions.read("node_contents", [self._keys.node(name) for name in names])
        bad = set()
        for (name, image), reply in zip(nodes.items(), replies, strict=True):
            words = [to_text(part) for part in reply]
            fields = dict(zip(words[::2], words[1::2], strict=True))
            fields.pop(".facts", None)
            if fields != image.fields():
                bad.add(name)
        return bad


def _name(value: object) -> str:
    """Somebody's garbage need not be UTF-8, and is to be found again under its name."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _listed(image: PoolDocument, found: _Overview) -> bool:
    indexed = not image.generator or found.index.get(entry(image.generator, image.key or "")) == image.name
    return indexed and image.name in found.pools


def _stray_index(pools: Mapping[str, PoolDocument], index: Mapping[str, str], busy: set[str]) -> frozenset[str]:
    wanted = {entry(image.generator, image.key or "") for image in pools.values() if image.generator}
    return frozenset(field for field, name in index.items() if field not in wanted and name not in busy)
