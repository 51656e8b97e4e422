"""Match of a node with a pool, and the criterion that keeps a node out (requirement D2).

The only place of this decision. A spec is compiled into predicates once; membership, generators, `hotpool why`,
`hotpool diff` and DryRun evaluate the same predicates. Pure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Final, cast

from hotpool.api.languages import normalise_language
from hotpool.api.pool import (
    AttributeRequirement,
    HardwareRequirement,
    HashRequirement,
    LabelExpression,
    LabelSelector,
    LanguageRequirement,
    TypeRequirement,
)
from hotpool.api.pool import PoolTemplateSpec as Spec
from hotpool.api.slice import MemberState
from hotpool.common.hashing import slot
from hotpool.core.address_problems import host_and_port
from hotpool.core.hardware import minimums
from hotpool.core.kube_node_health import describe_shutdown
from hotpool.core.language_pairs import Pairs
from hotpool.core.model import Liveness, NodeView, Report, ServiceOffer


class Criterion(StrEnum):
    """Criteria in the order of their evaluation; also the reasons in `status.excluded`.

    Offline is the last, so that it means: would be a member but for its silence.
    """

    NOT_REPORTED = "NotReported"
    LEAVING = "Leaving"
    NODE_SHUTDOWN = "NodeShutdown"
    EXCLUDED = "ExcludedByName"
    EMPTY_REQUIREMENTS = "EmptyRequirements"
    NODE_SELECTOR = "NodeSelector"
    HASH = "Hash"
    HARDWARE = "Hardware"
    TYPE = "TypeNotReady"
    ATTRIBUTE = "Attribute"
    LANGUAGE_PAIR = "LanguagePair"
    ENDPOINT = "NoEndpoint"
    OFFLINE = "Offline"


@dataclass(frozen=True, slots=True)
class Predicate:
    """One requirement of a spec. Except for NotReported, `met` and `observed` need a view with a report."""

    criterion: Criterion
    required: str
    met: Callable[[NodeView], bool]
    observed: Callable[[NodeView], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one requirement: met or not, and the observed value."""

    criterion: Criterion
    met: bool
    required: str
    observed: str = ""


@dataclass(frozen=True, slots=True)
class MatchResult:
    """State of a member, or the criterion that keeps the node out."""

    state: MemberState | None
    criterion: Criterion | None = None
    unreachable: MemberState | None = None
    """State in which the brake may retain a node that only its silence (4 H to 600 s) keeps out."""


NO_RESULT: Final = MatchResult(None)
"""Result of a node that is not matched, for example because it was deleted."""
_MATCH: dict[MemberState, MatchResult] = {
    "Ready": MatchResult("Ready"),
    "Suspect": MatchResult("Suspect"),
    "Draining": MatchResult("Draining"),
}
_NO_MATCH = {criterion: MatchResult(None, criterion) for criterion in Criterion}
_UNREACHABLE = {state: MatchResult(None, Criterion.OFFLINE, state) for state in _MATCH}


def match(view: NodeView, spec: Spec) -> MatchResult:
    """Match one node against the spec of a pool, or the template of a generator."""
    return first_failure(view, predicates(spec))


def first_failure(view: NodeView, compiled: tuple[Predicate, ...]) -> MatchResult:
    """Match one node against the predicates of a spec: the first that is not met decides."""
    for predicate in compiled:
        if not predicate.met(view):
            silent = predicate is _OFFLINE and not view.expired
            return _UNREACHABLE[member_state(view)] if silent else _NO_MATCH[predicate.criterion]
    return _MATCH[member_state(view)]


def match_silence(view: NodeView) -> MatchResult:
    """Return the result of a node that meets all requirements but, perhaps, the last one, which silence decides."""
    return first_failure(view, (_OFFLINE,))


def member_state(view: NodeView) -> MemberState:
    """Return the state of a member: Draining has precedence over Suspect (requirements C1, C8)."""
    if view.draining:
        return "Draining"
    return "Ready" if view.liveness is Liveness.LIVE and view.kube_problem is None else "Suspect"


def evaluate(view: NodeView, spec: Spec) -> Iterator[Finding]:
    """Yield the result of every requirement in order; the first unmet one decides. Stop after an unmet NotReported.

    Leave out NodeShutdown of a node without a v1 Node.
    """
    for predicate in predicates(spec):
        if predicate.criterion is Criterion.NODE_SHUTDOWN and view.kube is None:
            continue
        met = predicate.met(view)
        yield Finding(predicate.criterion, met, predicate.required, predicate.observed(view))
        if predicate.criterion is Criterion.NOT_REPORTED and not met:
            return


def predicates(spec: Spec) -> tuple[Predicate, ...]:
    """Return the predicates of a spec in order: those of every pool, and one for each requirement that it states."""
    return tuple(_predicates(spec))


