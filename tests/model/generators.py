"""Which pools a generator must have made, may have made and must have removed (D5).

Whoever comes first in one cell gets the last place, so the order of admission is checked against each moment of the
cell; everything else is exact.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.model.expected_state import is_paused
from tests.model.membership import keys, meets, observed
from tests.support.simulated_fleet import now

from hotpool.core.model import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.model.simulation import Ground

Json = dict[str, Any]
Key = tuple[str, str]
Counts = dict[Key, int]


@dataclass(slots=True)
class Memory:
    """One generator at the last comparison."""

    uid: str
    generation: int
    pools: dict[Key, str] = field(default_factory=dict)
    """Key → name of its pool."""
    filled: dict[Key, float] = field(default_factory=dict)
    """Key → when its pool was last seen with members."""
    emptied: dict[Key, float] = field(default_factory=dict)
    """Key → when its pool was first seen empty, by the present operator."""
    moments: list[Counts] = field(default_factory=list)
    """The candidates at each moment since."""


class Generators:
    """All generators of a world."""

    def __init__(self, world: "Ground", wrong: "Callable[[str, str], AssertionError]") -> None:
        self.world = world
        self.wrong = wrong
        self.memories: dict[str, Memory] = {}
        self.by_hand: set[str] = set()
        """Names of pools that people deleted since the last comparison."""

        self.unsure = False
        """Since the last comparison a time went by in which an operator could not know of deletions."""
        self.edited: set[str] = set()
        """Names of pools that people edited: while their generator is paused nobody can say whose they are."""

    def deleted(self, name: str) -> None:
        """Somebody deletes a generated pool."""
        self.by_hand.add(name)

    def look(self) -> None:
        """Note the candidates of this moment."""
        bodies = self.world.api.objects[Kind.GENERATOR]
        for name, body in bodies.items():
            uid = body["metadata"]["uid"]
            if name not in self.memories or self.memories[name].uid != uid:
                self.memories[name] = Memory(uid, body["metadata"]["generation"])
        for name, memory in self.memories.items():
            known = bodies.get(name)
            if known and (not memory.moments or memory.moments[-1] != (counts := self._counts(known))):
                memory.moments.append(counts if memory.moments else self._counts(known))

    def compare(self) -> None:
        """Compare all generators with the pools that are there."""
        self.look()
        bodies = self.world.api.objects[Kind.GENERATOR]
        self.memories = {
            name: memory
            for name, memory in self.memories.items()
            if name in bodies and bodies[name]["metadata"]["uid"] == memory.uid
        }
        for name, body in bodies.items():
            memory = self.memories[name]
            pools = self._pools(body)
            if not is_paused(body):
                self._compare(body, memory, pools)
            self._remember(body, memory, pools)
        self.by_hand.clear()
        self.unsure = False
        self._foreign()

    def _foreign(self) -> None:
        """No pool of a generator that is gone."""
        known = {body["metadata"]["uid"] for body in self.world.api.objects[Kind.GENERATOR].values()}
        for name, body in self.world.api.objects[Kind.POOL].items():
            owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()}
            if owners - known:
                raise self.wrong("D5", f"{name} belongs to a generator that is gone")

    def _pools(self, body: Json) -> dict[Key, str]:
        found: dict[Key, str] = {}
        for name, pool in self.world.api.objects[Kind.POOL].items():
            owners = {owner["uid"] for owner in pool["metadata"].get("ownerReferences") or ()}
            if body["metadata"]["uid"] not in owners:
                continue
            made = pool["spec"].get("generated")
            edited = not made or made["by"] != body["metadata"]["name"] or pool["spec"].get("minMembers") == 77
            if edited and not is_paused(body):
                raise self.wrong("D5", f"{name} was edited by hand and not put right: {pool['spec']}")
            if not made:
                continue
            key = (made["kind"], " ".join(_languages(pool)) if made["kind"] == "LanguageSet" else made["key"])
            if key in found:
                raise self.wrong("D5", f"two pools for {key}: {name} and {found[key]}")
            found[key] = name
        return found

    def _counts(self, body: Json) -> Counts:
        """Candidates, and how many nodes would be in each."""
        spec = body["spec"]
        template = ((spec.get("template") or {}).get("spec")) or {}
        empty = not any((template.get("requires") or {}).values())
        pool = {"spec": {**template, "requires": {"matchAll": True}} if empty else template}
        candidates: set[Key] = set()
        joined: list[set[Key]] = []
        for name, life in self.world.truth.lives.items():
            node = self.world.api.objects[Kind.NODE].get(name)
            if node and life.state in {"Live", "Suspect"} and meets(pool, node):
                candidates |= observed(spec["rule"], node["status"]["report"], name)
                joined.append(keys(spec["rule"], node["status"]["report"], name))
        return {key: sum(key in one for one in joined) for key in candidates}

    def _compare(self, body: Json, memory: Memory, pools: dict[Key, str]) -> None:
        name, spec = body["metadata"]["name"], body["spec"]
        counts = memory.moments[-1]
        room = spec.get("maxPools", 200)
        changed = body["metadata"]["generation"] != memory.generation
        fit = {key for key, nodes in counts.items() if nodes >= spec.get("minNodes", 1)}
        if len(pools) > max(room, len(memory.pools)) and not changed:
            raise self.wrong("D5", f"{name}: {len(pools)} pools, {room} at most")
        if len(pools) < room and fit - pools.keys():
            raise self.wrong("D5", f"{name}: there is room, and no pool for {fit - pools.keys()}")
        for key in pools.keys() - memory.pools.keys():
            if pools[key] in self.edited:
                continue
            free = changed or self.unsure
            self._admitted(name, key, memory, fit - pools.keys(), changed=free, least=spec.get("minNodes", 1))
        self._kept(body, memory, pools, changed=changed)
        self._reported(body, counts, pools)

    def _admitted(self, name: str, key: Key, memory: Memory, left: set[Key], *, changed: bool, least: int) -> None:
        moments = memory.moments
        if not any(counts.get(key, 0) >= least for counts in moments) and not changed:
            raise self.wrong("D5", f"{name}: {key} was made for {[m.get(key) for m in moments]} nodes")
        for other in left:
            fair = any(_rank(key, counts) < _rank(other, counts) for counts in moments if key in counts)
            if not fair and not changed:
                raise self.wrong("D5", f"{name}: {key} was admitted before {other}: {moments[-1]}")

    def _kept(self, body: Json, memory: Memory, pools: dict[Key, str], *, changed: bool) -> None:
        """An admitted pool keeps its place until it was empty for the grace time, and no longer."""
        name, grace = body["metadata"]["name"], body["spec"].get("graceSeconds", 600)
        for key, pool in memory.pools.items():
            empty_at_most = now() - memory.filled.get(key, 0.0)
            bound = len(pools) >= body["spec"].get("maxPools", 200)
            few = memory.moments[-1].get(key, 0) < body["spec"].get("minNodes", 1)
            free = changed or (pool in self.by_hand and (bound or few or key in memory.emptied))
            if key not in pools and empty_at_most < grace and not free:
                raise self.wrong("D5", f"{name}: {pool} for {key} is gone, last filled {empty_at_most:.0f} s ago")
            if key in pools and pools[key] != pool:
                raise self.wrong("D6", f"{name}: {key} was {pool}, is {pools[key]}")
        for key, since in memory.emptied.items():
            empty = now() - max(since, self.world.checks.trouble)
            if key in pools and empty > grace + 10 and not self.world.api.members(pools[key]):
                raise self.wrong("D5", f"{name}: {pools[key]} is still there, empty for {empty:.0f} s, grace {grace}")

    def _reported(self, body: Json, counts: Counts, pools: dict[Key, str]) -> None:
        status = body.get("status") or {}
        name = body["metadata"]["name"]
        if status.get("pools") != len(pools):
            raise self.wrong("D5", f"{name}: status says {status.get('pools')} pools, there are {len(pools)}")
        out = counts.keys() - pools.keys()
        if "languageSets" not in body["spec"]["rule"] and status.get("notAdmittedCount") != len(out):
            raise self.wrong("D5", f"{name}: not admitted {status.get('notAdmittedCount')}, the oracle says {out}")

    def _remember(self, body: Json, memory: Memory, pools: dict[Key, str]) -> None:
        moment = now()
        memory.generation = body["metadata"]["generation"]
        for key, pool in pools.items():
            full = bool(self.world.api.members(pool))
            if full:
                memory.filled[key] = moment
            if full or any(key in counts for counts in memory.moments) or is_paused(body):
                memory.emptied.pop(key, None)
            else:
                memory.emptied.setdefault(key, moment)
        memory.emptied = {key: at for key, at in memory.emptied.items() if key in pools}
        memory.pools = pools
        memory.moments = memory.moments[-1:] or [self._counts(body)]

    def restarted(self) -> None:
        """What is empty may be counted from here."""
        for memory in self.memories.values():
            memory.emptied = dict.fromkeys(memory.emptied, now())


def _languages(pool: Json) -> list[str]:
    found = (pool["spec"]["requires"].get("languagePairs") or {}).get("allOf") or ()
    return sorted({code for pair in found for code in pair.split("-")})


def _rank(key: Key, counts: Counts) -> tuple[int, str]:
    return (-counts.get(key, 0), key[1])
