"""Properties of the endpoints of random fleets, whatever agents, people and v1 Nodes claim (requirement B13)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import kube_node, node, open_cache, report, service

from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import Endpoint, Kind, KubeNode, Node

NAMES = ("n0", "n1", "n2")
GOOD = ("10.0.0.1", "10.0.0.2", "192.0.2.1", "2001:db8::1")
BAD = ("127.0.0.1", "::1", "169.254.169.254", "ff02::1", "::", "10.96.0.1", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe")
POLICY = AddressPolicy(allowed_cidrs=(ip_network("10.0.0.0/8"),), service_cidrs=(ip_network("10.96.0.0/12"),))
addresses = st.lists(st.sampled_from((*GOOD, *BAD)), max_size=2, unique=True)


@dataclass(frozen=True)
class Claims:
    """What is claimed for one node."""

    node: Node
    kube: KubeNode | None


@st.composite
def claims(draw: st.DrawFn, name: str) -> Claims:
    services = [
        service(f"s{number}", "asr", endpoint={"addresses": draw(addresses), "port": draw(st.sampled_from([80, 81]))})
        for number in range(draw(st.integers(0, 3)))
    ]
    content = report(*services, addresses=[{"ip": ip, "source": "Route"} for ip in draw(addresses)])
    people = draw(addresses) if draw(st.booleans()) else []
    of_kube = replace(kube_node(name), addresses=tuple(draw(addresses))) if draw(st.booleans()) else None
    return Claims(node(name, content, addresses=people), of_kube)


fleets = st.tuples(*(claims(name) for name in NAMES))
policies = st.builds(replace, st.just(POLICY), trust_agents=st.booleans())


def cache_of(fleet: Sequence[Claims], policy: AddressPolicy = POLICY) -> ClusterCache:
    cache = open_cache()
    cache.endpoints.policy = policy
    for item in fleet:
        cache.upsert(item.node, 0)
        if item.kube:
            cache.upsert(item.kube, 0)
    return cache


def endpoints(cache: ClusterCache) -> dict[str, dict[str, Endpoint]]:
    return {name: dict(tracker.view.endpoints) for name, tracker in cache.nodes.items()}


@given(fleets, policies)
def test_no_forbidden_address_is_used_and_vouched_addresses_are_some_of_those_for_picks(
    fleet: Sequence[Claims], policy: AddressPolicy
) -> None:
    for found in endpoints(cache_of(fleet, policy)).values():
        for endpoint in found.values():
            assert endpoint.addresses
            assert not set(endpoint.addresses) & {*BAD, "169.254.169.254"}
            assert set(endpoint.vouched) <= set(endpoint.addresses)
            assert policy.trust_agents or endpoint.vouched == endpoint.addresses


@given(fleets, policies)
def test_no_two_nodes_have_the_same_address_and_port(fleet: Sequence[Claims], policy: AddressPolicy) -> None:
    places = [
        {(address, endpoint.port) for endpoint in found.values() for address in endpoint.addresses}
        for found in endpoints(cache_of(fleet, policy)).values()
    ]
    assert len(set().union(*places)) == sum(map(len, places))


@given(fleets, st.permutations(range(len(NAMES))))
def test_the_order_of_the_nodes_does_not_matter(fleet: Sequence[Claims], order: Sequence[int]) -> None:
    first, second = cache_of(fleet), cache_of([fleet[index] for index in order])
    assert endpoints(first) == endpoints(second)
    for name in NAMES:
        assert first.nodes[name].view.address_problems == second.nodes[name].view.address_problems


@given(fleets, st.sampled_from(NAMES))
def test_a_node_that_goes_leaves_the_others_as_if_it_had_never_been(fleet: Sequence[Claims], gone: str) -> None:
    cache = cache_of(fleet)
    known = next(item for item in fleet if item.node.meta.name == gone)
    cache.delete(Kind.NODE, gone, known.node.meta.uid)
    assert endpoints(cache) == endpoints(cache_of([item for item in fleet if item is not known]))


@given(fleets, fleets)
def test_a_change_leads_to_the_endpoints_of_a_fleet_that_began_with_it(
    before: Sequence[Claims], after: Sequence[Claims]
) -> None:
    cache = cache_of([replace(item, kube=None) for item in before])
    for item in after:
        newer = replace(item.node, meta=replace(item.node.meta, version=2))
        assert newer.report
        cache.upsert(replace(newer, report=replace(newer.report, sequence=2)), 0)
    assert endpoints(cache) == endpoints(cache_of([replace(item, kube=None) for item in after]))


@given(fleets, st.integers(0, 2))
def test_only_the_keys_of_nodes_that_change_are_dirty(fleet: Sequence[Claims], index: int) -> None:
    cache = cache_of([item for number, item in enumerate(fleet) if number != index])
    before = {name: tracker.view for name, tracker in cache.nodes.items()}
    dirty = {key.name for key in cache.upsert(fleet[index].node, 0)}
    changed = {name for name, view in before.items() if cache.nodes[name].view != view}
    assert dirty == changed | {NAMES[index]}
