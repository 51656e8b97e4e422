"""Why a node is in a pool or not (requirement F2): the judge's own findings beside what the objects say.

Pure. It decides nothing: the verdict is `judge`'s, and what only the leader's clock knows (silence, the brake) is read
from conditions and slices.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hotpool.api.slice import MemberState
from hotpool.core.explain import remedies
from hotpool.core.explain.language_remedies import for_pair
from hotpool.core.explain.remedies import Diagnosis, NodeFacts
from hotpool.core.matching import Criterion, Finding, MatchResult, evaluate, match
from hotpool.core.model import NodeView, Pool

MASS_SILENCE = "MassSilence"
_LIVENESS = frozenset({"Live", "Suspect", "Offline", "AwaitingHeartbeat"})
"""Reasons of condition Ready that are about the heartbeat: only their time is its."""


class MembershipState(StrEnum):
    """How what the slices say relates to what the judge says."""

    MEMBER = "Member"
    OUT = "Out"
    RETAINED = "HeldByBrake"
    """Silent, and a member only because too many are silent at once (requirement D8)."""
    PENDING = "Pending"
    """The slices are not what the judge says: the operator has not written it yet, or does not run."""
    DRY_RUN = "DryRun"
    PAUSED = "Paused"
    INVALID_SPEC = "InvalidSpec"


@dataclass(frozen=True, slots=True)
class Membership:
    """What the slices say of one node."""

    state: MemberState
    since: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement, and what it met."""

    criterion: Criterion
    required: str
    met: bool
    observed: str
    since: str | None
    """RFC 3339."""
    remedies: tuple[str, ...]
    """What would make it hold: all of these together."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something beside the requirements that matters: draining, silence, pause, ..."""

    text: str
    since: str | None = None
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one node is in one pool or not."""

    node: str
    pool: str
    membership: MembershipState
    current: Membership | None
    verdict: MatchResult
    requirements: tuple[Requirement, ...]
    remarks: tuple[Remark, ...]

    @property
    def first_unmet(self) -> Requirement | None:
        """The requirement that keeps the node out: the first that does not hold."""
        return next((item for item in self.requirements if not item.met), None)


@dataclass(frozen=True, slots=True)
class PoolExplanation:
    """One pool and all nodes: who is in, why others are not, and who is nearest to it."""

    members: Counter[MemberState]
    reasons: Counter[Criterion]
    """Nodes that are out, by the gate that decided."""
    pending: int
    """Nodes that meet all requirements and are no members: a dry run, a paused pool, or not written yet."""
    candidates: tuple[str, ...]
    """The nodes that are out, nearest first: those that fail the fewest requirements."""


def explain(facts: NodeFacts, pool: Pool, member: Membership | None) -> Explanation:
    """The whole answer for one node and one pool. `member`: what the pool's slices say of the node."""
    verdict = match(facts.view, pool.spec)
    standing = _membership_state(pool, verdict, member)
    return Explanation(
        facts.name,
        pool.meta.name,
        standing,
        member,
        verdict,
        tuple(_requirements(facts, pool)),
        tuple(_node_remarks(facts, pool, standing, verdict)),
    )


def _membership_state(pool: Pool, verdict: MatchResult, member: Membership | None) -> MembershipState:
    if pool.problem:
        return MembershipState.INVALID_SPEC
    if pool.paused:
        return MembershipState.PAUSED
    if pool.spec.mode == "DryRun":
        return MembershipState.PENDING if member else MembershipState.DRY_RUN
    if verdict.state == (member.state if member else None):
        return MembershipState.MEMBER if member else MembershipState.OUT
    held = member is not None and verdict.criterion is Criterion.OFFLINE and brake_active(pool)
    return MembershipState.RETAINED if held else MembershipState.PENDING


def brake_active(pool: Pool) -> bool:
    """Whether the leader says that the brake keeps silent members of the pool."""
    return any(item.type == MASS_SILENCE and item.status == "True" for item in pool.status.conditions)


def _requirements(facts: NodeFacts, pool: Pool) -> Iterable[Requirement]:
    """The judge's findings in its order; the requirements of one gate come in the order of the spec."""
    seen: Counter[Criterion] = Counter()
    for finding in evaluate(facts.view, pool.spec):
        hint = _diagnose(facts, pool, finding, seen[finding.criterion])
        seen[finding.criterion] += 1
        yield Requirement(finding.criterion, finding.required, finding.met, hint.observed, hint.since, hint.remedies)


def _diagnose(facts: NodeFacts, pool: Pool, finding: Finding, index: int) -> Diagnosis:
    """`index`: the how-manieth finding of its gate it is."""
    requires = pool.spec.requires
    match finding.criterion:
        case Criterion.TYPE:
            return remedies.for_type(facts, requires.types[index].type, finding)
        case Criterion.ATTRIBUTE:
            return remedies.for_attributes(facts, [item for item in requires.types if item.attributes][index], finding)
        case Criterion.LANGUAGE_PAIR if requires.language_pairs:
            return for_pair(facts, requires.language_pairs.all_of[index], requires.language_pairs, finding)
        case Criterion.NODE_SELECTOR if requires.node_selector:
            return remedies.for_labels(facts, requires.node_selector, finding)
        case _:
            return _node_requirements(facts, pool, finding)


