"""What `why` prints for people.

Decides nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.text import Text

from hotpool.cli.node_events import Happened
from hotpool.cli.render.tables import BAD, DOUBTFUL, GOOD, HEAD, listing, plural, say, table
from hotpool.common.durations import ago
from hotpool.core.explain.explain import Answer, Standing, Survey
from hotpool.core.explain.remedies import Facts
from hotpool.core.matching import Verdict
from hotpool.core.model import Pool

_FAILED_SHOWN: Final = 2
"""Requirements told of each near miss."""
_LINE: Final = 80
_CELL: Final = 55
"""Columns for a verdict; a longer one leaves out what is told below."""


def show_answer(answer: Answer, now: datetime) -> None:
    """`why NODE POOL`."""
    rows = [
        (_holds(holds=item.holds), item.required, item.observed, ago(item.since, now)) for item in answer.requirements
    ]
    head = f"{answer.node} in {answer.pool}: "
    say(Text.assemble((head, HEAD), _verdict(answer, now, _LINE - len(head))))
    say("", table(("HOLDS", "REQUIREMENT", "OBSERVED", "SINCE"), rows))
    for remark in answer.remarks:
        say("", f"{_sentence(remark.text)}{f' ({ago(remark.since, now)})' if remark.since else ''}.")
    if answer.decided:
        say("", f"Decided by {answer.decided.gate}: {answer.decided.required}.")
    _show_flips(answer)


def _holds(*, holds: bool) -> Text:
    return Text("yes", GOOD) if holds else Text("NO", BAD)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _show_flips(answer: Answer) -> None:
    """What would change it: everything that does not hold must."""
    needed = [way for item in answer.requirements if not item.holds for way in item.flip]
    ways = dict.fromkeys([*needed, *(way for remark in answer.remarks for way in remark.flip)])
    if ways:
        together = ", all of this together" if len(ways) > 1 else ""
        say("", f"What would change it{together}:", listing(ways))


def _verdict(answer: Answer, now: datetime, room: int) -> Text:
    """The verdict in one line of so many columns, as far as names allow."""
    member = answer.member
    is_now = f"member {member.state}, since {ago(member.since, now)}" if member else "out"
    match answer.standing:
        case Standing.MEMBER:
            return Text(is_now, _colour(answer.verdict))
        case Standing.HELD if member:
            return Text(f"held by the brake as {member.state}, in the pool since {ago(member.since, now)}", DOUBTFUL)
        case Standing.OUT:
            return Text(_judged(answer, "", "", room), BAD)
        case Standing.DRY_RUN:
            return Text(_judged(answer, "would be ", " (DryRun)", room), DOUBTFUL)
        case Standing.PAUSED | Standing.INVALID_SPEC:
            return Text(_judged(answer, f"{is_now} ({answer.standing}; else ", ")", room), DOUBTFUL)
        case _:
            return Text(_judged(answer, f"{is_now}, about to be ", "", room), DOUBTFUL)


def _judged(answer: Answer, before: str, after: str, room: int) -> str:
    """What the judge says; what was observed, and what was required, only where there is room for it."""
    decided, gate = answer.decided, answer.verdict.gate
    if decided is None:
        return f"{before}member {answer.verdict.state}{after}"
    full = f"{before}out: {gate} ({decided.required}: {decided.observed}){after}"
    short = f"{before}out: {gate} ({decided.required}){after}"
    return next((text for text in (full, short) if len(text) <= room), f"{before}out: {gate}{after}")


def _colour(verdict: Verdict) -> str:
    return GOOD if verdict.state == "Ready" else DOUBTFUL


def show_survey(pool: Pool, survey: Survey, nearest: Sequence[Answer]) -> None:
    """`why --pool P`."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(survey.members.items()))
    members = plural(survey.members.total(), "member") + (f" ({states})" if states else "")
    say(Text.assemble((f"{pool.meta.name}: ", HEAD), f"{members}, {sum(survey.reasons.values())} out"))
    if survey.unwritten:
        say(f"{_unwritten(pool, survey.unwritten)}.")
    if not survey.reasons:
        return
    rows = [(gate, str(count)) for gate, count in survey.reasons.most_common()]
    say("", table(("OUT BECAUSE", "NODES"), rows, right=["NODES"]))
    say("", table(("NEAREST MISSES", "FAILS", "WHICH"), map(_miss, nearest), right=["FAILS"]))
    if len(survey.misses) > len(nearest):
        say(f"… and {len(survey.misses) - len(nearest)} more: --limit")
    say("", f"What would flip it: hotpool why {survey.misses[0]} {pool.meta.name}")


def _unwritten(pool: Pool, count: int) -> str:
    nodes = plural(count, "node")
    if pool.spec.mode == "DryRun":
        return f"Mode DryRun: {nodes} would be members"
    if pool.paused:
        return f"The pool is paused: else {nodes} would come in"
    return f"{nodes} will come in: the operator has not written it yet, or does not run"


def _miss(answer: Answer) -> tuple[str, str, str]:
    told = [f"{item.required}: {item.observed}" for item in answer.requirements if not item.holds]
    more = f"; and {len(told) - _FAILED_SHOWN} more" if len(told) > _FAILED_SHOWN else ""
    return answer.node, str(len(told)), "; ".join(told[:_FAILED_SHOWN]) + more


def show_node(facts: Facts, answers: Sequence[Answer], last: Sequence[Happened], now: datetime) -> None:
    """`why --node N`."""
    ready = facts.view.node.conditions.get("Ready")
    said = f"{ready.reason}, since {ago(ready.since, now)}" if ready else "not seen by the operator yet"
    running = sum(service.state == "Running" for service in facts.services)
    members = sum(answer.member is not None for answer in answers)
    counts = f"{running}/{len(facts.services)} services run, in {members} of {plural(len(answers), 'pool')}"
    say(Text.assemble((f"{facts.name}: ", HEAD), f"{said}; {counts}"))
    if answers:
        say("", table(("POOL", "VERDICT"), ((answer.pool, _verdict(answer, now, _CELL)) for answer in answers)))
    _show_transitions(last, now)


def _show_transitions(last: Iterable[Happened], now: datetime) -> None:
    rows = [
        (ago(item.time, now), item.reason, item.message + (f" (x{item.count})" if item.count > 1 else ""))
        for item in last
    ]
    none = "Nothing is known to have happened to it lately."
    say("", table(("AGO", "REASON", "WHAT"), rows) if rows else none)
