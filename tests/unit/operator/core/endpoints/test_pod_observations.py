"""Pods that agents name: when they are read, and what a read is worth (requirement B13)."""

from hotpool.core.endpoints.pod_observations import NO_POD, PodAddresses, PodObservations
from hotpool.core.model import PodReference

POD = PodReference("a", "p", "uid-p")
AT_N = PodAddresses("n", ("10.1.1.1",))


def claimed(*addresses: str) -> PodObservations:
    pods = PodObservations()
    pods.claim("n", {}, {POD: addresses or ("10.1.1.1",)})
    return pods


def test_a_new_claim_needs_a_read_and_a_confirmed_one_needs_none() -> None:
    pods = claimed()
    assert (pods.take_unread(), pods.pending) == ({POD}, True)
    assert pods.observe(POD, AT_N) == ("n",)
    pods.claim("n", {POD: ("10.1.1.1",)}, {POD: ("10.1.1.1",)})
    assert (pods.take_unread(), pods.pending) == (set(), False)
    assert pods.confirms(POD, "n", "10.1.1.1")


def test_another_address_or_another_node_needs_another_read() -> None:
    pods = claimed()
    pods.take_unread()
    pods.observe(POD, AT_N)
    pods.claim("m", {}, {POD: ("10.1.1.1",)})
    assert pods.take_unread() == {POD}
    assert not pods.confirms(POD, "m", "10.1.1.1")
    pods.claim("n", {POD: ("10.1.1.1",)}, {POD: ("10.1.1.2",)})
    assert pods.take_unread() == {POD}


def test_a_failed_read_is_no_evidence_against_an_earlier_one_but_an_absent_pod_is() -> None:
    pods = claimed()
    pods.observe(POD, AT_N)
    pods.observe(POD, None)
    assert pods.confirms(POD, "n", "10.1.1.1")
    pods.observe(POD, NO_POD)
    assert not pods.confirms(POD, "n", "10.1.1.1")


def test_a_pod_that_no_node_claims_is_forgotten() -> None:
    pods = claimed()
    pods.observe(POD, AT_N)
    pods.claim("n", {POD: ("10.1.1.1",)}, {})
    assert not pods.is_claimed(POD)
    assert pods.observe(POD, AT_N) == ()
    assert pods.is_pending(POD)
    assert pods.take_unread() == set()
