"""Whether a node is in a pool, and which gate decided (behaviour D2).

The one function that decides: the state, generators, `why` and dry run all ask it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hotpool.api.languages import normalise_language
from hotpool.api.pool import (
    AttributeRequirement,
    HashRequirement,
    LabelExpression,
    LabelSelector,
    LanguageRequirement,
    TypeRequirement,
)
from hotpool.api.pool import PoolTemplateSpec as Spec
from hotpool.api.slice import MemberState
from hotpool.core.hashing import slot
from hotpool.core.model import Liveness, NodeView, Offer, Report


class Gate(StrEnum):
    """The gates in the order in which they are asked; also the reasons in `status.excluded`."""

    NOT_REPORTED = "NotReported"
    OFFLINE = "Offline"
    LEAVING = "Leaving"
    EXCLUDED = "ExcludedByName"
    NOTHING_REQUIRED = "RequiresNothing"
    NODE_SELECTOR = "NodeSelector"
    HASH = "Hash"
    TYPE = "TypeNotReady"
    ATTRIBUTE = "Attribute"
    LANGUAGE_PAIR = "LanguagePair"


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement, what was observed of it, and whether it holds."""

    gate: Gate
    holds: bool
    required: str
    observed: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A member's state, or the gate that keeps the node out."""

    state: MemberState | None
    gate: Gate | None = None


_MEMBER: dict[MemberState, Verdict] = {
    "Ready": Verdict("Ready"),
    "Suspect": Verdict("Suspect"),
    "Draining": Verdict("Draining"),
}
_OUT = {gate: Verdict(None, gate) for gate in Gate}


def judge(view: NodeView, spec: Spec) -> Verdict:
    """The verdict on one node for one pool (or a generator's template)."""
    for finding in findings(view, spec):
        if not finding.holds:
            return _OUT[finding.gate]
    return _MEMBER[member_state(view)]


def member_state(view: NodeView) -> MemberState:
    """How a member is offered: drain comes before silence (behaviour C1)."""
    if view.draining:
        return "Draining"
    return "Suspect" if view.liveness is Liveness.SUSPECT else "Ready"


def findings(view: NodeView, spec: Spec) -> Iterator[Finding]:
    """Every requirement in the order of the gates; the first that does not hold decides."""
    node, report, requires = view.node, view.node.report, spec.requires
    yield Finding(Gate.NOT_REPORTED, report is not None, "a valid report", node.problem or "")
    if report is None:
        return
    yield Finding(Gate.OFFLINE, view.liveness is not Liveness.OFFLINE, "a heartbeat", view.liveness)
    yield Finding(Gate.LEAVING, not report.leaving, "not leaving")
    yield Finding(Gate.EXCLUDED, node.meta.name not in spec.exclude_nodes, "not in excludeNodes")
    yield Finding(Gate.NOTHING_REQUIRED, not requires_nothing(spec), "requirements, or matchAll")
    if requires.node_selector:
        yield Finding(Gate.NODE_SELECTOR, selects(requires.node_selector, node.labels), "nodeSelector")
    if requires.hash:
        yield _hash_finding(node.meta.name, requires.hash)
    for required in requires.types:
        yield from _type_findings(report, required)
    if requires.language_pairs:
        yield from _pair_findings(view, requires.language_pairs)


def requires_nothing(spec: Spec) -> bool:
    """True where a spec would match nothing because it requires nothing and does not say matchAll."""
    requires = spec.requires
    selector = requires.node_selector
    selecting = selector is not None and bool(selector.match_labels or selector.match_expressions)
    return not (requires.match_all or requires.types or requires.language_pairs or requires.hash or selecting)


def _hash_finding(node: str, required: HashRequirement) -> Finding:
    found = slot(node, required.seed, required.count)
    of = f"of {required.count}"
    return Finding(Gate.HASH, found == required.index, f"hash {required.index} {of}", f"hash {found} {of}")


def _type_findings(report: Report, required: TypeRequirement) -> Iterator[Finding]:
    state = report.types.get(required.type)
    ready = state is not None and state.ready
    observed = "ready" if ready else (state and state.reason) or "NotInstalled"
    yield Finding(Gate.TYPE, ready, f"type {required.type} ready", observed)
    if required.attributes:
        offers = report.offers.get(required.type, ())
        holds = any(all(meets(offer, wanted) for wanted in required.attributes) for offer in offers)
        keys = ", ".join(wanted.key for wanted in required.attributes)
        yield Finding(Gate.ATTRIBUTE, holds, f"attributes of {required.type}: {keys}")


def meets(offer: Offer, wanted: AttributeRequirement) -> bool:
    """Whether a service declares what one attribute requirement wants."""
    declared = offer.attributes.get(wanted.key, frozenset())
    any_of, all_of = wanted.any_of, wanted.all_of
    return (any_of is None or not declared.isdisjoint(any_of)) and (all_of is None or declared.issuperset(all_of))


def _pair_findings(view: NodeView, required: LanguageRequirement) -> Iterator[Finding]:
    offered = view.semantic_pairs if required.semantic else view.pairs
    for pair in required.all_of:
        source, _, target = pair.partition("-")
        target = normalise_language(target) or target
        holds = target in offered.targets if source == "*" else f"{normalise_language(source)}-{target}" in offered
        yield Finding(Gate.LANGUAGE_PAIR, holds, f"language pair {pair}")


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether labels match a selector, by the rules of metav1.LabelSelector."""
    exact = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return exact and all(_expression_holds(expression, labels) for expression in selector.match_expressions)


def _expression_holds(expression: LabelExpression, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value is not None and value in expression.values
        case "NotIn":
            return value is None or value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
