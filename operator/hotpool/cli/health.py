"""Health of a fleet as far as it is visible from outside: operator, Redis, nodes, pools and versions. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from hotpool.api.meta import Condition
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.leader import Leader
from hotpool.cli.redis_age import confirmed_text, is_old
from hotpool.common.durations import age
from hotpool.core.conditions import PAUSE_IGNORED
from hotpool.core.model import Generator, Kind, Node, Pool

MAX_PROBE_LAG: Final = 15.0
"""Seconds; the leader renews its probe Lease every 5 s."""
_INTENDED: Final = frozenset({"DryRun"})
"""Reasons of a pool that is not Ready because a person wants it so."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem of one part. `subject`: operator, redis, definitions, or an object such as nodepool/zh-en."""

    subject: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """State of the projection. `error`: reason why it cannot be read. `age_seconds`: None if it was never stamped."""

    age_seconds: float | None = None
    complete: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """Health of one fleet. A part that is None was not asked for, or cannot be read."""

    namespace: str
    leader: Leader | None
    redis: RedisHealth | None
    definitions: Mapping[str, int | None] | None
    """Plural → revision of the CRD, None for a missing one."""
    nodes: Mapping[str, int] | None
    """Reason of condition Ready → number of nodes, the largest first."""
    agents: Mapping[str, int]
    """Version → number of agents, the largest first."""
    pools: int | None
    pools_ready: int
    problems: tuple[Problem, ...]
    unreadable: tuple[str, ...] = ()
    """Reads that were refused, as text."""
    partial: bool = field(default=False)
    """True if one of them hides operator, nodes or pools, so that nothing can be called healthy."""

    @property
    def healthy(self) -> bool:
        """True if everything was read and nothing is wrong."""
        return not self.problems and not self.partial


def judge(
    namespace: str,
    snapshot: FleetSnapshot,
    *,
    leader: Leader | None,
    redis: RedisHealth | None,
    definitions: Mapping[str, int | None] | None,
    refused: Mapping[str, str],
) -> FleetHealth:
    """Return the health of a fleet. `refused`: plural → text of a read that was refused; that kind is then unknown."""
    pools, generators = tuple(snapshot.pools.values()), tuple(snapshot.generators.values())
    problems = (
        *(_of_operator(leader) if leader else ()),
        *(_of_redis(redis) if redis else ()),
        *(_of_definitions(leader, definitions) if leader and definitions else ()),
        *(Problem(f"{item.kind}/{item.name}", "Unreadable", item.reason) for item in snapshot.unreadable),
        *(found for pool in pools for found in _of_object("nodepool", pool)),
        *(found for generator in generators for found in _of_object("nodepoolgenerator", generator)),
        *(found for node in snapshot.nodes.values() for found in _of_node(node)),
    )
    ready = [node.conditions.get("Ready") for node in snapshot.nodes.values()]
    return FleetHealth(
        namespace=namespace,
        leader=leader,
        redis=redis,
        definitions=definitions,
        nodes=None if Kind.NODE in refused else _counted(stored.reason if stored else "Unseen" for stored in ready),
        agents=_counted(_agent_versions(snapshot)),
        pools=None if Kind.POOL in refused else len(pools),
        pools_ready=sum(pool.status.ready == "True" for pool in pools),
        problems=problems,
        unreadable=tuple(refused.values()),
        partial=leader is None or not {Kind.NODE, Kind.POOL}.isdisjoint(refused),
    )


def _of_operator(leader: Leader) -> Iterator[Problem]:
    if leader.problem:
        yield Problem("operator", "NoLeader", f"no operator leads: {leader.problem}")
    elif leader.probe_lag is not None and leader.probe_lag > MAX_PROBE_LAG:
        lag = age(leader.probe_lag)
        text = f"{leader.holder} has not renewed its probe Lease for {lag}: it may not write or see anything"
        yield Problem("operator", "ProbeLost", text)


def _of_redis(redis: RedisHealth) -> Iterator[Problem]:
    if redis.error:
        yield Problem("redis", "Unavailable", redis.error)
    elif is_old(redis.age_seconds):
        yield Problem("redis", "Stale", f"{confirmed_text(redis.age_seconds)}: dispatchers pick from old data")
    elif not redis.complete:
        yield Problem("redis", "Incomplete", "the projection is being rebuilt: pools may be missing")


def _of_definitions(leader: Leader, definitions: Mapping[str, int | None]) -> Iterator[Problem]:
    needed = leader.schema_revision or 0
    for plural, revision in definitions.items():
        if revision is None:
            yield Problem("definitions", "NotInstalled", f"{plural}: not installed")
        elif revision < needed:
            text = f"{plural} has revision {revision}, the operator needs {needed}: apply the CRDs of its release"
            yield Problem("definitions", "Outdated", text)


def _of_object(kind: str, found: Pool | Generator) -> Iterator[Problem]:
    """Yield why a pool or generator is not Ready, unless a person wants it so, and an annotation without effect."""
    name = f"{kind}/{found.meta.name}"
    ready = _condition(found, "Ready")
    if found.pause_problem:
        yield Problem(name, PAUSE_IGNORED, found.pause_problem)
    if found.status.observed_generation != found.meta.generation and found.meta.generation:
        yield Problem(name, "NotObserved", "the operator has not acted on the last change of its spec")
    elif ready is None:
        yield Problem(name, "NotObserved", "the operator has not looked at it yet")
    elif ready.status != "True" and ready.reason not in _INTENDED:
        silence = _condition(found, "MassSilence")
        more = f"; MassSilence: {silence.message}" if silence and silence.status == "True" else ""
        yield Problem(name, ready.reason, f"{ready.message}{_paused(found)}{more}")


def _of_node(node: Node) -> Iterator[Problem]:
    if node.ignored_commands:
        yield Problem(f"nodecapability/{node.meta.name}", "CommandIgnored", node.ignored_commands)


def _paused(found: Pool | Generator) -> str:
    return "; paused: nothing about it is changed" if found.paused else ""


def _condition(found: Pool | Generator, type_: str) -> Condition | None:
    return next((item for item in found.status.conditions if item.type == type_), None)


def _agent_versions(snapshot: FleetSnapshot) -> Iterator[str]:
    for name in snapshot.nodes:
        report = (snapshot.bodies[Kind.NODE, name].get("status") or {}).get("report") or {}
        if isinstance(version := report.get("agentVersion"), str):
            yield version


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))
