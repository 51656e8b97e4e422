"""The JSON of `why` and `diff` (docs/reference/commands.md): fields may be added, none is renamed or removed."""

from collections.abc import Sequence
from typing import Any

from hotpool.cli.node_events import HistoryEntry
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange
from hotpool.core.explain.explain import Explanation, PoolExplanation, Requirement
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.model import Pool

Json = dict[str, Any]


def explanation(answer: Explanation) -> Json:
    """`why NODE POOL`."""
    return {
        "node": answer.node,
        "pool": answer.pool,
        "membership": answer.membership,
        "state": answer.current.state if answer.current else None,
        "since": answer.current.since if answer.current else None,
        "verdict": {"state": answer.verdict.state, "criterion": answer.verdict.criterion},
        "requirements": [_of_requirement(answer, item) for item in answer.requirements],
        "remarks": [{"text": r.text, "since": r.since, "remedies": list(r.remedies)} for r in answer.remarks],
    }


def _of_requirement(answer: Explanation, item: Requirement) -> Json:
    return {
        "criterion": item.criterion,
        "required": item.required,
        "met": item.met,
        "decides": item is answer.first_unmet,
        "observed": item.observed,
        "since": item.since,
        "remedies": list(item.remedies),
    }


def pool_explanation(pool: Pool, survey: PoolExplanation, nearest: Sequence[Explanation]) -> Json:
    """`why --pool P`."""
    return {
        "pool": pool.meta.name,
        "mode": pool.spec.mode,
        "paused": pool.paused,
        "members": {state: survey.members[state] for state in ("Ready", "Suspect", "Draining")},
        "pending": survey.pending,
        "out": sum(survey.reasons.values()),
        "reasons": [{"reason": gate, "count": count} for gate, count in survey.reasons.most_common()],
        "nearestMisses": [_of_miss(answer) for answer in nearest],
    }


def _of_miss(answer: Explanation) -> Json:
    failed = [_of_requirement(answer, item) for item in answer.requirements if not item.met]
    return {"node": answer.node, "fails": len(failed), "failed": failed}


def node_explanation(facts: NodeFacts, answers: Sequence[Explanation], last: Sequence[HistoryEntry]) -> Json:
    """`why --node N`."""
    ready = facts.view.node.conditions.get("Ready")
    return {
        "node": facts.name,
        "ready": {"status": ready.status, "reason": ready.reason, "since": ready.since} if ready else None,
        "services": [{"id": s.id, "type": s.type, "state": s.state, "since": s.since} for s in facts.services],
        "pools": [explanation(answer) for answer in answers],
        "transitions": [
            {
                "time": item.time,
                "reason": item.reason,
                "message": item.message,
                "count": item.count,
                "source": item.source,
            }
            for item in last
        ],
    }


def pool_change(change: PoolChange) -> Json:
    """One entry of `pools` of `diff`."""
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
    """One entry of `generators` of `diff`."""
    return {
        "name": change.name,
        "change": change.kind,
        "note": change.note,
        "pools": [pool_change(pool) for pool in change.pools],
        "notAdmitted": [{"key": n.key, "nodes": n.nodes, "reason": n.reason} for n in change.not_admitted],
        "notAdmittedCount": change.not_admitted_count,
    }
