"""Comparisons with the oracle at the end of each settled cell, and checks that hold in every cell.

Members, slices, status, conditions, Redis, clean-up, absence of writes (D4) and generators. Every difference is a
`MismatchError` with the requirement that it breaks.
"""

from typing import TYPE_CHECKING, Any

from tests.model.expected_state import condition, is_paused, transition_time
from tests.model.generators import GeneratorChecks
from tests.model.kube_nodes import OFF_REASONS
from tests.model.membership import WINDOW, is_drained
from tests.model.service_checks import service_mismatch
from tests.support.simulated_fleet import now

from hotpool.api.meta import LEASE_PREFIX
from hotpool.core.model import Kind
from hotpool.observability.metrics import FAILURES

if TYPE_CHECKING:
    from tests.model.simulation import Simulation

Json = dict[str, Any]

_CELL = 5.0
_INDEX_SWEEP = 12.0
"""Seconds within which stray fields of the index in Redis are removed."""
_QUIET_AFTER = 40.0
"""Seconds after a change in which the operator may still write."""
_MERGE_WITHIN = 75.0
_ROUND = 1.1
"""Seconds within which slices show a change; nodes become overdue at any moment of a cell."""
_EXPECTED_FAILURES = {
    "RetryableError",
    "UnavailableError",
    "StaleError",
    "RejectedError",
    "ApiUnavailable",
    "NotLeaderError",
}


class MismatchError(AssertionError):
    """A difference from the oracle; `item` names the requirement."""

    def __init__(self, item: str, text: str) -> None:
        super().__init__(f"{item} at {now():.2f}: {text}")
        self.item = item


