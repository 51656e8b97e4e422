"""Explanation why a node is in a pool or not (requirement F2): match results beside the stored objects.

Pure. Makes no decision: the verdict comes from `core.matching`. Silence and the brake, known only to the leader, come
from conditions and slices.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hotpool.api.slice import MemberState
from hotpool.core.explain import remedies
from hotpool.core.explain.endpoint_remedies import for_endpoint
from hotpool.core.explain.language_remedies import for_pair
from hotpool.core.explain.remarks import Remark, end_of_shutdown, node_remarks, since_of
from hotpool.core.explain.remedies import Diagnosis, NodeFacts
from hotpool.core.kube_node_health import NODE_OUT_OF_SERVICE, NODE_SHUTDOWN
from hotpool.core.matching import Criterion, Finding, MatchResult, evaluate, match
from hotpool.core.model import Member, NodeView, Pool

MASS_SILENCE = "MassSilence"
_LIVENESS = frozenset({"Live", "Suspect", "Offline", "AwaitingHeartbeat"})
"""Reasons of condition Ready that depend on the heartbeat; only their transition time is that of the heartbeat."""


class MembershipState(StrEnum):
    """Membership by the slices, compared with the match result."""

    MEMBER = "Member"
    OUT = "Out"
    RETAINED = "HeldByBrake"
    """Silent, and a member only because too many nodes are silent at once (requirement D8)."""
    PENDING = "Pending"
    """Slices and match result differ: the operator has not written them yet, or is not running."""
    DRY_RUN = "DryRun"
    PAUSED = "Paused"
    INVALID_SPEC = "InvalidSpec"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement, and the observed value."""

    criterion: Criterion
    required: str
    met: bool
    observed: str
    since: str | None
    """RFC 3339."""
    remedies: tuple[str, ...]
    """Changes that would make it met, all of them together."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation for one node and one pool."""

    node: str
    pool: str
    membership: MembershipState
    current: Member | None
    verdict: MatchResult
    requirements: tuple[Requirement, ...]
    remarks: tuple[Remark, ...]

    @property
    def first_unmet(self) -> Requirement | None:
        """First requirement that is not met: the one that keeps the node out."""
        return next((item for item in self.requirements if not item.met), None)


@dataclass(frozen=True, slots=True)
class PoolExplanation:
    """Explanation for one pool and all nodes: members, reasons of the others, and the nearest candidates."""

    members: Counter[MemberState]
    reasons: Counter[Criterion]
    """Number of nodes that are no members, by deciding criterion."""
    pending: int
    """Nodes that meet all requirements and are no members: mode DryRun, a paused pool, or not written yet."""
    candidates: tuple[str, ...]
    """Nodes that are no members, those with the fewest unmet requirements first."""


def explain(facts: NodeFacts, pool: Pool, member: Member | None) -> Explanation:
    """Explain one node and one pool. `member`: the node's entry in the pool's slices."""
    verdict = match(facts.view, pool.spec)
    membership = _membership_state(pool, verdict, member)
    return Explanation(
        facts.name,
        pool.meta.name,
        membership,
        member,
        verdict,
        tuple(_requirements(facts, pool)),
        (*node_remarks(facts, verdict.state), *_membership_remarks(pool, membership)),
    )


def _membership_state(pool: Pool, verdict: MatchResult, member: Member | None) -> MembershipState:
    if pool.problem:
        return MembershipState.INVALID_SPEC
    if pool.paused:
        return MembershipState.PAUSED
    if pool.spec.mode == "DryRun":
        return MembershipState.PENDING if member else MembershipState.DRY_RUN
    if verdict.state == (member.state if member else None):
        return MembershipState.MEMBER if member else MembershipState.OUT
    retained = member is not None and verdict.criterion is Criterion.OFFLINE and brake_active(pool)
    return MembershipState.RETAINED if retained else MembershipState.PENDING


def brake_active(pool: Pool) -> bool:
    """Return True if the pool's condition MassSilence is True: the brake retains silent members."""
    return any(item.type == MASS_SILENCE and item.status == "True" for item in pool.status.conditions)


def _requirements(facts: NodeFacts, pool: Pool) -> Iterable[Requirement]:
    """Yield the requirements in order of criteria, those of one criterion in the order of the spec."""
    seen: Counter[Criterion] = Counter()
    for finding in evaluate(facts.view, pool.spec):
        found = _diagnose(facts, pool, finding, seen[finding.criterion])
        seen[finding.criterion] += 1
        yield Requirement(finding.criterion, finding.required, finding.met, found.observed, found.since, found.remedies)


