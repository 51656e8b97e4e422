"""What an operator can know about silence, and which members follow from it: the oracle's memory.

Told by `tests.model.scenario` of each start, heartbeat and listing; asked by `tests.model.checks`. What nodes offer and
pools require it reads from the API server's objects at the moment of the question. Requirement C2, C3, C4, D8.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.model.membership import WINDOW, brakes, meets
from tests.support.simulated_fleet import FakeApi

from hotpool.core.model import Kind

Json = dict[str, Any]

_NEVER = float("inf")
_INSTANT = 1e-4
"""Stored times are rounded."""


@dataclass(slots=True)
class Life:
    """One node: when it was heard last, and what silence made of it since."""

    uid: str
    interval: float
    heard: float
    report: tuple[int, int] | None
    state: str = "Live"
    since: float = 0.0
    """When it became Suspect, as the operator wrote it down."""
    expired: bool = False

    def beat(self, now: float) -> bool:
        """Heard; whether that changed anything."""
        changed = self.state != "Live"
        self.heard, self.state, self.expired = now, "Live", False
        return changed


@dataclass(slots=True)
class Truth:
    """All nodes' lives in the eyes of the present operator."""

    api: FakeApi
    now: float = 0.0
    fresh: float = 0.0
    """The period of nobody began before this moment."""
    proven: float = _NEVER
    """The stream is known alive until then; of a silence, one interval more counts (docs/design/0003)."""
    deaf: bool = False
    """The stream is known broken, or nobody listens: no silence counts."""
    lives: dict[str, Life] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    """Node → the renewTime that the operator saw last."""
    released: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) whom silence was free to remove at some moment since the last comparison."""
    unfit: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) whom anything but silence was free to remove at some moment since the last comparison."""
    touched: float = 0.0
    """When anything happened last that may cause a write."""

    # What happens.

    def start(self, now: float) -> None:
        """A new operator has listed everything: what it knows is in conditions (C4)."""
        self.lives = {name: self._listed(body, now) for name, body in self.api.objects[Kind.NODE].items()}
        self.now = self.fresh = self.touched = now
        self.hears()
        self.look()

    def hears(self) -> None:
        """The stream is alive from here."""
        self.proven, self.deaf = _NEVER, False

    def _listed(self, body: Json, now: float) -> Life:
        life = Life(body["metadata"]["uid"], interval_of(body), now, serial(body))
        self._recall(life, body)
        slices = self.api.objects[Kind.SLICE].values()
        listed = any(item["node"] == body["metadata"]["name"] for part in slices for item in part["members"])
        if listed and life.report and condition(body, "Ready") is None:
            life.state = "Live"  # it was not silent: the condition was not written, or the object was made again
        return life

    def _recall(self, life: Life, body: Json) -> None:
        """What an operator reads of a node that it did not hear itself; without a condition it hears first."""
        ready = condition(body, "Ready")
        if ready is None or ready["reason"] == "AwaitingHeartbeat":
            life.state = "Awaiting"
        elif ready["status"] == "Unknown" and ready["reason"] in {"Suspect", "Offline"}:
            life.state, life.since = ready["reason"], stamp(ready)
        else:
            life.state = "Live"

    def taken_over(self, fresh: float) -> None:
        """A standby goes on: by its own clock, which began at `fresh`, and with what the leader wrote down last."""
        self.fresh = max(self.fresh, fresh)
        for name, life in self.lives.items():
            if life.state in {"Suspect", "Offline"} and name in self.api.objects[Kind.NODE]:
                life.expired = False
                self._recall(life, self.api.objects[Kind.NODE][name])

    def node(self, event: str | None, body: Json, now: float) -> None:
        """The operator is told of a NodeCapability."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        life = self.lives.get(name)
        if event == "DELETED":
            if life and life.uid == uid:
                del self.lives[name]
            return
        if life is None or life.uid != uid:
            self.lives[name] = Life(uid, interval_of(body), now, serial(body))
        elif serial(body) not in {None, life.report}:
            life.report, life.interval = serial(body), interval_of(body)
            self.touched = now if life.beat(now) else self.touched

    def lease(self, name: str, content: str, epoch: int, now: float) -> None:
        """The operator is told of a Lease."""
        life = self.lives.get(name)
        news = content != self.leases.get(name)
        self.leases[name] = content
        if news and life and life.report and life.report[0] == epoch and life.beat(now):
            self.touched = now
        self.look()

    def advance(self, now: float) -> None:
        """Let silence take its effect until now, moment by moment."""
        while True:
            due = min(((self._due(life), name) for name, life in self.lives.items()), default=(_NEVER, ""))
            if due[0] > now + _INSTANT or self.deaf:
                break
            self.now = self.touched = max(self.now, due[0])
            self._cross(self.lives[due[1]])
            self.look()
        self.now = now

    def _due(self, life: Life) -> float:
        when = self._change(life)
        return when if when <= self.proven + min(life.interval, 15.0) else _NEVER

    def _change(self, life: Life) -> float:
        """When silence makes something else of a node."""
        base = max(life.heard, self.fresh)
        if life.report is None or life.expired or life.state == "Awaiting":
            return _NEVER
        if life.state == "Offline":
            return max(life.since + WINDOW, self.fresh + 4 * life.interval)
        return base + (3 if life.state == "Live" else 4) * life.interval

    def _cross(self, life: Life) -> None:
        if life.state == "Live":
            life.state, life.since = "Suspect", self.now
        elif life.state == "Suspect":
            life.state = "Offline"
        else:
            life.expired = True

    # What follows.

    def look(self) -> None:
        """Note whom the present moment allows to be removed."""
        for name, pool in self.api.objects[Kind.POOL].items():
            members = self.api.members(name)
            for node in members:
                if not self.belongs(pool, node):
                    self.unfit.add((name, node))
            offline = [node for node in members if node in self.lives and self.lives[node].state == "Offline"]
            if offline and not is_paused(pool):
                held, _ = self.holds(pool)
                self.released |= {(name, node) for node in offline if not held or self.lives[node].expired}

    def belongs(self, pool: Json, node: str) -> bool:
        """Whether the node may be a member but for silence."""
        body = self.api.objects[Kind.NODE].get(node)
        active = (pool.get("spec") or {}).get("mode", "Active") == "Active"
        return body is not None and node in self.lives and active and meets(pool, body)

    def fitting(self, pool: Json) -> list[tuple[str, Life]]:
        """All nodes that meet the requirements; also for a pool that has no members because it is a dry run."""
        bodies = self.api.objects[Kind.NODE]
        return [(name, life) for name, life in self.lives.items() if name in bodies and meets(pool, bodies[name])]

    def holds(self, pool: Json) -> tuple[bool, bool]:
        """Whether the brake holds in a pool for certain, and whether it may (D8).

        What a node counts for that has not been heard since an operator began behaviour.md leaves open.
        """
        fit = [life for _, life in self.fitting(pool)]
        silent = sum(1 for life in fit if life.state in {"Suspect", "Offline"} and not life.expired)
        live = sum(1 for life in fit if life.state == "Live")
        percent = ((pool.get("spec") or {}).get("brake") or {}).get("maxSilentPercent", 30)
        awaited = sum(1 for life in fit if life.state == "Awaiting")
        answers = {brakes(silent + some, live, percent) for some in (0, awaited)}
        return answers == {True}, True in answers

    def expected(self, name: str, current: Iterable[str] | None) -> tuple[dict[str, str], dict[str, str]]:
        """Node → state of those who must be members, and of those who may be.

        `current`: who was before; None where nobody can say.
        """
        pool = self.api.objects[Kind.POOL][name]
        certain, held = self.holds(pool)
        must: dict[str, str] = {}
        may: dict[str, str] = {}
        for node, life in self.fitting(pool):
            drained = (self.api.objects[Kind.NODE][node].get("spec") or {}).get("drain") is True
            late = "Draining" if drained else "Suspect"
            if life.state in {"Live", "Suspect"}:
                must[node] = "Draining" if drained else {"Live": "Ready"}.get(life.state, late)
            elif life.state == "Awaiting":
                may[node] = late  # a member's condition may be gone with an object that was made again
            elif held and not life.expired and (current is None or node in current):
                sure = certain and current is not None and (name, node) not in self.released
                (must if sure else may)[node] = late
        return must, may

    def settled(self) -> None:
        """Everything was compared: what was allowed until now has happened or will not happen."""
        self.released.clear()
        self.unfit.clear()
        self.look()


def is_paused(body: Json) -> bool:
    """Whether people paused a pool or generator (D11)."""
    return bool((body["metadata"].get("annotations") or {}).get("hotpool.dev/paused") == "true")


def serial(body: Json) -> tuple[int, int] | None:
    """Epoch and sequence of a NodeCapability's report."""
    report = (body.get("status") or {}).get("report")
    return (report["epoch"], report["sequence"]) if report else None


def interval_of(body: Json) -> float:
    """H of a node."""
    return float(((body.get("status") or {}).get("report") or {}).get("intervalSeconds", 15))


def condition(body: Json, type_: str) -> Json | None:
    """One condition of an object."""
    found = (body.get("status") or {}).get("conditions") or []
    return next((item for item in found if item["type"] == type_), None)


def stamp(item: Json) -> float:
    """The lastTransitionTime of a condition in simulated seconds."""
    return datetime.fromisoformat(item["lastTransitionTime"]).timestamp()