class Checks:
    """The comparisons, with the results of the cell before."""

    def __init__(self, simulation: "Simulation") -> None:
        self.simulation = simulation
        self._failures_before = _failures()
        self.generators = GeneratorChecks(simulation, MismatchError)
        self.last_members: dict[str, dict[str, str]] = {}
        """Pool → members at the last comparison."""
        self.last_uids: dict[str, str] = {}
        self.paused_slices: dict[str, dict[str, list[str]]] = {}
        """Paused pool → its slices at the first comparison after the pause began."""
        self.mergeable_slices: dict[str, tuple[Any, float]] = {}
        """Pool → its slices that could be merged, and the start of that time."""
        self.compared_at = 0.0
        """The time of the last complete comparison."""
        self.last_fault = 0.0
        """The time of the last injected failure."""
        self._writes = self._sent = self._service_writes = 0
        self._merging = False

    def cell_begins(self) -> None:
        """Record the lengths of the logs."""
        self._writes, self._sent = len(self.simulation.api.writes), len(self.simulation.redis.log)
        self._service_writes = len(self.simulation.api.service_writes)
        self._merging = bool(self.mergeable_slices)

    def cell_ends(self) -> None:
        """Compare everything that can be compared at this moment."""
        simulation = self.simulation
        self._tasks_alive()
        frozen = simulation.lease_watch == "frozen"
        if simulation.api.fault or simulation.events_lost or frozen or not simulation.leader:
            self.last_fault = now()
            return
        if now() < max(simulation.unsettled_until, simulation.expected.last_overdue + _ROUND):
            self.last_fault, self.generators.deletions_unknown = now(), True
            return
        self._drop_deleted()
        for name in simulation.api.objects[Kind.POOL]:
            self._pool(name)
        self._orphans()
        self._nodes()
        self._endpoints()
        if now() >= simulation.services_unsettled_until and (text := service_mismatch(simulation)):
            raise MismatchError("D12", text)
        self.generators.compare()
        if not simulation.redis.fault and now() >= simulation.redis_unsettled_until:
            self._redis()
        self._no_writes()
        self.last_members = {name: simulation.api.members(name) for name in simulation.api.objects[Kind.POOL]}
        self.last_uids = {name: body["metadata"]["uid"] for name, body in simulation.api.objects[Kind.POOL].items()}
        self.compared_at = now()
        simulation.expected.on_compared()

    def _tasks_alive(self) -> None:
        simulation = self.simulation
        if simulation.api.violations:
            raise MismatchError("evidence", simulation.api.violations[0])
        for operator in (simulation.leader, simulation.standby):
            for task in [*operator.tasks, *operator.standby_tasks] if operator else ():
                if task.done() and not task.cancelled() and task.exception():
                    raise MismatchError("process", f"a task ended: {task.exception()!r}")
        found = {error for error, count in _failures().items() if count > self._failures_before.get(error, 0)}
        if found - _EXPECTED_FAILURES:
            raise MismatchError("process", f"reconciling a key failed: {found - _EXPECTED_FAILURES}")

    def _drop_deleted(self) -> None:
        pools, nodes = (self.simulation.api.objects[kind] for kind in (Kind.POOL, Kind.NODE))
        for name in self.simulation.expected.nodes.keys() - nodes:  # deleted while events were lost
            del self.simulation.expected.nodes[name]
        for name in self.simulation.expected.kube.keys() - self.simulation.api.objects[Kind.KUBE_NODE]:
            del self.simulation.expected.kube[name]
        for name in list(self.paused_slices):
            if name not in pools or not is_paused(pools[name]):
                del self.paused_slices[name]
                self.simulation.expected.last_change = now()

    # Pools.

    def _pool(self, name: str) -> None:
        api = self.simulation.api
        body = api.objects[Kind.POOL][name]
        slices = api.slices(name)
        if is_paused(body):
            if self.paused_slices.setdefault(name, slices) != slices:
                raise MismatchError("D11", f"paused pool {name} was {self.paused_slices[name]}, is {slices}")
            return
        known = self.last_uids.get(name) == body["metadata"]["uid"] and now() - self.compared_at < 1.5 * _CELL
        current = self.last_members[name] if known else None
        must, may = self.simulation.expected.expected_members(name, current)
        computed = must
        if body["spec"].get("mode") == "DryRun":
            must, may = {}, {}
        actual = api.members(name)
        wrong = {n: (must.get(n), actual.get(n)) for n in must.keys() | actual if must.get(n) != actual.get(n)}
        wrong = {n: pair for n, pair in wrong.items() if pair[1] is not None or n in must}
        wrong = {n: pair for n, pair in wrong.items() if not (n in may and pair[1] in {None, may[n]})}
        if wrong:
            raise MismatchError("members", f"{name}: node → (oracle, slices) {wrong}; {body['spec']}")
        self._shape(name, body, slices)
        self._status(name, body, actual, computed)

    def _shape(self, name: str, body: Json, slices: dict[str, list[str]]) -> None:
        """Check D7: no node twice, no slice too large, no mergeable slice for long."""
        every = [node for nodes in slices.values() for node in nodes]
        size = body["spec"].get("sliceSize", 100)
        if len(every) != len(set(every)):
            raise MismatchError("D7", f"{name}: a node twice in {slices}")
        if any(len(nodes) > size for nodes in slices.values()):
            raise MismatchError("D7", f"{name}: a slice is too large in {slices}")
        owners = [self.simulation.api.objects[Kind.SLICE][key]["metadata"].get("ownerReferences") for key in slices]
        if any(not owner or owner[0]["uid"] != body["metadata"]["uid"] for owner in owners):
            raise MismatchError("D10", f"{name}: a slice of another owner in {owners}")
        self._merge(name, slices, size)

    def _merge(self, name: str, slices: dict[str, list[str]], size: int) -> None:
        room = sum(size - len(nodes) for nodes in slices.values())
        small = [k for k, nodes in slices.items() if 4 * len(nodes) < size and len(nodes) <= room - size + len(nodes)]
        seen, since = self.mergeable_slices.get(name, (None, 0.0))
        if not small or len(slices) == 1:
            self.mergeable_slices.pop(name, None)
        elif seen != slices:
            self.mergeable_slices[name] = (slices, now())
        elif now() - max(since, self.last_fault) > _MERGE_WITHIN:
            raise MismatchError("D7", f"{name}: {small} could be merged since {since:.0f}: {slices}")

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
            "slices": len(self.simulation.api.slices(name)),
            "observedGeneration": body["metadata"]["generation"],
        }
        if dry:  # The brake would retain members only, and a dry run has none.
            del wanted["members"], wanted["suspectMembers"], wanted["drainingMembers"]
        if {key: status.get(key) for key in wanted} != wanted:
            raise MismatchError("status", f"{name}: { ({k: status.get(k) for k in wanted}) }, not {wanted}")
        enough = states.count("Ready") >= body["spec"].get("minMembers", 1)
        needs = {**(body["spec"].get("requires") or {}), "endpoint": None}
        required = any(needs.values())  # A pool without requirements is never Ready.
        if not dry and required and (status.get("ready") == "True") != enough:
            raise MismatchError("status", f"{name}: ready {status.get('ready')} with {states}, {body['spec']}")
        retained = {n for n in actual if self.simulation.expected.nodes[n].state in {"Offline", "Awaiting"}}
        if not dry and bool(retained) != self._is_true(body, "MassSilence"):
            raise MismatchError("D8", f"{name}: retained {retained}, MassSilence is {condition(body, 'MassSilence')}")
        strange = any(need["type"] == "zzz" for need in (body["spec"].get("requires") or {}).get("types") or ())
        if strange and not self._is_true(body, "UnknownRequirement"):
            raise MismatchError("D2", f"{name}: no node has the type zzz, and no condition reports it")
        if now() - max(self.simulation.expected.last_change, self.last_fault) > _QUIET_AFTER:
            self._excluded(name, body)

    def _is_true(self, body: Json, type_: str) -> bool:
        found = condition(body, type_)
        return bool(found and found["status"] == "True")

    def _excluded(self, name: str, body: Json) -> None:
        counted = sum(item["count"] for item in body["status"].get("excluded") or ())
        members = body["status"]["members"]
        if body["spec"].get("mode") != "DryRun":
            members = len(self.simulation.api.members(name))
        wanted = len(self.simulation.expected.nodes) - members
        if counted != wanted:
            raise MismatchError("status", f"{name}: {body['status'].get('excluded')} of {wanted} that are not members")

    def _orphans(self) -> None:
        """Check D11: no slice of a deleted pool. Delete those with a dead owner, as the garbage collector does."""
        api = self.simulation.api
        alive = {body["metadata"]["uid"] for body in api.objects[Kind.POOL].values()}
        for name, body in list(api.objects[Kind.SLICE].items()):
            owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()}
            if owners and not owners & alive:
                api.delete(Kind.SLICE, name)
            elif name.rpartition("-")[0] not in api.objects[Kind.POOL]:
                raise MismatchError("D11", f"slice {name} has no pool")

    # Nodes.

    def _nodes(self) -> None:
        expected, api = self.simulation.expected, self.simulation.api
        for name, body in api.objects[Kind.NODE].items():
            entry = expected.nodes.get(name)
            ready = condition(body, "Ready")
            if entry is None or ready is None:
                raise MismatchError("C1", f"{name} has no condition Ready")
            report = (body.get("status") or {}).get("report") or {}
            reason = expected.shown_reason(name) if report else None
            if not is_drained(expected.joined(name) or {}) and not report.get("leaving"):
                self._ready(name, entry.state, reason, ready)
            if entry.state in {"Suspect", "Offline"} and ready["status"] == "Unknown":
                leaving = bool(report.get("leaving")) or reason in OFF_REASONS
                self._since(name, transition_time(ready), leaving=leaving)
            if entry.expired and self._may_be_deleted(body):
                raise MismatchError("C4", f"{name} was silent since {entry.since:.1f} and is still there")
        for name, entry in expected.nodes.items():
            if name not in api.objects[Kind.NODE] or name in self.simulation.foreign_leases:
                continue
            if (
                entry.expired
                and f"{LEASE_PREFIX}{name}" in api.leases
                and expected.leases[name] == self.simulation.leases[name][0]
            ):
                raise MismatchError("C4", f"{name} was silent since {entry.since:.1f} and its Lease is still there")

    def _endpoints(self) -> None:
        """Check B13: the endpoints that the leader has of each node, and the conditions about the others."""
        simulation = self.simulation
        assert simulation.leader
        for name, wanted in simulation.expected.endpoints().items():
            view = simulation.leader.cache.nodes[name].view
            found = {id_: (one.port, list(one.addresses), list(one.vouched)) for id_, one in view.endpoints.items()}
            if found != wanted.usable:
                raise MismatchError("B13", f"endpoints of {name}: {found}, not {wanted.usable}")
            body = simulation.api.objects[Kind.NODE][name]
            for type_, places in (("AddressNotAllowed", wanted.not_allowed), ("AddressConflict", wanted.conflicts)):
                stored = condition(body, type_) or {"status": "False", "message": ""}
                missing = [service for service, _, _ in places if f"{service} at " not in stored["message"]]
                if (stored["status"] == "True") != bool(places) or missing:
                    raise MismatchError("B13", f"{type_} of {name}: {stored}, not {places}")

    def _ready(self, name: str, state: str, reason: str | None, ready: Json) -> None:
        """Check C1 and C8. `reason`: what the v1 Node says; of a silent node only a shutdown is shown."""
        wanted = ("True", "Live") if state == "Live" else ("Unknown", state)
        if reason and (state == "Live" or (state == "Suspect" and reason in OFF_REASONS)):
            wanted = ("False", reason)
        if (ready["status"], ready["reason"].removesuffix("Heartbeat")) != wanted:
            raise MismatchError("C1", f"{name} is {state}, {reason}, its condition {ready}")

    def _since(self, name: str, written: float, *, leaving: bool) -> None:
        """Check C4: a transition is stored when it happens. A node that leaves may stay Leaving until it is Offline."""
        entry = self.simulation.expected.nodes[name]
        if abs(written - entry.since) < 0.01 or written == entry.masked_since:
            return
        late = written > max(entry.since, self.last_fault) + 6.0
        # During a fault, a return in between may not have been written.
        early = written < entry.since - 0.01 and self.last_fault < written
        if early or (late and not leaving and abs(written - entry.masked_until) > 6.0):
            raise MismatchError("C4", f"{name} became Suspect at {entry.since:.2f}, stored is {written:.2f}")
        if written > entry.since:
            # The operator itself counts from the moment at which it became Suspect.
            entry.masked_since = written
            return
        entry.since = written
        earliest = self.simulation.expected.counted_from + 4 * entry.interval
        entry.expired = entry.expired and now() >= max(written + WINDOW, earliest)

    def _may_be_deleted(self, body: Json) -> bool:
        words = [*(body["metadata"].get("labels") or {}), *(body["metadata"].get("annotations") or {})]
        return not body.get("spec") and all(word.startswith("agent.hotpool.dev/") for word in words)

    # Redis.

    def _redis(self) -> None:
        simulation = self.simulation
        pools = simulation.api.objects[Kind.POOL]
        if simulation.redis.complete is not True or set(simulation.redis.pools) != set(pools):
            raise MismatchError("E1", f"Redis differs in {set(simulation.redis.pools) ^ set(pools)}")
        for name, body in pools.items():
            document, members = simulation.redis.pools[name], simulation.api.members(name)
            states = {"Ready": document.ready, "Suspect": document.suspect, "Draining": document.draining}
            found = {node: state for state, nodes in states.items() for node in nodes}
            if found != members or document.uid != body["metadata"]["uid"]:
                raise MismatchError("E1", f"{name}: Redis {found}, slices {members}")
        generated = {name: body["spec"]["generated"] for name, body in pools.items() if body["spec"].get("generated")}
        wanted = {f"{g['by']}/{g['key']}": name for name, g in generated.items()}
        if simulation.redis.index != wanted and now() - simulation.expected.last_change > _INDEX_SWEEP:
            raise MismatchError("E4", f"index {simulation.redis.index}, not {wanted}")
        self._redis_nodes()

    def _redis_nodes(self) -> None:
        simulation = self.simulation
        wanted: dict[str, Any] = {}
        usable = simulation.expected.endpoints()
        for name, entry in simulation.expected.nodes.items():
            report = ((simulation.expected.joined(name) or {}).get("status") or {}).get("report")
            if not report or report.get("leaving"):
                continue
            if entry.state in {"Live", "Suspect"}:
                wanted[name] = {c["type"]: (c["ready"], list(c["services"])) for c in report["capabilities"]}
            elif entry.state in {"Offline", "Awaiting"} and not entry.expired and usable[name].usable:
                wanted[name] = {}  # the brake may retain it as a member, which clients must reach
        found = {
            name: {type_: (ready, list(ids)) for type_, ready, _, ids in document.capabilities}
            for name, document in simulation.redis.nodes.items()
        }
        if found != wanted:
            raise MismatchError("E3", f"Redis' nodes {found}, not {wanted}")

    # Absence of writes.

    def _no_writes(self) -> None:
        """Check D4: heartbeats that change nothing cause no write."""
        simulation = self.simulation
        last = max(simulation.expected.last_change, self.last_fault, simulation.redis_unsettled_until)
        if now() - last < _QUIET_AFTER:
            return
        merged = {Kind.SLICE, Kind.POOL} if self._merging else set[Kind]()
        writes = [write for write in simulation.api.writes[self._writes :] if write.kind not in merged]
        if writes:
            raise MismatchError("D4", f"nothing changed, and the operator wrote {writes}")
        if found := self.simulation.api.service_writes[self._service_writes :]:
            raise MismatchError("D4", f"nothing changed, and the operator wrote {found}")
        sent = {verb for _, verb, _ in simulation.redis.log[self._sent :]} - {"stamp"}
        if sent and not simulation.redis.fault:
            raise MismatchError("D4", f"nothing changed, and the operator sent {sent} to Redis")


def _failures() -> dict[str, float]:
    """Return error → number of failed reconciles of keys in this process."""
    samples = (sample for family in FAILURES.collect() for sample in family.samples if sample.name.endswith("_total"))
    return {sample.labels["error"]: sample.value for sample in samples}
