"""What is compared at the end of each settled cell, and what may never be seen in any.

Members, slices, status, conditions, Redis, clean-up, quiet (D4) and generators against the oracle. Every difference is
a `Wrong` with the item of behaviour.md that it breaks.
"""

from typing import TYPE_CHECKING, Any

from tests.model.expected_state import condition, is_paused, stamp
from tests.model.generators import Generators
from tests.model.membership import WINDOW
from tests.support.simulated_fleet import now

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.model import Kind
from hotpool.observability.metrics import FAILURES

if TYPE_CHECKING:
    from tests.model.simulation import Ground

Json = dict[str, Any]

_CELL = 5.0
_ROUND = 12.0
"""Seconds in which Redis' index is swept."""
_QUIET = 40.0
"""Seconds after which no change can still have a write to come."""
_MERGE = 75.0
_EXPECTED_FAILURES = {"RetryableError", "StaleError", "RejectedError", "ApiUnavailable", "NotLeaderError"}


class Wrong(AssertionError):  # noqa: N818 - the oracle's word.
    """What is not as behaviour.md says; `item` names the rule."""

    def __init__(self, item: str, text: str) -> None:
        super().__init__(f"{item} at {now():.2f}: {text}")
        self.item = item


class Checks:
    """The comparisons, with what was seen in the cell before."""

    def __init__(self, world: "Ground") -> None:
        self.world = world
        self._failures_before = _failures()
        self.generators = Generators(world, Wrong)
        self.current: dict[str, dict[str, str]] = {}
        """Pool → members at the last comparison."""
        self.uids: dict[str, str] = {}
        self.frozen: dict[str, dict[str, list[str]]] = {}
        """Paused pool → its slices when it was first seen paused."""
        self.mergeable: dict[str, tuple[Any, float]] = {}
        """Pool → its slices that could be merged, and since when."""
        self.compared = 0.0
        """When everything was compared last."""
        self.trouble = 0.0
        """When something failed last."""
        self._writes = self._sent = 0
        self._merging = False

    def cell_begins(self) -> None:
        """Remember where the logs stand."""
        self._writes, self._sent = len(self.world.api.writes), len(self.world.redis.log)
        self._merging = bool(self.mergeable)

    def cell_ends(self) -> None:
        """Compare what can be compared."""
        world = self.world
        self._nothing_broke()
        if world.api.fault or world.blind or world.stream == "held" or not world.leader:
            self.trouble = now()
            return
        if now() < world.unsettled_until:
            self.trouble, self.generators.unsure = now(), True
            return
        self._forget_gone()
        for name in world.api.objects[Kind.POOL]:
            self._pool(name)
        self._orphans()
        self._nodes()
        self.generators.compare()
        if not world.redis.fault and now() >= world.redis_unsettled_until:
            self._redis()
        self._quiet()
        self.current = {name: world.api.members(name) for name in world.api.objects[Kind.POOL]}
        self.uids = {name: body["metadata"]["uid"] for name, body in world.api.objects[Kind.POOL].items()}
        self.compared = now()
        world.truth.settled()

    def _nothing_broke(self) -> None:
        world = self.world
        if world.api.unjustified:
            raise Wrong("promise 1", world.api.unjustified[0])
        for operator in (world.leader, world.standby):
            for task in [*operator.tasks, *operator.warm] if operator else ():
                if task.done() and not task.cancelled() and task.exception():
                    raise Wrong("process", f"a part ended: {task.exception()!r}")
        found = {error for error, count in _failures().items() if count > self._failures_before.get(error, 0)}
        if found - _EXPECTED_FAILURES:
            raise Wrong("process", f"an error in a key's work: {found - _EXPECTED_FAILURES}")

    def _forget_gone(self) -> None:
        pools, nodes = (self.world.api.objects[kind] for kind in (Kind.POOL, Kind.NODE))
        for name in self.world.truth.lives.keys() - nodes:  # deleted while nobody was told
            del self.world.truth.lives[name]
        for name in list(self.frozen):
            if name not in pools or not is_paused(pools[name]):
                del self.frozen[name]
                self.world.truth.touched = now()

    # Pools.

    def _pool(self, name: str) -> None:
        api = self.world.api
        body = api.objects[Kind.POOL][name]
        slices = api.slices(name)
        if is_paused(body):
            if self.frozen.setdefault(name, slices) != slices:
                raise Wrong("D11", f"paused pool {name} was {self.frozen[name]}, is {slices}")
            return
        known = self.uids.get(name) == body["metadata"]["uid"] and now() - self.compared < 1.5 * _CELL
        current = self.current[name] if known else None
        must, may = self.world.truth.expected(name, current)
        computed = must
        if body["spec"].get("mode") == "DryRun":
            must, may = {}, {}
        actual = api.members(name)
        wrong = {n: (must.get(n), actual.get(n)) for n in must.keys() | actual if must.get(n) != actual.get(n)}
        wrong = {n: pair for n, pair in wrong.items() if pair[1] is not None or n in must}
        wrong = {n: pair for n, pair in wrong.items() if not (n in may and pair[1] in {None, may[n]})}
        if wrong:
            raise Wrong("members", f"{name}: node → (oracle, slices) {wrong}; {body['spec']}")
        self._form(name, body, slices)
        self._status(name, body, actual, computed)

    def _form(self, name: str, body: Json, slices: dict[str, list[str]]) -> None:
        """D7: no node twice, no slice too large, no mergeable slice for long."""
        every = [node for nodes in slices.values() for node in nodes]
        size = body["spec"].get("sliceSize", 100)
        if len(every) != len(set(every)):
            raise Wrong("D7", f"{name}: a node twice in {slices}")
        if any(len(nodes) > size for nodes in slices.values()):
            raise Wrong("D7", f"{name}: a too large slice in {slices}")
        owners = [self.world.api.objects[Kind.SLICE][key]["metadata"].get("ownerReferences") for key in slices]
        if any(not owner or owner[0]["uid"] != body["metadata"]["uid"] for owner in owners):
            raise Wrong("D10", f"{name}: a slice of another owner in {owners}")
        self._merge(name, slices, size)

    def _merge(self, name: str, slices: dict[str, list[str]], size: int) -> None:
        room = sum(size - len(nodes) for nodes in slices.values())
        small = [k for k, nodes in slices.items() if 4 * len(nodes) < size and len(nodes) <= room - size + len(nodes)]
        seen, since = self.mergeable.get(name, (None, 0.0))
        if not small or len(slices) == 1:
            self.mergeable.pop(name, None)
        elif seen != slices:
            self.mergeable[name] = (slices, now())
        elif now() - max(since, self.trouble) > _MERGE:
            raise Wrong("D7", f"{name}: {small} could be merged since {since:.0f}: {slices}")

    def _status(self, name: str, body: Json, actual: dict[str, str], computed: dict[str, str]) -> None:
        status = body.get("status") or {}
        dry = body["spec"].get("mode") == "DryRun"
        shown = computed if dry else actual
        states = list(shown.values())
        wanted = {
            "members": len(states),
            "readyMembers": states.count("Ready"),
            "suspectMembers": states.count("Suspect"),
            "drainingMembers": states.count("Draining"),
            "slices": len(self.world.api.slices(name)),
            "observedGeneration": body["metadata"]["generation"],
        }
        if dry:  # whom the brake would hold depends on whom it thinks a member
            del wanted["members"], wanted["suspectMembers"], wanted["drainingMembers"]
        if {key: status.get(key) for key in wanted} != wanted:
            raise Wrong("status", f"{name}: { ({k: status.get(k) for k in wanted}) }, not {wanted}")
        enough = states.count("Ready") >= body["spec"].get("minMembers", 1)
        asked = any((body["spec"].get("requires") or {}).values())  # what asks for nothing is never Ready
        if not dry and asked and (status.get("ready") == "True") != enough:
            raise Wrong("status", f"{name}: ready {status.get('ready')} with {states}, {body['spec']}")
        held = {n for n in actual if self.world.truth.lives[n].state in {"Offline", "Awaiting"}}
        if not dry and bool(held) != self._shows(body, "MassSilence"):
            raise Wrong("D8", f"{name}: held are {held}, MassSilence says {condition(body, 'MassSilence')}")
        strange = any(need["type"] == "zzz" for need in (body["spec"].get("requires") or {}).get("types") or ())
        if strange and not self._shows(body, "UnknownRequirement"):
            raise Wrong("D2", f"{name}: nobody knows the type zzz, and no condition says so")
        if now() - max(self.world.truth.touched, self.trouble) > _QUIET:
            self._excluded(name, body)

    def _shows(self, body: Json, type_: str) -> bool:
        found = condition(body, type_)
        return bool(found and found["status"] == "True")

    def _excluded(self, name: str, body: Json) -> None:
        counted = sum(item["count"] for item in body["status"].get("excluded") or ())
        members = body["status"]["members"]
        if body["spec"].get("mode") != "DryRun":
            members = len(self.world.api.members(name))
        wanted = len(self.world.truth.lives) - members
        if counted != wanted:
            raise Wrong("status", f"{name}: {body['status'].get('excluded')} of {wanted} who are not members")

    def _orphans(self) -> None:
        """D11: nothing of a pool that is gone, but for what the garbage collector takes away: it has a dead owner."""
        api = self.world.api
        alive = {body["metadata"]["uid"] for body in api.objects[Kind.POOL].values()}
        for name, body in list(api.objects[Kind.SLICE].items()):
            owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()}
            if owners and not owners & alive:
                api.delete(Kind.SLICE, name)
            elif name.rpartition("-")[0] not in api.objects[Kind.POOL]:
                raise Wrong("D11", f"slice {name} has no pool")

    # Nodes.

    def _nodes(self) -> None:
        truth, api = self.world.truth, self.world.api
        for name, body in api.objects[Kind.NODE].items():
            life = truth.lives.get(name)
            ready = condition(body, "Ready")
            if life is None or ready is None:
                raise Wrong("C1", f"{name} has no condition Ready")
            report = (body.get("status") or {}).get("report") or {}
            drained = (body.get("spec") or {}).get("drain") is True
            if not drained and not report.get("leaving"):
                wanted = ("True", "Live") if life.state == "Live" else ("Unknown", life.state)
                if (ready["status"], ready["reason"].removesuffix("Heartbeat")) != wanted:
                    raise Wrong("C1", f"{name} is {life.state}, its condition {ready}")
            if life.state in {"Suspect", "Offline"} and ready["status"] == "Unknown":
                self._since(name, stamp(ready), leaving=bool(report.get("leaving")))
            if life.expired and self._untouched(body):
                raise Wrong("C4", f"{name} was silent since {life.since:.1f} and is still there")
        for name, life in truth.lives.items():
            if name not in api.objects[Kind.NODE] or name in self.world.strayed:
                continue
            if (
                life.expired
                and f"{LEASE_PREFIX}{name}" in api.leases
                and truth.leases[name] == self.world.leases[name][0]
            ):
                raise Wrong("C4", f"{name} was silent since {life.since:.1f} and its Lease is still there")

    def _since(self, name: str, written: float, *, leaving: bool) -> None:
        """C4: the transition is written down when it happens; what leaves may say so until it is Offline."""
        life = self.world.truth.lives[name]
        if abs(written - life.since) < 0.01:
            return
        late = written > max(life.since, self.trouble) + 6.0
        early = written < life.since - 0.01 and self.trouble < written  # else a return in between was not written
        if early or (late and not leaving):
            raise Wrong("C4", f"{name} became Suspect at {life.since:.2f}, written down is {written:.2f}")
        life.since = written
        life.expired = life.expired and now() >= max(written + WINDOW, self.world.truth.fresh + 4 * life.interval)

    def _untouched(self, body: Json) -> bool:
        words = [*(body["metadata"].get("labels") or {}), *(body["metadata"].get("annotations") or {})]
        return not body.get("spec") and all(word.startswith("agent.hotpool.dev/") for word in words)

    # Redis.

    def _redis(self) -> None:
        world = self.world
        pools = world.api.objects[Kind.POOL]
        if world.redis.complete is not True or set(world.redis.pools) != set(pools):
            raise Wrong("E1", f"Redis knows {set(world.redis.pools) ^ set(pools)} otherwise")
        for name, body in pools.items():
            image, members = world.redis.pools[name], world.api.members(name)
            held = {"Ready": image.ready, "Suspect": image.suspect, "Draining": image.draining}
            found = {node: state for state, nodes in held.items() for node in nodes}
            if found != members or image.uid != body["metadata"]["uid"]:
                raise Wrong("E1", f"{name}: Redis {found}, slices {members}")
        made = {name: body["spec"]["generated"] for name, body in pools.items() if body["spec"].get("generated")}
        wanted = {f"{g['by']}/{g['key']}": name for name, g in made.items()}
        if world.redis.index != wanted and now() - world.truth.touched > _ROUND:
            raise Wrong("E4", f"index {world.redis.index}, not {wanted}")
        self._redis_nodes()

    def _redis_nodes(self) -> None:
        world = self.world
        wanted: dict[str, Any] = {}
        for name, life in world.truth.lives.items():
            report = (world.api.objects[Kind.NODE][name].get("status") or {}).get("report")
            if report and not report.get("leaving") and life.state in {"Live", "Suspect"}:
                wanted[name] = {c["type"]: (c["ready"], list(c["services"])) for c in report["capabilities"]}
        found = {
            name: {type_: (ready, list(ids)) for type_, ready, _, ids in image.capabilities}
            for name, image in world.redis.nodes.items()
        }
        if found != wanted:
            raise Wrong("E3", f"Redis' nodes {found}, not {wanted}")

    # Quiet.

    def _quiet(self) -> None:
        """D4: heartbeats that change nothing cause no write."""
        world = self.world
        if now() - max(world.truth.touched, self.trouble, world.redis_unsettled_until) < _QUIET:
            return
        writes = [
            w for w in world.api.writes[self._writes :] if not (w.kind in {Kind.SLICE, Kind.POOL} and self._merging)
        ]
        if writes:
            raise Wrong("D4", f"nothing happened, and written were {writes}")
        sent = {verb for _, verb, _ in world.redis.log[self._sent :]} - {"stamp"}
        if sent and not world.redis.fault:
            raise Wrong("D4", f"nothing happened, and Redis was told {sent}")


def _failures() -> dict[str, float]:
    """Error → how often a key's work failed with it in this process."""
    samples = (sample for family in FAILURES.collect() for sample in family.samples if sample.name.endswith("_total"))
    return {sample.labels["error"]: sample.value for sample in samples}
