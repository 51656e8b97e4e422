"""The elector's thread over a fake Lease API, so that responses can be lost and contents be malformed.

On a real API server: tests/cluster/operator/test_chain.py and test_outages.py.

Requirement F2.
"""

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import ELECTION_LEASE, KUBE_NODES_ANNOTATION, LONGEST_RESERVATION_ANNOTATION
from hotpool.errors import RetryableError
from hotpool.kube import leader_election
from hotpool.kube.leader_election import LeaderElector
from localfleet.process import wait_for

SECONDS = 5.0
LOGIN: Any = SimpleNamespace(current=None)
Json = dict[str, Any]


class Leases:
    """One Lease in memory."""

    def __init__(self) -> None:
        self.stored: Any = None
        self.after_write: Callable[[], None] = lambda: None
        """A hook that runs between storing a write and its response."""
        self.before_write: Callable[[], None] = lambda: None
        """A hook that runs before a write is stored."""
        self.writes = 0

    def read(self) -> Json | None:
        return copy.deepcopy(self.stored) if self.stored else None

    def write(self, lease: Json) -> Json:
        self.before_write()
        version = lease["metadata"].get("resourceVersion")
        if version and self.stored is None:
            raise ApiException(status=404)
        if version and self.stored["metadata"]["resourceVersion"] != version:
            raise ApiException(status=409)
        self.writes += 1
        self.stored = copy.deepcopy(lease)
        self.stored["metadata"] |= {"resourceVersion": str(self.writes), "uid": "uid"}
        self.after_write()
        return copy.deepcopy(self.stored)

    def close(self) -> None:
        pass


def lease(**spec: Any) -> Json:
    metadata = {"name": ELECTION_LEASE, "resourceVersion": "0"}
    return {"metadata": metadata, "spec": spec} if spec else {"metadata": metadata}


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Leases:
    api = Leases()
    monkeypatch.setattr(leader_election, "ElectionLease", lambda *_: api)
    monkeypatch.setattr(leader_election, "RENEW_SECONDS", 0.02)
    return api


@pytest.fixture
def won() -> threading.Event:
    return threading.Event()


@pytest.fixture
def lost() -> threading.Event:
    return threading.Event()


@pytest.fixture
def elector(leases: Leases, won: threading.Event, lost: threading.Event) -> Iterator[LeaderElector]:
    assert leases.writes == 0
    elector = LeaderElector("fleet", LOGIN, won=won.set, lost=lost.set)
    yield elector
    elector.stop()


def once(error: Exception) -> Callable[[], None]:
    """Return a function that raises the error at its first call only."""
    errors = [error]

    def fail() -> None:
        if errors:
            raise errors.pop()

    return fail


def test_the_term_is_larger_than_that_of_lease_and_slices(
    leases: Leases, elector: LeaderElector, won: threading.Event
) -> None:
    leases.stored = lease(leaseTransitions=4, holderIdentity="")
    elector.start_campaign(lambda: 9)
    assert won.wait(SECONDS)
    assert (elector.term, leases.stored["spec"]["leaseTransitions"]) == (10, 10)
    assert elector.may_write()
    elector.stop()
    assert not elector.may_write()
    assert "holderIdentity" not in leases.stored["spec"]


def test_an_acquisition_with_a_lost_response_still_wins(
    leases: Leases, elector: LeaderElector, won: threading.Event
) -> None:
    leases.after_write = once(TimeoutError())
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    assert elector.may_write()
    assert elector.term == leases.stored["spec"]["leaseTransitions"]


def test_a_lease_without_content_is_free(leases: Leases, elector: LeaderElector, won: threading.Event) -> None:
    leases.stored = lease()
    elector.start_campaign(int)
    assert won.wait(SECONDS)


