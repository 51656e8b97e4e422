"""Text output of `why`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.text import Text

from hotpool.api.slice import MemberState
from hotpool.cli.node_events import HistoryEntry
from hotpool.cli.render.tables import BAD, BOLD, GOOD, WARNING, listing, plural, print_line, sentence, table
from hotpool.common.durations import ago
from hotpool.core.capacity import ReadyService, limits_of
from hotpool.core.explain.explain import Explanation, MembershipState, PoolExplanation
from hotpool.core.explain.remarks import missing_service
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.matching import MatchResult, describe_endpoint
from hotpool.core.model import Pool

if TYPE_CHECKING:
    from hotpool.lookup import Ejection

_MAX_FAILED: Final = 2
"""Unmet requirements to show of each near miss."""
_LINE_WIDTH: Final = 80
_CELL_WIDTH: Final = 55
"""Columns for a verdict in a table; a longer verdict is shortened."""


def show_explanation(explanation: Explanation, now: datetime) -> None:
    """Print the output of `why NODE POOL`."""
    requirements = explanation.requirements
    rows = [(_met(met=item.met), item.required, item.observed, ago(item.since, now)) for item in requirements]
    head = f"{explanation.node} in {explanation.pool}: "
    print_line(Text.assemble((head, BOLD), _verdict(explanation, now, _LINE_WIDTH - len(head))))
    print_line("", table(("MET", "REQUIREMENT", "OBSERVED", "SINCE"), rows))
    for remark in explanation.remarks:
        print_line("", f"{sentence(remark.text)}{f' ({ago(remark.since, now)})' if remark.since else ''}.")
    if explanation.first_unmet:
        print_line("", f"Decided by {explanation.first_unmet.criterion}: {explanation.first_unmet.required}.")
    _show_remedies(explanation)


def _met(*, met: bool) -> Text:
    return Text("yes", GOOD) if met else Text("NO", BAD)


def _show_remedies(explanation: Explanation) -> None:
    """Print the remedies of all unmet requirements and of the remarks."""
    needed = [remedy for item in explanation.requirements if not item.met for remedy in item.remedies]
    remedies = dict.fromkeys([*needed, *(remedy for remark in explanation.remarks for remedy in remark.remedies)])
    if remedies:
        print_line("", "Remedies, all needed:" if len(remedies) > 1 else "Remedy:", listing(remedies))


def _verdict(explanation: Explanation, now: datetime, width: int) -> Text:
    """Return the verdict in one line of at most `width` columns, unless names are longer."""
    member = explanation.current
    current = f"member {member.state}, since {ago(member.since, now)}" if member else "out"
    match explanation.membership:
        case MembershipState.MEMBER:
            return Text(current, _colour(explanation.verdict))
        case MembershipState.RETAINED if member:
            return Text(f"retained by the brake as {member.state}, in the pool since {ago(member.since, now)}", WARNING)
        case MembershipState.OUT:
            return Text(_match_text(explanation, "", "", width), BAD)
        case MembershipState.DRY_RUN:
            return Text(_match_text(explanation, "would be ", " (DryRun)", width), WARNING)
        case MembershipState.PAUSED | MembershipState.INVALID_SPEC:
            return Text(_match_text(explanation, f"{current} ({explanation.membership}; else ", ")", width), WARNING)
        case _:
            return Text(_match_text(explanation, f"{current}, about to be ", "", width), WARNING)


def _match_text(explanation: Explanation, before: str, after: str, width: int) -> str:
    """Return the result of matching; leave out the observation, then the requirement, if it is longer than `width`."""
    decided, criterion = explanation.first_unmet, explanation.verdict.criterion
    if decided is None:
        return f"{before}member {explanation.verdict.state}{after}"
    full = f"{before}out: {criterion} ({decided.required}: {decided.observed}){after}"
    short = f"{before}out: {criterion} ({decided.required}){after}"
    return next((text for text in (full, short) if len(text) <= width), f"{before}out: {criterion}{after}")


def _colour(verdict: MatchResult) -> str:
    return GOOD if verdict.state == "Ready" else WARNING


def show_pool(
    pool: Pool, summary: PoolExplanation, nearest: Sequence[Explanation], undeclared: Sequence[str] = ()
) -> None:
    """Print the output of `why --pool P`."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.members.items()))
    members = plural(summary.members.total(), "member") + (f" ({states})" if states else "")
    print_line(Text.assemble((f"{pool.meta.name}: ", BOLD), f"{members}, {sum(summary.reasons.values())} out"))
    if summary.pending:
        print_line(f"{_unwritten(pool, summary.pending)}.")
    if problem := missing_service(pool):
        print_line(f"No Service: {problem}.")
    _show_misses(summary, nearest, undeclared)
    if summary.candidates:
        print_line("", f"For remedies: hotpool why {summary.candidates[0]} {pool.meta.name}")