def _diagnose(facts: NodeFacts, pool: Pool, finding: Finding, index: int) -> Diagnosis:
    """Diagnose one finding. `index`: zero-based position among the findings of the same criterion."""
    requires = pool.spec.requires
    match finding.criterion:
        case Criterion.TYPE:
            return remedies.for_type(facts, requires.types[index].type, finding)
        case Criterion.ATTRIBUTE:
            return remedies.for_attributes(facts, [item for item in requires.types if item.attributes][index], finding)
        case Criterion.ENDPOINT:
            return for_endpoint(facts, requires.types[index], finding)
        case Criterion.LANGUAGE_PAIR if requires.language_pairs:
            return for_pair(facts, requires.language_pairs.all_of[index], requires.language_pairs, finding)
        case Criterion.NODE_SELECTOR if requires.node_selector:
            return remedies.for_labels(facts, requires.node_selector, finding)
        case _:
            return _node_requirements(facts, pool, finding)


def _node_requirements(facts: NodeFacts, pool: Pool, finding: Finding) -> Diagnosis:
    """Diagnose an unmet criterion that no single service decides: of the node, or of the spec of the pool itself."""
    view, report, name = facts.view, facts.view.node.report, facts.name
    observed, since, remedy = finding.observed, None, ""
    match finding.criterion:
        case Criterion.NOT_REPORTED if report:
            observed, since = f"epoch {report.epoch}, sequence {report.sequence}", report.time
        case Criterion.NOT_REPORTED:
            since = since_of(view, "Ready")
            remedy = f"{'fix' if view.node.problem else 'start'} the agent: hotpool-agent run on {name}"
        case Criterion.OFFLINE:
            observed, since = _liveness_remark(view), since_of(view, "Ready", _LIVENESS)
            remedy = f"wait for a heartbeat; look at the agent: hotpool-agent status on {name}"
        case Criterion.LEAVING:
            since = report.time if report and report.leaving else None
            remedy = f"start the agent again: hotpool-agent run on {name}"
        case Criterion.NODE_SHUTDOWN:
            since = since_of(view, "Ready", frozenset({NODE_SHUTDOWN, NODE_OUT_OF_SERVICE}))
            remedy = end_of_shutdown(view)
        case Criterion.EXCLUDED:
            remedy = f"remove {name} from spec.excludeNodes of nodepool {pool.meta.name}"
        case Criterion.EMPTY_REQUIREMENTS:
            remedy = f"require something in spec.requires of nodepool {pool.meta.name}, or set matchAll: true"
        case Criterion.HASH:
            remedy = f"nothing but another name: the part of {name} follows from its name, and another pool has it"
        case Criterion.HARDWARE:
            least = f"require less in spec.requires.hardware of nodepool {pool.meta.name}"
            status = f"look at hotpool-agent status on {name}, which has the problem gpus if they cannot be read"
            remedy = f"{status}, or {least}"
        case _:
            pass
    return Diagnosis(observed, since, (remedy,) if remedy and not finding.met else ())


def _liveness_remark(view: NodeView) -> str:
    stored = view.node.conditions.get("Ready")
    return f"{view.liveness} (condition Ready)" if stored else "the operator has not seen the node yet"


def _membership_remarks(pool: Pool, membership: MembershipState) -> Iterable[Remark]:
    """Yield remarks on the brake, pause, mode, spec and pending writes."""
    name = pool.meta.name
    match membership:
        case MembershipState.RETAINED:
            mass_silence = next(item for item in pool.status.conditions if item.type == MASS_SILENCE)
            text = f"the brake holds the node in the pool, condition {MASS_SILENCE}: {mass_silence.message}"
            yield Remark(membership, text, mass_silence.last_transition_time)
        case MembershipState.PAUSED:
            undo = f"kubectl annotate nodepool {name} hotpool.dev/paused-"
            yield Remark(membership, "the pool is paused: its members stay as they are", None, (undo,))
        case MembershipState.DRY_RUN:
            undo = f"set spec.mode to Active in nodepool {name}"
            yield Remark(membership, "the pool is in mode DryRun: no membership is written", None, (undo,))
        case MembershipState.INVALID_SPEC:
            text = f"the pool's spec cannot be used, its members stay as they are: {pool.problem}"
            yield Remark(membership, text, None, ("correct the spec",))
        case MembershipState.PENDING:
            text = "the slices do not show it yet: the operator is about to write them, or is not running"
            yield Remark(membership, text)
        case _:
            pass


def explain_pool(views: Mapping[str, NodeView], pool: Pool, members: Mapping[str, Member]) -> PoolExplanation:
    """Explain one pool: its members, and other nodes, nearest to membership first. Those without a report are last."""
    outside = {name: view for name, view in views.items() if name not in members}
    failed = {name: [f.criterion for f in evaluate(view, pool.spec) if not f.met] for name, view in outside.items()}
    misses = [name for name, criteria in failed.items() if criteria]
    misses.sort(key=lambda name: (failed[name][0] is Criterion.NOT_REPORTED, len(failed[name]), name))
    return PoolExplanation(
        members=Counter(member.state for member in members.values()),
        reasons=Counter(failed[name][0] for name in misses),
        pending=len(outside) - len(misses),
        candidates=tuple(misses),
    )
