"""The pools that a generator must have, may have and must have removed (D5).

Within one cell, the first key gets the last place, so the order of admission is checked against each moment of the
cell. Everything else is exact.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.model.expected_state import is_paused
from tests.model.membership import candidate_keys, needs_endpoints, pool_keys
from tests.support.simulated_fleet import now

from hotpool.core.model import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.model.simulation import Simulation

Json = dict[str, Any]
Key = tuple[str, str]
Counts = dict[Key, int]


@dataclass(slots=True)
class GeneratorHistory:
    """One generator at the last comparison."""

    uid: str
    generation: int
    pools: dict[Key, str] = field(default_factory=dict)
    """Key → name of its pool."""
    last_filled: dict[Key, float] = field(default_factory=dict)
    """Key → the last comparison at which its pool had members."""
    empty_since: dict[Key, float] = field(default_factory=dict)
    """Key → the first comparison at which its pool was empty, under the present operator."""
    samples: list[Counts] = field(default_factory=list)
    """The candidates at each moment since the last comparison."""


class GeneratorChecks:
    """Comparisons of all generators of a simulation."""

    def __init__(self, simulation: "Simulation", mismatch: "Callable[[str, str], AssertionError]") -> None:
        self.simulation = simulation
        self.mismatch = mismatch
        self.histories: dict[str, GeneratorHistory] = {}
        self.deleted_by_hand: set[str] = set()
        """Names of pools that people deleted since the last comparison."""
        self.deletions_unknown = False
        """Since the last comparison, an operator could miss deletions for a time."""
        self.edited_by_hand: set[str] = set()
        """Names of pools that people edited. While their generator is paused, their owner cannot be decided."""

    def on_deleted(self, name: str) -> None:
        """Record that a person deletes a generated pool."""
        self.deleted_by_hand.add(name)

    def observe(self) -> None:
        """Record the candidates of this moment."""
        bodies = self.simulation.api.objects[Kind.GENERATOR]
        for name, body in bodies.items():
            uid = body["metadata"]["uid"]
            if name not in self.histories or self.histories[name].uid != uid:
                self.histories[name] = GeneratorHistory(uid, body["metadata"]["generation"])
        for name, history in self.histories.items():
            known = bodies.get(name)
            if known and (not history.samples or history.samples[-1] != (counts := self._counts(known))):
                history.samples.append(counts if history.samples else self._counts(known))

    def compare(self) -> None:
        """Compare all generators with the existing pools."""
        self.observe()
        bodies = self.simulation.api.objects[Kind.GENERATOR]
        self.histories = {
            name: history
            for name, history in self.histories.items()
            if name in bodies and bodies[name]["metadata"]["uid"] == history.uid
        }
        for name, body in bodies.items():
            history = self.histories[name]
            pools = self._pools(body)
            if not is_paused(body):
                self._compare(body, history, pools)
            self._record(body, history, pools)
        self.deleted_by_hand.clear()
        self.deletions_unknown = False
        self._without_generator()

    def _without_generator(self) -> None:
        """Check that no pool belongs to a deleted generator."""
        known = {body["metadata"]["uid"] for body in self.simulation.api.objects[Kind.GENERATOR].values()}
        for name, body in self.simulation.api.objects[Kind.POOL].items():
            owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()}
            if owners - known:
                raise self.mismatch("D5", f"{name} belongs to a deleted generator")

    def _pools(self, body: Json) -> dict[Key, str]:
        found: dict[Key, str] = {}
        for name, pool in self.simulation.api.objects[Kind.POOL].items():
            owners = {owner["uid"] for owner in pool["metadata"].get("ownerReferences") or ()}
            if body["metadata"]["uid"] not in owners:
                continue
            source = pool["spec"].get("generated")
            edited = not source or source["by"] != body["metadata"]["name"] or pool["spec"].get("minMembers") == 77
            if edited and not is_paused(body):
                raise self.mismatch("D5", f"{name} was edited by hand and not repaired: {pool['spec']}")
            if not source:
                continue
            key = (source["kind"], " ".join(_languages(pool)) if source["kind"] == "LanguageSet" else source["key"])
            if key in found:
                raise self.mismatch("D5", f"two pools for {key}: {name} and {found[key]}")
            found[key] = name
        return found

    def _counts(self, body: Json) -> Counts:
        """Return the candidates, each with its number of nodes."""
        spec = body["spec"]
        template = ((spec.get("template") or {}).get("spec")) or {}
        empty = not any((template.get("requires") or {}).values())
        pool = {"spec": {**template, "requires": {"matchAll": True}} if empty else template}
        values = spec["rule"].get("attributeValues")
        if values and needs_endpoints(pool):
            types = [{"type": values["type"]}, *template["requires"]["types"]]
            pool = {"spec": {**template, "requires": {**template["requires"], "types": types}}}
        candidates: set[Key] = set()
        joined: list[set[Key]] = []
        matching = {name for name, _ in self.simulation.expected.matching_nodes(pool)}
        for name, entry in self.simulation.expected.nodes.items():
            node = self.simulation.expected.joined(name)
            if node and entry.state in {"Live", "Suspect"} and name in matching:
                report = node["status"]["report"]
                if values and needs_endpoints(pool):
                    usable = self.simulation.expected.endpoints()[name].usable
                    report = {**report, "services": [item for item in report["services"] if item["id"] in usable]}
                candidates |= candidate_keys(spec["rule"], report, name)
                joined.append(pool_keys(spec["rule"], report, name))
        return {key: sum(key in one for one in joined) for key in candidates}

    def _compare(self, body: Json, history: GeneratorHistory, pools: dict[Key, str]) -> None:
        name, spec = body["metadata"]["name"], body["spec"]
        counts = history.samples[-1]
        room = spec.get("maxPools", 200)
        changed = body["metadata"]["generation"] != history.generation
        fit = {key for key, nodes in counts.items() if nodes >= spec.get("minNodes", 1)}
        if len(pools) > max(room, len(history.pools)) and not changed:
            raise self.mismatch("D5", f"{name}: {len(pools)} pools, {room} at most")
        if len(pools) < room and fit - pools.keys():
            raise self.mismatch("D5", f"{name}: there is room, and no pool for {fit - pools.keys()}")
        for key in pools.keys() - history.pools.keys():
            if pools[key] in self.edited_by_hand:
                continue
            free = changed or self.deletions_unknown
            self._admitted(name, key, history, fit - pools.keys(), changed=free, least=spec.get("minNodes", 1))
        self._kept(body, history, pools, changed=changed)
        self._reported(body, counts, pools)

    def _admitted(
        self, name: str, key: Key, history: GeneratorHistory, left: set[Key], *, changed: bool, least: int
    ) -> None:
        samples = history.samples
        if not any(counts.get(key, 0) >= least for counts in samples) and not changed:
            raise self.mismatch("D5", f"{name}: {key} was created for {[m.get(key) for m in samples]} nodes")
        for other in left:
            fair = any(_rank(key, counts) < _rank(other, counts) for counts in samples if key in counts)
            if not fair and not changed:
                raise self.mismatch("D5", f"{name}: {key} was admitted before {other}: {samples[-1]}")

    def _kept(self, body: Json, history: GeneratorHistory, pools: dict[Key, str], *, changed: bool) -> None:
        """Check that an admitted pool exists until it was empty for the grace time, and no longer."""
        name, grace = body["metadata"]["name"], body["spec"].get("graceSeconds", 600)
        for key, pool in history.pools.items():
            empty_at_most = now() - history.last_filled.get(key, 0.0)
            bound = len(pools) >= body["spec"].get("maxPools", 200)
            few = history.samples[-1].get(key, 0) < body["spec"].get("minNodes", 1)
            free = changed or (pool in self.deleted_by_hand and (bound or few or key in history.empty_since))
            if key not in pools and empty_at_most < grace and not free:
                raise self.mismatch("D5", f"{name}: {pool} for {key} is deleted, last filled {empty_at_most:.0f} s ago")
            if key in pools and pools[key] != pool:
                raise self.mismatch("D6", f"{name}: {key} was {pool}, is {pools[key]}")
        for key, since in history.empty_since.items():
            empty = now() - max(since, self.simulation.checks.last_fault)
            if key in pools and empty > grace + 10 and not self.simulation.api.members(pools[key]):
                raise self.mismatch("D5", f"{name}: {pools[key]} still exists, empty for {empty:.0f} s, grace {grace}")

    def _reported(self, body: Json, counts: Counts, pools: dict[Key, str]) -> None:
        status = body.get("status") or {}
        name = body["metadata"]["name"]
        if status.get("pools") != len(pools):
            raise self.mismatch("D5", f"{name}: status says {status.get('pools')} pools, there are {len(pools)}")
        out = counts.keys() - pools.keys()
        if "languageSets" not in body["spec"]["rule"] and status.get("notAdmittedCount") != len(out):
            raise self.mismatch("D5", f"{name}: not admitted {status.get('notAdmittedCount')}, the oracle says {out}")

    def _record(self, body: Json, history: GeneratorHistory, pools: dict[Key, str]) -> None:
        moment = now()
        history.generation = body["metadata"]["generation"]
        for key, pool in pools.items():
            full = bool(self.simulation.api.members(pool))
            if full:
                history.last_filled[key] = moment
            if full or any(key in counts for counts in history.samples) or is_paused(body):
                history.empty_since.pop(key, None)
            else:
                history.empty_since.setdefault(key, moment)
        history.empty_since = {key: at for key, at in history.empty_since.items() if key in pools}
        history.pools = pools
        history.samples = history.samples[-1:] or [self._counts(body)]

    def on_restart(self) -> None:
        """Restart the grace of empty pools: a new operator does not know when they became empty."""
        for history in self.histories.values():
            history.empty_since = dict.fromkeys(history.empty_since, now())


def _languages(pool: Json) -> list[str]:
    found = (pool["spec"]["requires"].get("languagePairs") or {}).get("allOf") or ()
    return sorted({code for pair in found for code in pair.split("-")})


def _rank(key: Key, counts: Counts) -> tuple[int, str]:
    return (-counts.get(key, 0), key[1])
