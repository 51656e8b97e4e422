"""State of the reporter (requirements A12, B5 to B12): tables, and any course of events on a simulated clock."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.pod_services import BLANK_REPORT

from hotpool.api.capability import TypeCapability
from hotpool_agent.reporting import reporter_events as e
from hotpool_agent.reporting.ownership import StoredReport
from hotpool_agent.reporting.report_builder import ReportContent, minimal, with_digest
from hotpool_agent.reporting.reporter_state import FAILURE_SECONDS, ReporterState, step
from hotpool_agent.settings import Settings

H, D, REFRESH = 15.0, 2.0, 300.0
START: Final = ReporterState(
    BLANK_REPORT, Settings(interval=15, debounce=D, refresh_seconds=REFRESH, backoff_seconds=1.0)
)


def content(ready: int) -> ReportContent:
    """Return the content in which this many types are ready, each by one service."""
    types = tuple(TypeCapability(type=f"t{index}", ready=True, services=(f"s{index}",)) for index in range(ready))
    return with_digest(BLANK_REPORT.model_copy(update={"capabilities": types}))


CONTENTS: Final = [content(ready) for ready in range(3)]
UNBUILT: Final = minimal(CONTENTS[2].report, "ReportFailed")
OTHER: Final = StoredReport("other", "theirs", 7, 3, leaving=False, interval=15)


def ours(epoch: int, sequence: int) -> StoredReport:
    return StoredReport("instance", "session", epoch, sequence, leaving=False, interval=15)


@dataclass
class Node:
    """A reporter, the report that the API server holds, and the clock."""

    state: ReporterState = START
    now: float = 100.0
    content: ReportContent = CONTENTS[0]
    requests: list[e.Request] = field(default_factory=list)
    """Requests that were not answered yet."""
    jitter: float = 1.0

    def __post_init__(self) -> None:
        self.read()

    def handle(self, event: e.Event) -> None:
        self.state, request = step(self.state, event, e.Moment(self.now, f"at {self.now:g}", self.jitter))
        if request:
            self.requests.append(request)

    def read(self, *, urgent: bool = False) -> None:
        self.handle(e.ContentRead(self.content, urgent=urgent))

    def change(self, changed: ReportContent) -> None:
        self.content = changed
        self.read()

    def tick(self) -> None:
        if self.state.is_retry_due(self.now):
            self.read()
        self.handle(e.Tick())

    def run_to(self, now: float) -> None:
        """Let time pass; stop at a request."""
        self.tick()
        while not self.state.requesting and self.state.due() <= now:
            self.now = max(self.now, self.state.due())
            self.tick()
        self.now = max(self.now, now)

    def request(self) -> e.Request:
        """Return the only request in flight, after time has passed as far as needed."""
        if not self.requests:
            self.run_to(self.now)
        if not self.requests:
            self.run_to(self.state.due())
        assert self.state.requesting
        (request,) = self.requests
        self.requests.clear()
        return request

    def write(self) -> e.WriteReport:
        request = self.request()
        assert isinstance(request, e.WriteReport)
        return request

    def claim(self, stored: StoredReport | None = None) -> None:
        assert isinstance(self.request(), e.Claim)
        self.handle(e.StoredRead(stored))

    def accept(self) -> e.WriteReport:
        write = self.write()
        self.handle(e.Accepted())
        return write


@pytest.fixture
def node() -> Node:
    """Return a node whose first report is accepted."""
    node = Node()
    node.claim()
    node.accept()
    return node


def stamps(write: e.WriteReport) -> tuple[int, int]:
    return write.epoch, write.sequence


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, (1, 1)),
        (replace(OTHER, leaving=True), (8, 1)),
        (replace(OTHER, instance="instance"), (8, 1)),
        (ours(4, 6), (4, 7)),
    ],
)
def test_the_first_report_has_the_epoch_that_the_stored_one_allows(
    stored: StoredReport | None, expected: tuple[int, int]
) -> None:
    node = Node()
    node.claim(stored)
    assert node.state.holder(node.now) is None
    assert stamps(node.accept()) == expected
    assert node.state.holder(node.now) == f"instance/{expected[0]}"


def test_a_claim_of_unknown_outcome_is_repeated_with_a_later_sequence() -> None:
    node = Node()
    node.claim()
    assert stamps(node.write()) == (1, 1)
    node.handle(e.Failed("no response"))
    node.claim()
    assert stamps(node.write()) == (1, 2)


def test_a_later_epoch_begins_at_once_with_the_first_sequence(node: Node) -> None:
    node.handle(e.Observed(OTHER))
    node.claim(replace(OTHER, leaving=True))
    before = node.now
    assert stamps(node.write()) == (8, 1)
    assert node.now == before


def test_the_name_of_another_agent_is_claimed_every_h_until_that_one_is_silent() -> None:
    node = Node()
    for _ in range(3):
        assert isinstance(node.request(), e.Claim)
        node.handle(e.Failed("taken", retry_after=H))
        assert node.state.problem == "taken"
        assert node.state.due() == node.now + H
    node.claim(OTHER)
    assert stamps(node.accept()) == (8, 1)
    assert node.state.problem is None


@pytest.mark.parametrize(("before", "after", "delay"), [(0, 1, D), (1, 2, D), (1, 0, 0.0), (2, 1, 0.0)])
def test_a_gain_waits_for_d_and_a_withdrawal_does_not(before: int, after: int, delay: float) -> None:
    node = Node(content=CONTENTS[before])
    node.claim()
    node.accept()
    changed_at = node.now + 5
    node.run_to(changed_at)
    node.change(CONTENTS[after])
    write = node.write()
    assert (node.now, write.content, write.stamp) == (changed_at + delay, CONTENTS[after], f"at {changed_at:g}")


def test_a_flush_does_not_wait_for_d(node: Node) -> None:
    node.content = CONTENTS[1]
    node.read(urgent=True)
    read = node.state.reads
    before = node.now
    assert not node.state.is_reported(read)
    node.accept()
    assert node.now == before
    assert node.state.is_reported(read)


def test_without_a_change_the_whole_report_is_written_again_after_the_refresh_time(node: Node) -> None:
    before = node.now
    assert stamps(node.accept()) == (1, 2)
    assert node.now == before + REFRESH


def test_a_change_in_flight_is_sent_next(node: Node) -> None:
    node.change(CONTENTS[2])
    node.write()
    node.change(CONTENTS[1])
    assert node.requests == []
    node.handle(e.Accepted())
    assert node.accept().content is CONTENTS[1]


def test_a_service_is_withdrawn_when_neither_the_accepted_nor_the_sent_report_offers_it(node: Node) -> None:
    assert node.state.is_withdrawn("s0")
    node.change(CONTENTS[1])
    node.write()
    assert not node.state.is_withdrawn("s0")
    node.handle(e.Accepted())
    node.change(CONTENTS[0])
    node.write()
    assert not node.state.is_withdrawn("s0")
    node.handle(e.Accepted())
    assert node.state.is_withdrawn("s0")


@pytest.mark.parametrize(("arrived", "sequence"), [(True, None), (False, 3)])
def test_after_an_unknown_outcome_the_stored_report_decides(node: Node, *, arrived: bool, sequence: int | None) -> None:
    node.change(CONTENTS[1])
    read = node.state.reads
    node.write()
    node.handle(e.Failed("no response"))
    assert node.state.problem == "no response"
    # Heartbeats confirm the accepted report during the pause.
    assert node.state.holder(node.now) == "instance/1"
    node.claim(ours(1, 2 if arrived else 1))
    if sequence is None:
        node.run_to(node.now)
        assert node.requests == []
    else:
        assert stamps(node.accept()) == (1, sequence)
    assert node.state.is_reported(read)
    assert node.state.problem is None


def test_a_report_that_was_not_stored_is_sent_again_with_the_time_at_which_its_change_was_seen(node: Node) -> None:
    node.change(CONTENTS[1])
    lost = node.write()
    node.handle(e.Failed("no response"))
    node.claim(ours(1, 1))
    assert node.accept().stamp == lost.stamp
    assert node.now > float(lost.stamp.removeprefix("at "))


def test_a_stored_report_that_is_not_ours_shortens_no_pause(node: Node) -> None:
    node.change(CONTENTS[1])
    node.write()
    node.handle(e.Failed("429", retry_after=9.0))
    due = node.state.due()
    node.now += 1
    node.handle(e.Observed(None))
    assert node.state.due() == due


def test_a_report_that_may_still_arrive_is_replaced_although_nothing_differs(node: Node) -> None:
    node.change(CONTENTS[1])
    node.write()
    node.handle(e.Failed("no response"))
    node.change(CONTENTS[0])
    read = node.state.reads
    node.claim(ours(1, 1))
    assert not node.state.is_reported(read)
    assert not node.state.is_withdrawn("s0")
    assert stamps(node.accept()) == (1, 3)
    assert node.state.is_reported(read)
    assert node.state.is_withdrawn("s0")


@pytest.mark.parametrize(
    ("stored", "claims"),
    [
        (None, True),
        (ours(1, 1), False),
        (replace(OTHER, epoch=1), True),
        (replace(OTHER, epoch=0), False),
    ],
)
def test_a_stored_report_that_is_not_ours_causes_a_claim(
    node: Node, stored: StoredReport | None, *, claims: bool
) -> None:
    node.handle(e.Observed(stored))
    node.handle(e.Tick())
    assert isinstance(next(iter(node.requests), None), e.Claim) is claims
    assert (node.state.holder(node.now) is None) is claims


def test_a_rejected_report_is_replaced_by_a_minimal_one_and_sent_again(node: Node) -> None:
    node.change(CONTENTS[2])
    write = node.write()
    node.handle(e.Rejected("too odd"))
    assert node.state.holder(node.now) is None
    small = node.accept()
    assert small.content == minimal(CONTENTS[2].report, "ReportRejected")
    assert (small.stamp, stamps(small)) == (write.stamp, (1, 3))
    assert node.state.rejected == "too odd"
    assert node.state.holder(node.now) == "instance/1"
    before = node.now
    node.run_to(node.state.due())
    assert node.now == before + 1
    node.write()
    # The API server holds the minimal report already.
    node.handle(e.Rejected("too odd"))
    assert node.requests == []
    node.change(CONTENTS[1])
    node.accept()
    assert node.state.rejected is None


def test_a_node_without_a_report_gets_one_at_once_although_the_last_one_was_rejected(node: Node) -> None:
    node.change(CONTENTS[2])
    node.write()
    node.handle(e.Rejected("too odd", retry_after=30.0))
    node.write()
    node.handle(e.Failed(None))
    node.claim(None)
    before = node.now
    assert node.write().content is CONTENTS[2]
    assert node.now == before


def test_a_pause_before_a_rejected_report_is_sent_again_is_at_least_the_one_that_the_server_asks_for(
    node: Node,
) -> None:
    node.change(CONTENTS[2])
    node.write()
    node.handle(e.Rejected("too odd", retry_after=30.0))
    node.accept()
    before = node.now
    node.write()
    assert node.now == before + 30


def test_attempts_after_a_rejection_get_rarer_up_to_the_limit(node: Node) -> None:
    node.change(CONTENTS[2])
    node.write()
    node.handle(e.Rejected("too odd"))
    node.accept()
    pauses = []
    for _ in range(12):
        before = node.now
        node.write()
        pauses.append(node.now - before)
        node.handle(e.Rejected("too odd"))
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert pauses[-1] == 60
    node.accept()
    before = node.now
    node.change(CONTENTS[1])
    node.write()
    node.handle(e.Rejected("too odd again"))
    node.accept()
    before = node.now
    node.write()
    assert node.now == before + 1


def test_a_report_that_cannot_be_built_is_built_again_after_a_pause(node: Node) -> None:
    node.change(CONTENTS[2])
    node.accept()
    node.change(UNBUILT)
    node.accept()
    reads, read_at = node.state.reads, []
    for _ in range(4):
        due = node.state.due()
        node.run_to(due - 0.001)
        node.read()
        assert node.state.due() == due
        node.run_to(due)
        read_at.append(node.now)
        assert node.requests == []
    assert node.state.reads == reads + 8
    assert [after - before for before, after in pairwise(read_at)] == [2, 4, 8]
    node.change(CONTENTS[2])
    assert node.state.retry_at is None


def test_heartbeats_stop_when_a_failure_was_not_reported_for_ten_seconds(node: Node) -> None:
    node.change(CONTENTS[2])
    node.accept()
    node.change(UNBUILT)
    since = node.now
    node.write()
    node.now = since + FAILURE_SECONDS - 0.1
    node.read()
    assert node.state.holder(node.now)
    node.now = since + FAILURE_SECONDS
    assert node.state.holder(node.now) is None
    node.handle(e.Accepted())
    assert node.state.holder(node.now)


def test_heartbeats_continue_when_the_report_can_be_built_again(node: Node) -> None:
    node.change(CONTENTS[2])
    node.accept()
    node.change(UNBUILT)
    node.write()
    node.now += 11
    assert node.state.fails(node.now)
    node.change(CONTENTS[2])
    assert not node.state.fails(node.now)
    assert node.state.retry_at is None


def test_an_internal_error_lasts_until_a_report_is_accepted(node: Node) -> None:
    node.change(CONTENTS[1])
    node.write()
    node.handle(e.Failed("a defect", internal=True))
    since = node.now
    node.change(CONTENTS[0])
    node.handle(e.Failed("a defect", internal=True))
    assert node.state.fails(since + 10)
    node.claim(ours(1, 1))
    node.accept()
    assert not node.state.fails(since + 10)


def test_a_pause_is_jittered_and_never_longer_than_h() -> None:
    node = Node(jitter=0.5)
    pauses = []
    for _ in range(40):
        node.request()
        node.handle(e.Failed("503"))
        pauses.append(node.state.due() - node.now)
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert pauses[-1] == H / 2
    node.claim()
    node.accept()
    node.change(CONTENTS[1])
    node.write()
    node.handle(e.Failed("503"))
    assert node.state.due() - node.now == 0.5


def test_heartbeats_stop_ten_seconds_after_an_internal_error_until_a_report_is_accepted(node: Node) -> None:
    node.change(CONTENTS[1])
    node.write()
    node.handle(e.Failed("a defect", internal=True))
    since = node.now
    assert node.state.holder(since + 9.9)
    assert node.state.holder(since + 10) is None
    node.claim(ours(1, 1))
    node.accept()
    assert node.state.holder(since + 10)


@pytest.mark.parametrize(
    ("failure", "problem", "pause"),
    [
        (e.Failed(None), None, 1.0),
        (e.Failed("503"), "503", 1.0),
        (e.Failed("429", retry_after=9.0), "429", 9.0),
        (e.Failed("429", retry_after=3600.0), "429", H),
    ],
)
def test_after_a_failure_the_stored_report_is_read_again_after_a_pause(
    node: Node, failure: e.Event, problem: str | None, pause: float
) -> None:
    node.change(CONTENTS[1])
    node.write()
    node.handle(failure)
    assert node.state.problem == problem
    before = node.now
    assert isinstance(node.request(), e.Claim)
    assert node.now == before + pause


@dataclass
class Server:
    """The API server: it stores reports in the order in which they arrive, and refuses older ones."""

    stored: e.WriteReport | None = None
    written: list[tuple[int, int]] = field(default_factory=list)
    late: list[e.WriteReport] = field(default_factory=list)
    states: list[StoredReport | None] = field(default_factory=lambda: [None])
    """Stored reports, in order; None: a deletion, or no report yet. A watch may deliver them late."""

    def store(self, write: e.WriteReport) -> bool:
        if self.stored and stamps(write) <= stamps(self.stored):
            return False
        self.stored = write
        self.written.append(stamps(write))
        self.states.append(self.read())
        return True

    def delete(self) -> None:
        self.stored = None
        self.states.append(None)

    def read(self) -> StoredReport | None:
        return ours(*stamps(self.stored)) if self.stored else None


Outcome = Callable[[Node, Server, e.WriteReport], None]


def succeed(node: Node, server: Server, write: e.WriteReport) -> None:
    node.handle(e.Accepted() if server.store(write) else e.Failed(None))


def lose_response(node: Node, server: Server, write: e.WriteReport) -> None:
    server.store(write)
    node.handle(e.Failed("no response"))


def lose_request(node: Node, _: Server, __: e.WriteReport) -> None:
    node.handle(e.Failed("no response"))


def delay(node: Node, server: Server, write: e.WriteReport) -> None:
    server.late.append(write)
    node.handle(e.Failed("no response"))


def reject(node: Node, _: Server, write: e.WriteReport) -> None:
    node.handle(e.Failed("422") if write.content.minimal else e.Rejected("422"))


def delete(node: Node, server: Server, _: e.WriteReport) -> None:
    server.delete()
    node.handle(e.Failed(None))


def break_down(node: Node, _: Server, __: e.WriteReport) -> None:
    node.handle(e.Failed("a defect", internal=True))


OUTCOMES: Final[list[Outcome]] = [succeed, lose_response, lose_request, delay, reject, delete, break_down]


def advance(node: Node, server: Server, outcome: Outcome, seconds: float) -> None:
    """Answer the request in flight, or let time pass."""
    node.run_to(node.now + seconds)
    if not node.requests:
        return
    request = node.requests.pop()
    if isinstance(request, e.WriteReport):
        outcome(node, server, request)
    elif outcome is lose_request:
        node.handle(e.Failed("no response"))
    else:
        node.handle(e.StoredRead(server.read()))


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(OUTCOMES), st.booleans(), st.none() | st.integers(1, 3)),
        max_size=40,
    )
)
def test_any_course_one_request_at_a_time_in_order_and_the_last_state_is_reported(
    course: list[tuple[int, Outcome, bool, int | None]],
) -> None:
    node, server = Node(), Server()
    for ready, outcome, arrives, lag in course:
        node.change(CONTENTS[ready])
        if lag:
            node.handle(e.Observed(server.states[-min(lag, len(server.states))]))
        advance(node, server, outcome, 0.7)
        assert len(node.requests) <= 1
        if arrives and server.late:
            server.store(server.late.pop(0))
        if node.state.is_withdrawn("s1") and server.stored:
            assert not server.stored.content.offers("s1")
    for _ in range(20):
        advance(node, server, succeed, 4 * H)
    # A watch that was behind delivers all that was stored, long ago or at last.
    for stored in server.states:
        node.handle(e.Observed(stored))
        advance(node, server, succeed, 4 * H)
    for write in server.late:
        server.store(write)
    assert server.stored
    assert server.stored.content == node.content
    assert node.state.is_reported(node.state.reads)
    assert node.state.problem is None
    assert node.state.holder(node.now) == f"instance/{server.stored.epoch}"