def _predicates(spec: Spec) -> Iterator[Predicate]:
    requires = spec.requires
    yield _NOT_REPORTED
    yield _LEAVING
    yield _NODE_SHUTDOWN
    if spec.exclude_nodes:
        yield _exclusion_predicate(frozenset(spec.exclude_nodes))
    if has_no_requirements(spec):
        yield _EMPTY_REQUIREMENTS
    if requires.node_selector:
        yield _selector_predicate(requires.node_selector)
    if requires.hash:
        yield _hash_predicate(requires.hash)
    if requires.hardware:
        yield from _hardware_predicates(requires.hardware)
    for required in requires.types:
        yield _type_predicate(required.type)
        if required.attributes:
            yield _attribute_predicate(required)
    if requires.language_pairs:
        yield from _language_predicates(requires.language_pairs)
    if requires.endpoint == "Required":
        yield from map(_endpoint_predicate, requires.types)
    yield _OFFLINE


def has_no_requirements(spec: Spec) -> bool:
    """Return True if a spec matches no node because it requires nothing and does not set matchAll."""
    requires = spec.requires
    selector = requires.node_selector
    selecting = selector is not None and bool(selector.match_labels or selector.match_expressions)
    sized = requires.hardware is not None and not requires.hardware.states_nothing
    return not (requires.match_all or requires.types or requires.language_pairs or requires.hash or sized or selecting)


_report_of: Final = cast("Callable[[NodeView], Report]", attrgetter("node.report"))
"""The report of a view, which the criterion NotReported guarantees; half the cost of a function."""
_NOTHING: Final[frozenset[str]] = frozenset()
_NOT_REPORTED = Predicate(
    Criterion.NOT_REPORTED,
    "a valid report",
    lambda view: view.node.report is not None,
    lambda view: "reported" if view.node.report else view.node.problem or "no report",
)
_LEAVING = Predicate(
    Criterion.LEAVING,
    "not leaving",
    lambda view: not _report_of(view).leaving,
    lambda view: "leaving" if _report_of(view).leaving else "staying",
)
_NODE_SHUTDOWN = Predicate(
    Criterion.NODE_SHUTDOWN,
    "a Node that is not shut down",
    lambda view: view.shutdown is None,
    lambda view: describe_shutdown(view.shutdown),
)
_EMPTY_REQUIREMENTS = Predicate(
    Criterion.EMPTY_REQUIREMENTS, "requirements, or matchAll", lambda _: False, lambda _: "spec.requires is empty"
)
_OFFLINE = Predicate(
    Criterion.OFFLINE, "a heartbeat", lambda view: view.liveness is not Liveness.OFFLINE, lambda view: view.liveness
)


def _exclusion_predicate(names: frozenset[str]) -> Predicate:
    return Predicate(
        Criterion.EXCLUDED,
        "not in excludeNodes",
        lambda view: view.node.meta.name not in names,
        lambda view: "excluded" if view.node.meta.name in names else "not excluded",
    )


def _selector_predicate(selector: LabelSelector) -> Predicate:
    keys = [*selector.match_labels, *(expression.key for expression in selector.match_expressions)]

    def observed(view: NodeView) -> str:
        return ", ".join(_describe_label(view, key) for key in keys)

    words = [f"{key}={value}" for key, value in selector.match_labels.items()]
    words += [" ".join((e.key, e.operator, ",".join(e.values))).strip() for e in selector.match_expressions]
    return Predicate(
        Criterion.NODE_SELECTOR,
        f"labels {'; '.join(words) or 'any'}",
        lambda view: selects(selector, view.labels),
        observed,
    )


def _describe_label(view: NodeView, key: str) -> str:
    if key not in view.labels:
        return f"no {key}"
    return f"{key}={view.labels[key]}" + ("" if key in view.node.labels else " (label of the Node)")


def _hash_predicate(required: HashRequirement) -> Predicate:
    def slot_of(view: NodeView) -> int:
        return slot(view.node.meta.name, required.seed, required.count)

    of = f"of {required.count}, seed {required.seed!r}"
    return Predicate(
        Criterion.HASH,
        f"hash part {required.index} {of}",
        lambda view: slot_of(view) == required.index,
        lambda view: f"part {slot_of(view)}",
    )


def _hardware_predicates(required: HardwareRequirement) -> Iterator[Predicate]:
    for minimum in minimums(required):
        met, observed = minimum.met, minimum.observed
        yield Predicate(
            Criterion.HARDWARE,
            minimum.required,
            lambda view, met=met: met(_report_of(view).hardware),  # type: ignore[misc]
            lambda view, observed=observed: observed(_report_of(view).hardware),  # type: ignore[misc]
        )


def _type_predicate(type_: str) -> Predicate:
    def met(view: NodeView) -> bool:
        state = _report_of(view).types.get(type_)
        return state is not None and state.ready

    def observed(view: NodeView) -> str:
        state = _report_of(view).types.get(type_)
        return "ready" if state and state.ready else (state and state.reason) or "NotInstalled"

    return Predicate(Criterion.TYPE, f"type {type_} ready", met, observed)


