"""Endpoints of nodes: claimed, allowed, vouched for, and claimed by several nodes (B13)."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from tests.support.builders import kube_node, node, open_cache, report, service

from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import Endpoint, Key, Kind, Node, NodeView, PodReference

POD: Final = PodReference("a", "p", "uid-p")


def reporting(name: str, *, ip: str = "10.0.3.7", port: int = 6007, people: tuple[str, ...] = (), **more: Any) -> Node:
    """Return a node whose one asr service claims an address and a port."""
    content = report(
        service("w", "asr", endpoint={"addresses": [], "port": port, "appProtocol": "http"}),
        addresses=[{"ip": ip, "source": "Route"}],
    )
    return replace(node(name, content, **more), addresses=people)


def cache_of(*nodes: Node, **policy: Any) -> ClusterCache:
    cache = open_cache()
    cache.endpoints.policy = AddressPolicy(**policy)
    for item in nodes:
        cache.upsert(item, 0)
    return cache


def view(cache: ClusterCache, name: str = "n") -> NodeView:
    return cache.nodes[name].view


def test_an_endpoint_has_the_addresses_of_its_node_and_the_port_of_its_service() -> None:
    cache = cache_of(reporting("n"))
    assert view(cache).endpoints == {"w": Endpoint("w", "asr", 6007, ("10.0.3.7",), (), "http")}


def test_a_service_without_a_claim_has_no_endpoint() -> None:
    cache = cache_of(node("n", report(service("w", "asr", endpointReason="LoopbackOnly"), addresses=[])))
    assert not view(cache).endpoints


def test_what_people_wrote_replaces_the_addresses_of_the_node_and_is_vouched_for() -> None:
    cache = cache_of(reporting("n", people=("203.0.113.7",)))
    assert view(cache).endpoints["w"].addresses == view(cache).endpoints["w"].vouched == ("203.0.113.7",)


def test_what_people_wrote_replaces_the_own_addresses_of_a_service_but_not_those_of_a_pod() -> None:
    endpoint = {"addresses": ["10.244.1.9"], "port": 80}
    pod = {"namespace": "a", "name": "p", "uid": "u"}
    content = report(
        service("of-host", "asr", endpoint=endpoint),
        service("of-pod", "nmt", endpoint=endpoint, pod=pod),
        addresses=[{"ip": "10.0.3.7", "source": "Route"}],
    )
    found = view(cache_of(replace(node("n", content), addresses=("203.0.113.7",)))).endpoints
    assert {name: item.addresses for name, item in found.items()} == {
        "of-host": ("203.0.113.7",),
        "of-pod": ("10.244.1.9",),
    }


def test_an_address_of_the_v1_node_is_vouched_for_and_a_change_of_it_updates_the_endpoint() -> None:
    cache = cache_of(reporting("n"))
    assert view(cache).endpoints["w"].vouched == ()
    cache.upsert(replace(kube_node("n"), addresses=("10.0.3.7",)), 0)
    assert view(cache).endpoints["w"].vouched == ("10.0.3.7",)
    cache.upsert(replace(kube_node("n", version=2), addresses=("10.0.3.8",)), 0)
    assert view(cache).endpoints["w"].vouched == ()


def test_a_changed_port_makes_the_key_of_the_node_dirty_and_that_of_no_pool() -> None:
    cache = cache_of(reporting("n"))
    assert cache.upsert(reporting("n", port=6008, version=2), 0) == {Key(Kind.NODE, "n")}
    assert view(cache).endpoints["w"].port == 6008


def test_addresses_that_are_never_allowed_are_not_used_whoever_claims_them() -> None:
    cache = cache_of(reporting("n", people=("169.254.169.254",)), reporting("m", ip="127.0.0.1"))
    assert not view(cache).endpoints
    assert [problem.reason for problem in view(cache).address_problems] == ["is link-local"]
    assert [problem.reason for problem in view(cache, "m").address_problems] == ["is a loopback address"]


def test_of_two_nodes_with_an_equal_right_neither_gets_an_address_and_the_others_return_when_one_goes() -> None:
    cache = cache_of(reporting("n"))
    dirty = cache.upsert(reporting("m"), 0)
    assert {Key(Kind.NODE, "n"), Key(Kind.NODE, "m")} <= dirty
    assert not view(cache, "n").endpoints
    assert not view(cache, "m").endpoints
    assert [problem.rival for problem in view(cache, "n").address_problems] == ["m"]
    assert Key(Kind.NODE, "n") in cache.upsert(reporting("m", port=6008, version=2), 0)
    assert view(cache, "n").endpoints
    assert view(cache, "m").endpoints


def test_one_report_that_contests_the_addresses_of_many_nodes_affects_them_in_steps() -> None:
    addresses = [f"10.1.{number // 250}.{number % 250}" for number in range(500)]
    cache = cache_of(*(reporting(f"n{number}", ip=ip) for number, ip in enumerate(addresses)))
    liar = report(
        *(service(f"s{n}", "tts", endpoint={"addresses": [ip], "port": 6007}) for n, ip in enumerate(addresses))
    )
    steps = [cache.upsert(node("liar", liar), 0)]
    while not cache.is_complete:
        assert cache.next_deadline() == 0.0
        steps.append(cache.match_step())
    assert max(map(len, steps)) < 50
    assert {key.name for step in steps for key in step} == {"liar", *(f"n{number}" for number in range(500))}
    assert not any(view(cache, f"n{number}").endpoints for number in range(500))


def test_the_better_vouched_of_two_nodes_gets_the_address() -> None:
    cache = cache_of(reporting("n"), reporting("m"), allowed_cidrs=(ip_network("10.0.0.0/8"),))
    assert not view(cache, "n").endpoints
    cache.upsert(replace(kube_node("n"), addresses=("10.0.3.7",)), 0)
    assert view(cache, "n").endpoints
    assert not view(cache, "m").endpoints


def test_loopback_addresses_are_for_picks_only_and_only_where_the_setting_allows_them() -> None:
    found = view(cache_of(reporting("n", people=("127.0.0.1",)), allow_loopback=True)).endpoints["w"]
    assert (found.addresses, found.vouched) == (("127.0.0.1",), ())


def test_without_trust_in_agents_only_addresses_that_more_than_the_agent_vouch_for_are_used() -> None:
    assert not view(cache_of(reporting("n"), trust_agents=False)).endpoints
    assert view(cache_of(reporting("n", people=("10.0.3.7",)), trust_agents=False)).endpoints


def test_a_claim_for_a_pod_that_cannot_be_read_is_a_conflict_once_that_is_known() -> None:
    claimed = service("w", "asr", endpoint={"addresses": ["10.0.3.7"], "port": 6007}, pod=POD._asdict())
    cache = cache_of(reporting("n"), node("m", report(claimed)))
    assert not view(cache, "m").endpoints
    assert not view(cache, "m").address_problems, "the pod is about to be read"
    assert Key(Kind.NODE, "m") in cache.observe_pod(POD, None)
    assert [problem.rival for problem in view(cache, "m").address_problems] == ["n"]


def test_a_conflict_between_nodes_of_which_only_one_is_judged_by_the_new_policy_yet() -> None:
    """The first node loses its claim by the new policy, and the second one gets another one by it."""
    before, after = (ip_network("10.97.0.0/16"),), (ip_network("10.0.3.0/24"),)
    cache = cache_of(reporting("n"), service_cidrs=before)
    both = report(
        service("w", "asr", endpoint={"addresses": ["10.0.3.7"], "port": 6007}),
        service("x", "asr", endpoint={"addresses": ["10.97.0.1"], "port": 6007}),
    )
    cache.upsert(node("m", both), 0)
    for _ in cache.apply_policy(AddressPolicy(service_cidrs=after)):
        pass
    assert not view(cache, "n").endpoints
    assert view(cache, "m").endpoints.keys() == {"x"}
    assert [problem.reason for problem in view(cache, "m").address_problems] == [
        "is in the range of Services (10.0.3.0/24)"
    ]