def test_an_unexpected_error_counts_as_lost_leadership(
    leases: Leases, elector: LeaderElector, won: threading.Event, lost: threading.Event
) -> None:
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    leases.before_write = once(ValueError("no JSON at all"))
    assert lost.wait(SECONDS)
    assert not elector.may_write()


def test_a_failed_renewal_is_retried_before_leadership_expires(
    leases: Leases, elector: LeaderElector, won: threading.Event, lost: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    failed, renewed = threading.Event(), threading.Event()

    def fail() -> None:
        monkeypatch.setattr(leader_election, "RENEW_SECONDS", 2 * SECONDS)
        leases.before_write = lambda: None
        leases.after_write = renewed.set
        failed.set()
        raise ConnectionError("connection closed")

    leases.before_write = fail
    assert failed.wait(SECONDS)
    assert renewed.wait(SECONDS)
    assert elector.may_write()
    assert not lost.is_set()


def test_a_slow_api_server_does_not_end_leadership_while_renewals_succeed(
    leases: Leases, elector: LeaderElector, won: threading.Event, lost: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write takes 1.4 s, nearly the limit; the pause between renewals is a part of that time."""
    monkeypatch.setattr(leader_election, "RENEW_SECONDS", 1.0)
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    leases.before_write = lambda: time.sleep(1.4)
    written = leases.writes
    deadline = time.monotonic() + 4 * SECONDS
    while leases.writes < written + 4 and time.monotonic() < deadline:
        assert elector.may_write()
        time.sleep(0.01)
    assert leases.writes >= written + 4
    assert not lost.is_set()


def test_a_lease_changed_by_another_client_is_read_again_and_renewed(
    leases: Leases, elector: LeaderElector, won: threading.Event, lost: threading.Event
) -> None:
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    leases.stored["metadata"]["resourceVersion"] = "changed"
    written = leases.writes
    wait_for("renewed", lambda: leases.writes > written + 2, SECONDS)
    assert elector.may_write()
    leases.stored["spec"]["holderIdentity"] = "another"
    leases.stored["metadata"]["resourceVersion"] = "changed again"
    assert lost.wait(2 * SECONDS)
    assert leases.stored["spec"]["holderIdentity"] == "another"


def test_an_elector_waits_for_another_holder_to_release_the_lease(
    leases: Leases, elector: LeaderElector, won: threading.Event
) -> None:
    leases.stored = lease(leaseTransitions=4, holderIdentity="another", leaseDurationSeconds=60)
    elector.start_campaign(int)
    assert not won.wait(0.3)
    assert (leases.writes, elector.term) == (0, 0)
    leases.stored["spec"]["holderIdentity"] = ""
    assert won.wait(SECONDS)
    assert elector.term == 5


def test_a_raised_term_is_stored_or_the_error_is_retryable(
    leases: Leases, elector: LeaderElector, won: threading.Event
) -> None:
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    asyncio.run(elector.raise_term(41))
    assert elector.term == leases.stored["spec"]["leaseTransitions"] == 41

    def fail() -> None:
        raise ConnectionError("connection closed")

    leases.before_write = fail
    with pytest.raises(RetryableError):
        asyncio.run(elector.raise_term(42))
    assert elector.term == 41


def test_a_standby_sees_a_leader_while_another_holder_renews_the_lease(leases: Leases, elector: LeaderElector) -> None:
    leases.stored = lease(holderIdentity="other", leaseDurationSeconds=1)
    assert not elector.sees_leader()
    elector.start_campaign(int)
    wait_for("it sees a leader", elector.sees_leader)
    assert not elector.may_write()


def test_a_standby_sees_no_leader_when_renewals_cannot_be_read(
    leases: Leases, elector: LeaderElector, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.stored = lease(holderIdentity="other", leaseDurationSeconds=1)
    elector.start_campaign(int)
    wait_for("it sees a leader", elector.sees_leader)

    def unavailable(*_: Any, **__: Any) -> None:
        raise ApiException(status=503)

    monkeypatch.setattr(leases, "read", unavailable)
    wait_for("it sees no leader", lambda: not elector.sees_leader())
    assert not elector.may_write()


def test_a_standby_leads_when_the_lease_is_released(
    leases: Leases, elector: LeaderElector, won: threading.Event
) -> None:
    leases.stored = lease(holderIdentity="other", leaseDurationSeconds=60)
    elector.start_campaign(int)
    wait_for("it sees a leader", elector.sees_leader)
    leases.stored = lease(holderIdentity="", leaseDurationSeconds=60)
    assert won.wait(SECONDS)
    assert (elector.may_write(), elector.sees_leader()) == (True, False)


def test_the_holder_sets_its_annotations_on_the_lease_and_keeps_those_of_others(
    leases: Leases, won: threading.Event, lost: threading.Event
) -> None:
    leases.stored = lease(holderIdentity="")
    leases.stored["metadata"]["annotations"] = {KUBE_NODES_ANNOTATION: "true", "example.org/x": "y"}
    elector = LeaderElector("fleet", LOGIN, won=won.set, lost=lost.set, annotations={KUBE_NODES_ANNOTATION: "false"})
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    elector.stop()
    assert leases.stored["metadata"]["annotations"] == {KUBE_NODES_ANNOTATION: "false", "example.org/x": "y"}


def test_a_leader_that_reads_another_holder_stops_leading_at_once(
    leases: Leases,
    elector: LeaderElector,
    won: threading.Event,
    lost: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leader_election, "LEASE_SECONDS", 1000)
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    before = leases.stored["metadata"]["resourceVersion"]
    other = lease(holderIdentity="other", leaseDurationSeconds=6, leaseTransitions=2)
    other["metadata"]["resourceVersion"] = "other"
    leases.stored = other
    assert lost.wait(SECONDS)
    assert not elector.may_write()
    assert before != leases.stored["metadata"]["resourceVersion"] == "other"


def test_a_leader_creates_its_deleted_lease_again_and_a_standby_waits_for_that(
    leases: Leases, elector: LeaderElector, won: threading.Event, lost: threading.Event
) -> None:
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    standby = LeaderElector("fleet", LOGIN, won=lost.set, lost=lost.set)
    standby.start_campaign(int)
    wait_for("the standby sees the leader", standby.sees_leader, SECONDS)
    written = leases.writes
    leases.stored = None
    wait_for("the Lease is renewed again", lambda: leases.stored is not None and leases.writes > written + 2, SECONDS)
    standby.stop()
    assert (leases.stored["spec"]["holderIdentity"], leases.stored["spec"]["leaseTransitions"]) == (elector.identity, 1)
    assert elector.may_write()
    assert not lost.is_set()


@pytest.mark.parametrize("stored", [None, "30", "4000", "garbage"])
def test_the_longest_reservation_is_kept_on_the_lease_for_the_next_leader(
    leases: Leases, elector: LeaderElector, won: threading.Event, lost: threading.Event, stored: str | None
) -> None:
    leases.stored = lease(holderIdentity="")
    leases.stored["metadata"]["annotations"] = stored and {LONGEST_RESERVATION_ANNOTATION: stored}
    longest = "4000" if stored == "4000" else "3607"
    elector.start_campaign(int)
    assert won.wait(SECONDS)
    assert elector.longest_reservation == {"30": 30, "4000": 4000}.get(stored or "", 0)
    elector.note_reservation(3606.5)
    wait_for(
        "it is stored",
        lambda: (leases.stored["metadata"]["annotations"] or {}).get(LONGEST_RESERVATION_ANNOTATION) == longest,
        SECONDS,
    )
    elector.note_reservation(12)
    elector.stop()
    following = LeaderElector("fleet", LOGIN, won=lost.set, lost=won.set)
    following.start_campaign(int)
    assert lost.wait(SECONDS)
    assert following.longest_reservation == int(longest)
    following.stop()