def _node_requirements(facts: NodeFacts, pool: Pool, finding: Finding) -> Diagnosis:
    """The requirements that are about the node as a whole, or about the pool's spec."""
    view, report, name = facts.view, facts.view.node.report, facts.name
    observed, since, flip = finding.observed, None, ""
    match finding.criterion:
        case Criterion.NOT_REPORTED if report:
            observed, since = f"epoch {report.epoch}, sequence {report.sequence}", report.time
        case Criterion.NOT_REPORTED:
            since = _since(view, "Ready")
            flip = f"{'mend' if view.node.problem else 'start'} the agent: hotpool-agent run on {name}"
        case Criterion.OFFLINE:
            observed, since = _liveness_remark(view), _since(view, "Ready", _LIVENESS)
            flip = f"wait for a heartbeat; look at the agent: hotpool-agent status on {name}"
        case Criterion.LEAVING:
            since = report.time if report and report.leaving else None
            flip = f"start the agent again: hotpool-agent run on {name}"
        case Criterion.EXCLUDED:
            flip = f"remove {name} from spec.excludeNodes of nodepool {pool.meta.name}"
        case Criterion.EMPTY_REQUIREMENTS:
            flip = f"require something in spec.requires of nodepool {pool.meta.name}, or say matchAll: true"
        case Criterion.HASH:
            flip = f"nothing but another name: the part of {name} follows from its name, and another pool has it"
        case _:
            pass
    return Diagnosis(observed, since, (flip,) if flip and not finding.met else ())


def _liveness_remark(view: NodeView) -> str:
    recorded = view.node.conditions.get("Ready")
    return f"{view.liveness} (condition Ready)" if recorded else "the operator has not seen the node yet"


def _since(view: NodeView, condition: str, reasons: frozenset[str] | None = None) -> str | None:
    """When a condition of the node last changed, where it stands for one of these reasons."""
    recorded = view.node.conditions.get(condition)
    if recorded is None or (reasons is not None and recorded.reason not in reasons):
        return None
    return recorded.since or None


def _node_remarks(facts: NodeFacts, pool: Pool, standing: MembershipState, verdict: MatchResult) -> Iterable[Remark]:
    """What is to be known beside the requirements."""
    view, name = facts.view, pool.meta.name
    if view.node.drain:
        undo = f"undo the drain: set spec.drain to false in nodecapability {facts.name}"
        yield Remark("the node is drained (spec.drain): it is offered no new work", _since(view, "Draining"), (undo,))
    if view.cordoned:
        text = "the Node is cordoned (spec.unschedulable): it is offered no new work"
        yield Remark(text, _since(view, "Draining"), (f"kubectl uncordon {facts.name}",))
    if verdict.state == "Suspect":
        text = "no heartbeat for 3 intervals: the node is offered last"
        yield Remark(text, _since(view, "Ready"), (f"wait for a heartbeat of {facts.name}",))
    match standing:
        case MembershipState.RETAINED:
            said = next(item for item in pool.status.conditions if item.type == MASS_SILENCE)
            text = f"the brake holds the node in the pool, condition {MASS_SILENCE}: {said.message}"
            yield Remark(text, said.last_transition_time)
        case MembershipState.PAUSED:
            undo = f"kubectl annotate nodepool {name} hotpool.dev/paused-"
            yield Remark("the pool is paused: its members stay as they are", None, (undo,))
        case MembershipState.DRY_RUN:
            undo = f"set spec.mode to Active in nodepool {name}"
            yield Remark("the pool is in mode DryRun: no membership is written", None, (undo,))
        case MembershipState.INVALID_SPEC:
            text = f"the pool's spec cannot be used, its members stay as they are: {pool.problem}"
            yield Remark(text, None, ("put the spec right",))
        case MembershipState.PENDING:
            text = "the slices do not say so yet: the operator is about to write them, or does not run"
            yield Remark(text)
        case _:
            pass


def explain_pool(views: Mapping[str, NodeView], pool: Pool, members: Mapping[str, Membership]) -> PoolExplanation:
    """All nodes for one pool. Of a node that does not report nothing more is known: it comes last."""
    outside = {name: view for name, view in views.items() if name not in members}
    failed = {name: [f.criterion for f in evaluate(view, pool.spec) if not f.met] for name, view in outside.items()}
    misses = [name for name, gates in failed.items() if gates]
    misses.sort(key=lambda name: (failed[name][0] is Criterion.NOT_REPORTED, len(failed[name]), name))
    return PoolExplanation(
        members=Counter(member.state for member in members.values()),
        reasons=Counter(failed[name][0] for name in misses),
        pending=len(outside) - len(misses),
        candidates=tuple(misses),
    )
