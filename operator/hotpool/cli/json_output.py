"""JSON of `why`, `top` and `diff`, see docs/reference/commands.md. Fields may be added, but not renamed or removed."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hotpool.cli.node_events import HistoryEntry
from hotpool.cli.render.top_rows import NodeRow, PoolRow
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange
from hotpool.core.explain.explain import Explanation, PoolExplanation, Requirement
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.model import Pool

Json = dict[str, Any]


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
    return {
        "criterion": item.criterion,
        "required": item.required,
        "met": item.met,
        "decides": item is explained.first_unmet,
        "observed": item.observed,
        "since": item.since,
        "remedies": list(item.remedies),
    }


def pool_explanation(pool: Pool, summary: PoolExplanation, nearest: Sequence[Explanation]) -> Json:
    """Return the JSON of `why --pool P`."""
    return {
        "pool": pool.meta.name,
        "mode": pool.spec.mode,
        "paused": pool.paused,
        "members": {state: summary.members[state] for state in ("Ready", "Suspect", "Draining")},
        "pending": summary.pending,
        "out": sum(summary.reasons.values()),
        "reasons": [{"reason": criterion, "count": count} for criterion, count in summary.reasons.most_common()],
        "nearestMisses": [_miss(item) for item in nearest],
    }


def _miss(item: Explanation) -> Json:
    failed = [_requirement(item, requirement) for requirement in item.requirements if not requirement.met]
    return {"node": item.node, "fails": len(failed), "failed": failed}


def node_explanation(facts: NodeFacts, explanations: Sequence[Explanation], history: Sequence[HistoryEntry]) -> Json:
    """Return the JSON of `why --node N`."""
    ready = facts.view.node.conditions.get("Ready")
    return {
        "node": facts.name,
        "ready": {"status": ready.status, "reason": ready.reason, "since": ready.since} if ready else None,
        "services": [{"id": s.id, "type": s.type, "state": s.state, "since": s.since} for s in facts.services],
        "pools": [explanation(item) for item in explanations],
        "transitions": [asdict(entry) for entry in history],
    }


def pool_change(change: PoolChange) -> Json:
    """Return one item of `pools` of `diff`."""
    return {
        "name": change.name,
        "change": change.kind,
        "membersBefore": change.members_before,
        "membersAfter": change.members_after,
        "readyBefore": change.ready_before,
        "readyAfter": change.ready_after,
        "joins": [{"node": node, "state": state} for node, state in change.joins.items()],
        "leaves": [{"node": node, "reason": reason} for node, reason in change.leaves.items()],
        "afterSeconds": change.after_seconds,
    }


def generator_change(change: GeneratorChange) -> Json:
    """Return one item of `generators` of `diff`."""
    return {
        "name": change.name,
        "change": change.kind,
        "note": change.note,
        "pools": [pool_change(pool) for pool in change.pools],
        "notAdmitted": [item.model_dump() for item in change.not_admitted],
        "notAdmittedCount": change.not_admitted_count,
    }


def top(nodes: Sequence[NodeRow] | None, pools: Sequence[PoolRow] | None) -> Json:
    """Return the JSON of `top`; None leaves a list out."""
    document: Json = {}
    if nodes is not None:
        document["nodes"] = [_node_row(row) for row in nodes]
    if pools is not None:
        document["pools"] = [_pool_row(row) for row in pools]
    return document


def _node_row(row: NodeRow) -> Json:
    return {
        "name": row.name,
        "lastSeen": row.last_seen,
        "lastSeenSeconds": None if row.silent is None else round(row.silent, 1),
        "state": row.state,
        "pools": row.pools,
        "servicesRunning": row.running,
        "services": row.services,
        "restarts": row.restarts,
        "flapping": list(row.flapping),
    }


def _pool_row(row: PoolRow) -> Json:
    return {
        "name": row.name,
        "members": {state: row.members[state] for state in ("Ready", "Suspect", "Draining")},
        "minMembers": row.minimum,
        "note": row.note or None,
        "joinedLastMinute": row.changes,
    }
