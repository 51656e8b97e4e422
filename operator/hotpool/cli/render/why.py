"""What `why` prints for people.

Decides nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.text import Text

from hotpool.cli.node_events import HistoryEntry
from hotpool.cli.render.tables import BAD, DOUBTFUL, GOOD, HEAD, listing, plural, print_line, table
from hotpool.common.durations import ago
from hotpool.core.explain.explain import Explanation, MembershipState, PoolExplanation
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.matching import MatchResult
from hotpool.core.model import Pool

_FAILED_SHOWN: Final = 2
"""Requirements told of each near miss."""
_LINE: Final = 80
_CELL: Final = 55
"""Columns for a verdict; a longer one leaves out what is told below."""


def show_explanation(answer: Explanation, now: datetime) -> None:
    """`why NODE POOL`."""
    rows = [
        (_holds(holds=item.met), item.required, item.observed, ago(item.since, now)) for item in answer.requirements
    ]
    head = f"{answer.node} in {answer.pool}: "
    print_line(Text.assemble((head, HEAD), _verdict(answer, now, _LINE - len(head))))
    print_line("", table(("HOLDS", "REQUIREMENT", "OBSERVED", "SINCE"), rows))
    for remark in answer.remarks:
        print_line("", f"{_sentence(remark.text)}{f' ({ago(remark.since, now)})' if remark.since else ''}.")
    if answer.first_unmet:
        print_line("", f"Decided by {answer.first_unmet.criterion}: {answer.first_unmet.required}.")
    _show_remedies(answer)


def _holds(*, holds: bool) -> Text:
    return Text("yes", GOOD) if holds else Text("NO", BAD)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _show_remedies(answer: Explanation) -> None:
    """What would change it: everything that does not hold must."""
    needed = [way for item in answer.requirements if not item.met for way in item.remedies]
    ways = dict.fromkeys([*needed, *(way for remark in answer.remarks for way in remark.remedies)])
    if ways:
        together = ", all of this together" if len(ways) > 1 else ""
        print_line("", f"What would change it{together}:", listing(ways))


def _verdict(answer: Explanation, now: datetime, room: int) -> Text:
    """The verdict in one line of so many columns, as far as names allow."""
    member = answer.current
    is_now = f"member {member.state}, since {ago(member.since, now)}" if member else "out"
    match answer.membership:
        case MembershipState.MEMBER:
            return Text(is_now, _colour(answer.verdict))
        case MembershipState.RETAINED if member:
            return Text(f"held by the brake as {member.state}, in the pool since {ago(member.since, now)}", DOUBTFUL)
        case MembershipState.OUT:
            return Text(_judged(answer, "", "", room), BAD)
        case MembershipState.DRY_RUN:
            return Text(_judged(answer, "would be ", " (DryRun)", room), DOUBTFUL)
        case MembershipState.PAUSED | MembershipState.INVALID_SPEC:
            return Text(_judged(answer, f"{is_now} ({answer.membership}; else ", ")", room), DOUBTFUL)
        case _:
            return Text(_judged(answer, f"{is_now}, about to be ", "", room), DOUBTFUL)


def _judged(answer: Explanation, before: str, after: str, room: int) -> str:
    """What the judge says; what was observed, and what was required, only where there is room for it."""
    decided, gate = answer.first_unmet, answer.verdict.criterion
    if decided is None:
        return f"{before}member {answer.verdict.state}{after}"
    full = f"{before}out: {gate} ({decided.required}: {decided.observed}){after}"
    short = f"{before}out: {gate} ({decided.required}){after}"
    return next((text for text in (full, short) if len(text) <= room), f"{before}out: {gate}{after}")


def _colour(verdict: MatchResult) -> str:
    return GOOD if verdict.state == "Ready" else DOUBTFUL


def show_pool(pool: Pool, survey: PoolExplanation, nearest: Sequence[Explanation]) -> None:
    """`why --pool P`."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(survey.members.items()))
    members = plural(survey.members.total(), "member") + (f" ({states})" if states else "")
    print_line(Text.assemble((f"{pool.meta.name}: ", HEAD), f"{members}, {sum(survey.reasons.values())} out"))
    if survey.pending:
        print_line(f"{_unwritten(pool, survey.pending)}.")
    if not survey.reasons:
        return
    rows = [(gate, str(count)) for gate, count in survey.reasons.most_common()]
    print_line("", table(("OUT BECAUSE", "NODES"), rows, right=["NODES"]))
    print_line("", table(("NEAREST MISSES", "FAILS", "WHICH"), map(_miss, nearest), right=["FAILS"]))
    if len(survey.candidates) > len(nearest):
        print_line(f"… and {len(survey.candidates) - len(nearest)} more: --limit")
    print_line("", f"What would flip it: hotpool why {survey.candidates[0]} {pool.meta.name}")


def _unwritten(pool: Pool, count: int) -> str:
    nodes = plural(count, "node")
    if pool.spec.mode == "DryRun":
        return f"Mode DryRun: {nodes} would be members"
    if pool.paused:
        return f"The pool is paused: else {nodes} would come in"
    return f"{nodes} will come in: the operator has not written it yet, or does not run"


def _miss(answer: Explanation) -> tuple[str, str, str]:
    told = [f"{item.required}: {item.observed}" for item in answer.requirements if not item.met]
    more = f"; and {len(told) - _FAILED_SHOWN} more" if len(told) > _FAILED_SHOWN else ""
    return answer.node, str(len(told)), "; ".join(told[:_FAILED_SHOWN]) + more


def show_node(facts: NodeFacts, answers: Sequence[Explanation], last: Sequence[HistoryEntry], now: datetime) -> None:
    """`why --node N`."""
    ready = facts.view.node.conditions.get("Ready")
    said = f"{ready.reason}, since {ago(ready.since, now)}" if ready else "not seen by the operator yet"
    running = sum(service.state == "Running" for service in facts.services)
    members = sum(answer.current is not None for answer in answers)
    counts = f"{running}/{len(facts.services)} services run, in {members} of {plural(len(answers), 'pool')}"
    print_line(Text.assemble((f"{facts.name}: ", HEAD), f"{said}; {counts}"))
    if answers:
        print_line("", table(("POOL", "VERDICT"), ((answer.pool, _verdict(answer, now, _CELL)) for answer in answers)))
    _show_transitions(last, now)


def _show_transitions(last: Iterable[HistoryEntry], now: datetime) -> None:
    rows = [
        (ago(item.time, now), item.reason, item.message + (f" (x{item.count})" if item.count > 1 else ""))
        for item in last
    ]
    none = "Nothing is known to have happened to it lately."
    print_line("", table(("AGO", "REASON", "WHAT"), rows) if rows else none)