def _attribute_predicate(required: TypeRequirement) -> Predicate:
    """Return the predicate that one service meets all attribute requirements of its type."""
    meets = attribute_filter(required)

    def met(view: NodeView) -> bool:
        return any(map(meets, _report_of(view).offers.get(required.type, ())))

    def observed(view: NodeView) -> str:
        offers = _report_of(view).offers.get(required.type, ())
        return "; ".join(f"{offer.service}: {_declared(offer, required)}" for offer in offers) or "no ready service"

    wanted = ", ".join(_describe_filter(attribute) for attribute in required.attributes)
    return Predicate(Criterion.ATTRIBUTE, f"one {required.type} service with {wanted}", met, observed)


def attribute_filter(required: TypeRequirement) -> Callable[[ServiceOffer], bool]:
    """Return the function that is True for a service of the type that meets all its attribute requirements."""
    filters = tuple(AttributeFilter.of(attribute) for attribute in required.attributes)
    return lambda offer: all(item.met(offer) for item in filters)


def _endpoint_predicate(required: TypeRequirement) -> Predicate:
    """Return the predicate that one service that meets the attribute requirements of its type has an endpoint."""
    meets = attribute_filter(required)

    def offers(view: NodeView) -> list[ServiceOffer]:
        return [offer for offer in _report_of(view).offers.get(required.type, ()) if meets(offer)]

    def met(view: NodeView) -> bool:
        return any(offer.service in view.endpoints for offer in offers(view))

    def observed(view: NodeView) -> str:
        return "; ".join(f"{offer.service}: {describe_endpoint(view, offer)}" for offer in offers(view)) or "no service"

    return Predicate(Criterion.ENDPOINT, f"an endpoint of type {required.type}", met, observed)


def describe_endpoint(view: NodeView, offer: ServiceOffer) -> str:
    """Return the addresses of a ready service, or why it has none."""
    if endpoint := view.endpoints.get(offer.service):
        return ", ".join(host_and_port(address, endpoint.port) for address in endpoint.addresses)
    unusable = [problem for problem in view.address_problems if problem.service == offer.service]
    if unusable:
        return " and ".join(f"{problem.address} {problem.reason}" for problem in unusable)
    return offer.endpoint_reason or ("NoAddress" if offer.endpoint else "not reported")


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """One attribute requirement as sets, so that the cost depends on the values of the service, not of the spec."""

    key: str
    any_of: frozenset[str] | None
    all_of: frozenset[str] | None

    @classmethod
    def of(cls, attribute: AttributeRequirement) -> "AttributeFilter":
        """Convert the requirement of a spec."""
        any_of, all_of = attribute.any_of, attribute.all_of
        return cls(
            attribute.key,
            None if any_of is None else frozenset(any_of),
            None if all_of is None else frozenset(all_of),
        )

    def met(self, offer: ServiceOffer) -> bool:
        """Return True if a service declares the required values."""
        declared = offer.attributes.get(self.key, _NOTHING)
        any_of, all_of = self.any_of, self.all_of
        return (any_of is None or not declared.isdisjoint(any_of)) and (all_of is None or declared >= all_of)


def _describe_filter(attribute: AttributeRequirement) -> str:
    parts = (("any of", attribute.any_of), ("all of", attribute.all_of))
    return f"{attribute.key} " + " and ".join(f"{word} {','.join(values)}" for word, values in parts if values)


def _declared(offer: ServiceOffer, required: TypeRequirement) -> str:
    pairs = ((wanted.key, offer.attributes.get(wanted.key)) for wanted in required.attributes)
    return ", ".join(f"{key}={','.join(sorted(values))}" if values else f"no {key}" for key, values in pairs)


def _language_predicates(required: LanguageRequirement) -> Iterator[Predicate]:
    for pair in required.all_of:
        yield _pair_predicate(normalise_pair(pair), semantic=required.semantic)


def normalise_pair(pair: str) -> str:
    """Return a required pair with the language codes that reports are decoded to."""
    source, _, target = pair.partition("-")
    wanted = source if source == "*" else normalise_language(source)
    return f"{wanted}-{normalise_language(target) or target}"


def offers_pair(pairs: Pairs, pair: str) -> bool:
    """Return True if the pairs contain one in the form of `normalise_pair`; `*-tgt`: any with this target."""
    return pair[2:] in pairs.targets if pair.startswith("*-") else pair in pairs


def _pair_predicate(pair: str, *, semantic: bool) -> Predicate:
    def met(view: NodeView) -> bool:
        return offers_pair(view.semantic_pairs if semantic else view.pairs, pair)

    suffix = " with semantic repair" if semantic else ""
    return Predicate(
        Criterion.LANGUAGE_PAIR,
        f"language pair {pair}{suffix}",
        met,
        lambda view: "offered" if met(view) else "not offered",
    )


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return True if labels match a selector, by the rules of metav1.LabelSelector."""
    exact = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return exact and all(_expression_matches(expression, labels) for expression in selector.match_expressions)


def _expression_matches(expression: LabelExpression, labels: Mapping[str, str]) -> bool:
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
