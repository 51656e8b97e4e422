"""JSON of `status`, `why`, `top` and `diff`, see docs/reference/commands.md. Fields are added, not renamed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic.alias_generators import to_camel

from hotpool.api.slice import MemberState
from hotpool.cli.differences import Difference
from hotpool.cli.health import FleetHealth
from hotpool.cli.node_events import HistoryEntry
from hotpool.cli.render.top_rows import NodeRow, PoolRow, Rows
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange
from hotpool.core.explain.explain import Explanation, PoolExplanation, Requirement
from hotpool.core.explain.remarks import missing_service
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.matching import describe_endpoint
from hotpool.core.model import Pool, ServiceOffer

if TYPE_CHECKING:
    from hotpool.lookup import Ejection

Json = dict[str, Any]
_NAMES: Final = {
    "kind": "change",
    "silent": "lastSeenSeconds",
    "age": "ageSeconds",
    "probe_lag": "probeLagSeconds",
    "running": "servicesRunning",
    "minimum": "minMembers",
    "changes": "joinedLastMinute",
}
"""Names that are not the field's name in camelCase."""


def explanation(item: Explanation) -> Json:
    """Return the JSON of `why NODE POOL`."""
    return {
        "node": item.node,
        "pool": item.pool,
        "membership": item.membership,
        "state": item.current.state if item.current else None,
        "since": item.current.since if item.current else None,
        "verdict": {"state": item.verdict.state, "criterion": item.verdict.criterion},
        "requirements": [_requirement(item, requirement) for requirement in item.requirements],
        "remarks": [asdict(remark) for remark in item.remarks],
    }


def _requirement(explained: Explanation, item: Requirement) -> Json:
    return _fields(item) | {"decides": item is explained.first_unmet}


def pool_explanation(pool: Pool, summary: PoolExplanation, nearest: Sequence[Explanation]) -> Json:
    """Return the JSON of `why --pool P`."""
    return {
        "pool": pool.meta.name,
        "mode": pool.spec.mode,
        "paused": pool.paused,
        "members": _by_state(summary.members),
        "pending": summary.pending,
        "missingService": missing_service(pool),
        "out": sum(summary.reasons.values()),
        "reasons": _counted("reason", dict(summary.reasons.most_common())),
        "nearestMisses": [_miss(item) for item in nearest],
    }


def proposed_pool(
    pool: Pool, joins: Mapping[str, MemberState], summary: PoolExplanation, nearest: Sequence[Explanation]
) -> Json:
    """Return one item of `pools` of `why -f`."""
    return {
        "pool": pool.meta.name,
        "mode": pool.spec.mode,
        "paused": pool.paused,
        "joins": _states(joins),
        "out": sum(summary.reasons.values()),
        "reasons": _counted("reason", dict(summary.reasons.most_common())),
        "nearestMisses": [_miss(item) for item in nearest],
    }


def _states(nodes: Mapping[str, MemberState]) -> list[Json]:
    return [{"node": node, "state": state} for node, state in nodes.items()]


def _miss(item: Explanation) -> Json:
    failed = [_requirement(item, requirement) for requirement in item.requirements if not requirement.met]
    return {"node": item.node, "fails": len(failed), "failed": failed}


def node_explanation(
    facts: NodeFacts,
    explanations: Sequence[Explanation],
    history: Sequence[HistoryEntry],
    ejections: "Sequence[Ejection]",
) -> Json:
    """Return the JSON of `why --node N`."""
    ready = facts.view.node.conditions.get("Ready")
    return {
        "node": facts.name,
        "ready": {"status": ready.status, "reason": ready.reason, "since": ready.since} if ready else None,
        "services": [{"id": s.id, "type": s.type, "state": s.state, "since": s.since} for s in facts.services],
        "endpoints": [_endpoint(facts, offer) for offer in facts.ready_services],
        "limits": [{"type": type_, "maxConcurrent": limit} for type_, limit in facts.view.node.limits.items()],
        "pools": [explanation(item) for item in explanations],
        "transitions": [asdict(entry) for entry in history],
        "ejections": [_ejection(item) for item in ejections],
    }


def _endpoint(facts: NodeFacts, offer: ServiceOffer) -> Json:
    found = facts.view.endpoints.get(offer.service)
    return {
        "service": offer.service,
        "type": offer.type,
        "addresses": list(found.addresses) if found else [],
        "port": found.port if found else None,
        "appProtocol": found.app_protocol if found else None,
        "reason": None if found else describe_endpoint(facts.view, offer),
        "maxConcurrent": offer.max_concurrent,
    }


def difference(found: Difference) -> Json:
    """Return the JSON of `diff`."""
    return {
        "differs": found.differs,
        "pools": [
            _pool_change(change) | {"undeclared": list(found.undeclared.get(change.name, ()))} for change in found.pools
        ],
        "generators": [_generator_change(change) for change in found.generators],
        "warning": found.warning or None,
    }


def _pool_change(change: PoolChange) -> Json:
    return _fields(change) | {
        "joins": _states(change.joins),
        "leaves": [{"node": node, "reason": reason} for node, reason in change.leaves.items()],
        "reasons": _counted("reason", change.reasons),
    }


def _generator_change(change: GeneratorChange) -> Json:
    return _fields(change) | {
        "pools": [_pool_change(pool) for pool in change.pools],
        "notAdmitted": [item.model_dump() for item in change.not_admitted],
    }


def top(rows: Rows) -> Json:
    """Return the JSON of `top`; a table that is not shown is left out."""
    document: Json = {"warning": rows.warning or None}
    if rows.nodes is not None:
        document["nodes"] = [_node_row(row) for row in rows.nodes]
    if rows.pools is not None:
        document["pools"] = [_pool_row(row) for row in rows.pools]
    return document


def status(health: FleetHealth) -> Json:
    """Return the JSON of `status`; a part that cannot be read is null."""
    leader, definitions = health.leader, health.definitions
    return {
        "namespace": health.namespace,
        "healthy": health.healthy,
        "problems": [asdict(problem) for problem in health.problems],
        "unreadable": list(health.unreadable),
        "operator": _fields(leader) | {"leads": leader.leads, "problem": leader.problem or None} if leader else None,
        "redis": _fields(health.redis) | {"error": health.redis.error or None} if health.redis else None,
        "nodes": None if health.nodes is None else _counted("reason", health.nodes),
        "pools": None if health.pools is None else {"count": health.pools, "ready": health.pools_ready},
        "definitions": None if definitions is None else [{"name": n, "revision": r} for n, r in definitions.items()],
        "agents": _counted("version", health.agents),
    }


def _counted(name: str, counts: Mapping[str, int]) -> list[Json]:
    return [{name: word, "count": count} for word, count in counts.items()]


def _ejection(item: "Ejection") -> Json:
    return asdict(item) | {"since": _rfc3339(item.since), "until": _rfc3339(item.until)}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _node_row(row: NodeRow) -> Json:
    return _fields(row) | {"lastSeenSeconds": None if row.silent is None else round(row.silent, 1)}


def _pool_row(row: PoolRow) -> Json:
    return _fields(row) | {"members": _by_state(row.members), "note": row.note or None}


def _by_state(members: Counter[MemberState]) -> Json:
    return {state: members[state] for state in ("Ready", "Suspect", "Draining")}


def _fields(item: Any) -> Json:
    """Return the fields of a dataclass under their names in JSON."""
    return {_NAMES.get(field.name) or to_camel(field.name): getattr(item, field.name) for field in fields(item)}