def show_proposed(
    pool: Pool,
    joins: Mapping[str, MemberState],
    summary: PoolExplanation,
    nearest: Sequence[Explanation],
    undeclared: Sequence[str],
) -> None:
    """Print one pool of `why -f`."""
    counts = f"{plural(len(joins), 'node')} would join, {sum(summary.reasons.values())} would not"
    print_line(Text.assemble((f"{pool.meta.name} as in -f: ", BOLD), counts))
    if pool.paused or pool.spec.mode == "DryRun":
        print_line("In mode DryRun nothing is written." if pool.spec.mode == "DryRun" else "While paused, none joins.")
    if joins:
        rows = [(node, Text(state, GOOD if state == "Ready" else WARNING)) for node, state in joins.items()]
        print_line("", table(("WOULD JOIN", "STATE"), rows))
    _show_misses(summary, nearest, undeclared)


def _show_misses(summary: PoolExplanation, nearest: Sequence[Explanation], undeclared: Sequence[str]) -> None:
    """Print the reasons of the nodes that are out, and the nearest misses."""
    for text in undeclared:
        print_line(Text(f"{sentence(text)}.", WARNING))
    if not summary.reasons:
        return
    rows = [(criterion, str(count)) for criterion, count in summary.reasons.most_common()]
    print_line("", table(("OUT BECAUSE", "NODES"), rows, right=["NODES"]))
    print_line("", table(("NEAREST MISSES", "UNMET", "REQUIREMENTS"), map(_miss, nearest), right=["UNMET"]))
    if len(summary.candidates) > len(nearest):
        print_line(f"… and {len(summary.candidates) - len(nearest)} more: --limit")


def _unwritten(pool: Pool, count: int) -> str:
    nodes = plural(count, "node")
    if pool.spec.mode == "DryRun":
        return f"Mode DryRun: {nodes} would be members"
    if pool.paused:
        return f"The pool is paused; otherwise {nodes} would join"
    return f"{nodes} will join: the operator has not written it yet, or does not run"


def _miss(explanation: Explanation) -> tuple[str, str, str]:
    unmet = [f"{item.required}: {item.observed}" for item in explanation.requirements if not item.met]
    more = f"; and {len(unmet) - _MAX_FAILED} more" if len(unmet) > _MAX_FAILED else ""
    return explanation.node, str(len(unmet)), "; ".join(unmet[:_MAX_FAILED]) + more


def show_node(
    facts: NodeFacts,
    explanations: Sequence[Explanation],
    history: Sequence[HistoryEntry],
    ejections: "Sequence[Ejection]",
    now: datetime,
) -> None:
    """Print the output of `why --node N`."""
    ready = facts.view.node.conditions.get("Ready")
    reason = f"{ready.reason}, since {ago(ready.since, now)}" if ready else "not seen by the operator yet"
    running = sum(service.state == "Running" for service in facts.services)
    members = sum(item.current is not None for item in explanations)
    counts = f"{running}/{len(facts.services)} services run, in {members} of {plural(len(explanations), 'pool')}"
    print_line(Text.assemble((f"{facts.name}: ", BOLD), f"{reason}; {counts}"))
    if explanations:
        rows = ((item.pool, _verdict(item, now, _CELL_WIDTH)) for item in explanations)
        print_line("", table(("POOL", "VERDICT"), rows))
    _show_services(facts)
    for item in ejections:
        print_line("", Text(_ejection_text(item, now), BAD))
    _show_transitions(history, now)


def _show_services(facts: NodeFacts) -> None:
    """Print endpoints and limits of the ready services. A former agent reports neither."""
    services, limits = facts.ready_services, limits_of(facts.view)
    if limits is None and not any(item.endpoint or item.endpoint_reason for item in services):
        return
    rows = [(item.service, item.type, describe_endpoint(facts.view, item)) for item in services]
    if limits is None:
        print_line("", table(("SERVICE", "TYPE", "ENDPOINT"), rows))
        return
    found = (limits.services.get(ReadyService(item.type, item.service)) for item in services)
    limited = ((*row, str(limit or "none")) for row, limit in zip(rows, found, strict=True))
    print_line("", table(("SERVICE", "TYPE", "ENDPOINT", "LIMIT"), limited, right=["LIMIT"]))
    ready = {item.type for item in services}
    texts = (
        f"{type_} {limit}{'' if type_ in ready else ' (no ready service)'}" for type_, limit in limits.types.items()
    )
    if limits.types:
        print_line("", f"Limits of types (spec.limits): {', '.join(texts)}.")


def _ejection_text(item: "Ejection", now: datetime) -> str:
    """Return the state of an ejected service. Its times are by the clock of Redis."""
    what = f"Service {item.service} ({item.type})" if item.service else "The node"
    wait = item.until - now.timestamp()
    trial = f"in {wait:.0f} s" if wait > 0 else "once a second"
    since = f"since {max(0.0, now.timestamp() - item.since):.0f} s"
    return f"{what} is ejected by {plural(len(item.sources), 'source')}, {since}: picked last, and tried {trial}."


def _show_transitions(history: Iterable[HistoryEntry], now: datetime) -> None:
    rows = [
        (ago(item.time, now), item.reason, item.message + (f" (x{item.count})" if item.count > 1 else ""))
        for item in history
    ]
    print_line("", table(("AGO", "REASON", "MESSAGE"), rows) if rows else "No recent transitions are known.")
