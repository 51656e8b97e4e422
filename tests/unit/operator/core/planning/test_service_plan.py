"""The Service of a pool and its EndpointSlices, planned from members and vouched addresses (requirement D12)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.support.builders import core_report, kube_node, node, offer, pool, requires

from hotpool.api.slice import MemberState
from hotpool.core import languages
from hotpool.core.model import Endpoint, Liveness, Meta, NodeView, PodReference, Rule, ServiceEndpoint, ServiceOffer
from hotpool.core.planning.service_plan import ServicePlan, plan_service
from hotpool.core.planning.service_work import compare
from hotpool.core.pool_membership import PoolMembership
from hotpool.core.service_model import (
    EndpointGroup,
    EndpointTarget,
    ServiceObjects,
    ServicePort,
    StoredEndpointSlice,
    StoredService,
)

SERVICE = {"ports": [{"type": "asr", "port": 80}]}
V4, V6 = "10.0.0.{}", "fd00::{}"


def serving(name: str, *addresses: str, port: int = 6007, state: MemberState = "Ready", **more: Any) -> NodeView:
    """Return a node with one asr service at these vouched addresses; `more`: kube, services."""
    services = more.get("services") or [(offer("whisper", "asr"), port, addresses)]
    seen = node(name, uid=f"uid-{name}", drain=state == "Draining")
    endpoints = {
        item.service: Endpoint(item.service, item.type, its_port, its_addresses, its_addresses)
        for item, its_port, its_addresses in services
    }
    report = core_report(*(item for item, _, _ in services))
    liveness = Liveness.SUSPECT if state == "Suspect" else Liveness.LIVE
    return NodeView(replace(seen, report=report), liveness, endpoints=endpoints, kube=more.get("kube"))


def membership_of(*views: NodeView, service: Mapping[str, Any] = SERVICE, **spec: Any) -> PoolMembership:
    spec = {"requires": requires("asr"), **spec}
    membership = PoolMembership(pool("zh-en", service=dict(service), **spec))
    for view in views:
        membership.update(view.node.meta.name, view)
    return membership


def plan(
    membership: PoolMembership, stored: Iterable[StoredEndpointSlice] = (), *, now: float = 0.0, **more: Any
) -> ServicePlan:
    known = {item.meta.name: item for item in stored}
    allows = more.pop("allows", lambda _: True)
    return plan_service(membership, membership.members, known, allows, now=now, **more)


def stored(planned: ServicePlan) -> list[StoredEndpointSlice]:
    """Return the EndpointSlices as they are after the writes of a plan."""
    return [
        StoredEndpointSlice(Meta(name, f"uid-{name}", 1), "zh-en", "uid-service", 1, "zh-en", item.group.family, item)
        for name, item in planned.slices.items()
    ]


def states(planned: ServicePlan) -> dict[str, MemberState]:
    """Return address → state."""
    return {endpoint.address: endpoint.state for item in planned.slices.values() for endpoint in item.endpoints}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"1": "Ready"}, {"1": "Ready"}),
        ({"1": "Ready", "2": "Suspect"}, {"1": "Ready", "2": "Suspect"}),
        ({"2": "Suspect", "3": "Suspect"}, {"2": "Ready", "3": "Ready"}),
        ({"2": "Suspect", "4": "Draining"}, {"2": "Ready", "4": "Draining"}),
        ({"4": "Draining"}, {"4": "Draining"}),
    ],
)
def test_suspect_members_are_used_only_without_a_ready_one_and_draining_ones_never(
    members: dict[str, MemberState], expected: dict[str, MemberState]
) -> None:
    views = [serving(f"n{number}", V4.format(number), state=state) for number, state in members.items()]
    planned = plan(membership_of(*views))
    assert states(planned) == {V4.format(number): state for number, state in expected.items()}


def test_a_ready_member_of_another_type_does_not_make_a_suspect_one_the_last() -> None:
    both = {"ports": [{"type": "asr", "port": 80}, {"type": "tts", "port": 81}]}
    asr, tts = offer("a", "asr"), offer("t", "tts")
    ready = serving("ready", services=[(asr, 1, ("10.0.0.1",)), (tts, 2, ())])
    suspect = serving("suspect", state="Suspect", services=[(asr, 1, ("10.0.0.2",)), (tts, 2, ("10.0.0.2",))])
    planned = plan(membership_of(ready, suspect, service=both, requires=requires("asr", "tts")))
    found = {item.group.type: item.endpoints for item in planned.slices.values()}
    assert [endpoint.state for endpoint in found["asr"]] == ["Ready", "Suspect"]
    assert [endpoint.state for endpoint in found["tts"]] == ["Ready"]


def test_each_type_family_and_port_has_its_own_slices_and_a_port_named_by_the_type() -> None:
    service = {"ports": [{"type": "asr", "port": 80, "appProtocol": "http"}, {"type": "tts", "port": 81}]}
    asr, tts = offer("a", "asr"), offer("t", "tts")
    first = serving("n1", services=[(asr, 6007, ("10.0.0.1", "fd00::1")), (tts, 5008, ("10.0.0.1",))])
    second = serving("n2", services=[(asr, 6008, ("10.0.0.2",)), (tts, 5008, ("10.0.0.2",))])
    planned = plan(membership_of(first, second, service=service, requires=requires("asr", "tts")))
    assert planned.service
    assert planned.service.ports == (ServicePort("asr", 80, "http"), ServicePort("tts", 81, None))
    assert {name: [e.address for e in item.endpoints] for name, item in planned.slices.items()} == {
        "zh-en.asr.ipv4.6007.0": ["10.0.0.1"],
        "zh-en.asr.ipv4.6008.0": ["10.0.0.2"],
        "zh-en.asr.ipv6.6007.0": ["fd00::1"],
        "zh-en.tts.ipv4.5008.0": ["10.0.0.1", "10.0.0.2"],
    }
    assert planned.slices["zh-en.asr.ipv6.6007.0"].group == EndpointGroup("asr", "IPv6", 6007)
    assert planned.slices["zh-en.asr.ipv6.6007.0"].app_protocol == "http"


def test_the_service_is_named_after_the_pool_unless_the_spec_has_a_name_and_is_headless_on_request() -> None:
    default, named = plan(membership_of()).service, plan(membership_of(service={**SERVICE, "name": "speech"})).service
    headless = plan(membership_of(service={**SERVICE, "clusterIP": "None"})).service
    assert default
    assert named
    assert headless
    assert (default.name, default.headless, named.name, headless.headless) == ("zh-en", False, "speech", True)
    assert plan(PoolMembership(pool("zh-en", requires=requires("asr")))).service is None


def test_only_services_that_meet_the_pool_are_endpoints_and_each_of_them_is_one() -> None:
    gold, other, more = offer("g", "asr", tier=["gold"]), offer("o", "asr"), offer("m", "asr", tier=["gold"])
    services = [(gold, 1, ("10.0.0.1",)), (other, 2, ("10.0.0.1",)), (more, 3, ("10.0.0.1",))]
    types = [{"type": "asr", "attributes": [{"key": "tier", "anyOf": ["gold"]}]}]
    planned = plan(membership_of(serving("n1", services=services), requires={"types": types}))
    assert {item.group.port for item in planned.slices.values()} == {1, 3}


def test_a_service_of_other_languages_is_behind_no_service_of_a_language_pool() -> None:
    chinese = offer("zh", "nmt", rules=(Rule("specific_pairs", pairs=frozenset({"zh-en"})),))
    german = offer("de", "nmt", rules=(Rule("specific_pairs", pairs=frozenset({"de-en"})),))
    offers = (chinese, german, offer("a", "asr", "zh", "de"), offer("t", "tts", "en"))
    view = serving("n1", services=[(item, port, ("10.0.0.1",)) for port, item in enumerate(offers, 1)])
    view = replace(view, pairs=languages.pairs(core_report(*offers), semantic=False))
    wanted = {**requires("asr", "nmt", "tts"), "languagePairs": {"allOf": ["zh-en"]}}
    service = {"ports": [{"type": "nmt", "port": 80}]}
    planned = plan(membership_of(view, requires=wanted, service=service))
    assert [item.group.port for item in planned.slices.values()] == [1]


def test_an_endpoint_has_one_address_of_its_family_the_first_that_may_be_published() -> None:
    view = serving("n1", "192.0.2.1", "10.0.0.1", "10.0.0.2", "fd00::1")
    planned = plan(membership_of(view), allows=lambda address: not address.startswith("192."))
    assert states(planned) == {"10.0.0.1": "Ready", "fd00::1": "Ready"}


def test_an_endpoint_names_its_node_where_kubernetes_can_and_the_object_behind_it() -> None:
    pod = ServiceOffer("p", "asr", endpoint=ServiceEndpoint(80, ("10.1.0.1",)), pod=PodReference("apps", "p-0", "u"))
    inside = serving("node-1", kube=kube_node("node-1"), services=[(pod, 80, ("10.1.0.1",))])
    outside = serving("edge.example.org", "10.0.0.2", port=80)
    planned = plan(membership_of(inside, outside))
    found = {endpoint.address: endpoint for endpoint in planned.slices["zh-en.asr.ipv4.80.0"].endpoints}
    assert found["10.1.0.1"][2:] == ("node-1", "node-1", EndpointTarget("Pod", "apps", "p-0", "u"))
    target = EndpointTarget("NodeCapability", "", "edge.example.org", "uid-edge.example.org")
    assert found["10.0.0.2"][2:] == (None, None, target)


def test_an_address_that_two_nodes_have_is_one_endpoint_of_the_better_state_whatever_their_order() -> None:
    ready, suspect = serving("b", "10.0.0.1"), serving("a", "10.0.0.1", state="Suspect")
    for views in ((ready, suspect), (suspect, ready)):
        (item,) = plan(membership_of(*views)).slices.values()
        assert [(endpoint.address, endpoint.target.name) for endpoint in item.endpoints] == [("10.0.0.1", "b")]


def many(count: int) -> list[NodeView]:
    return [serving(f"n{number:03}", V4.format(number)) for number in range(count)]


def sizes(planned: ServicePlan) -> dict[str, int]:
    return {name.rpartition(".")[2]: len(item.endpoints) for name, item in planned.slices.items()}


def test_slices_hold_100_endpoints_members_keep_their_place_and_a_new_one_takes_the_lowest_free_place() -> None:
    membership = membership_of(*many(150))
    first = plan(membership)
    assert sizes(first) == {"0": 100, "1": 50}
    membership.update("n005", None)
    membership.update("zz", serving("zz", "10.0.9.9"))
    second = plan(membership, stored(first))
    changed = {name for name, item in second.slices.items() if item != first.slices[name]}
    assert changed == {"zh-en.asr.ipv4.6007.0"}
    assert second.slices["zh-en.asr.ipv4.6007.0"].endpoints[-1].address == "10.0.9.9"


def test_slices_less_than_a_quarter_full_are_merged_at_most_once_a_minute() -> None:
    membership = membership_of(*many(220))
    full = plan(membership)
    for number in range(30, 60):
        membership.update(f"n{number:03}", None)
    waiting = plan(membership, stored(full), now=10.0, merge_at=50.0)
    assert (sizes(waiting), waiting.recheck_at) == ({"0": 100, "1": 70, "2": 20}, 50.0)
    merged = plan(membership, stored(waiting), now=50.0, merge_at=50.0)
    assert (sizes(merged), merged.merge_at, merged.recheck_at) == ({"0": 100, "1": 90}, 110.0, None)


def test_a_pool_without_published_members_has_a_service_without_endpoints() -> None:
    membership = membership_of(*many(2))
    planned = plan_service(membership, {}, {}, lambda _: True, now=0.0)
    assert (planned.service is not None, planned.slices) == (True, {})


def service(name: str = "zh-en", **more: Any) -> StoredService:
    """Return the Service of the pool as it is after its creation."""
    desired = plan(membership_of(service={**SERVICE, "name": name})).service
    assert desired
    known = StoredService(Meta(name, "uid-service", 1), "zh-en", "uid-zh-en", 1, desired)
    return replace(known, **more)


def work(planned: ServicePlan, services: Iterable[StoredService], slices: Iterable[StoredEndpointSlice] = ()) -> Any:
    objects = ServiceObjects({item.meta.name: item for item in services}, {item.meta.name: item for item in slices})
    uids = {item.meta.uid for item in objects.services.values()}
    return compare(membership_of().pool, planned, objects, uids, lambda uid: uid in {"uid-zh-en", "uid-other"})


def test_nothing_is_written_when_everything_is_stored_whatever_term_wrote_it() -> None:
    planned = plan(membership_of(*many(3)))
    assert work(planned, [service(term=99)], stored(planned)).is_empty


@pytest.mark.parametrize(
    "edit", [{"intact": False}, {"pool": ""}, {"owner": None}, {"term": None}, {"content": service("x").content}]
)
def test_an_edited_service_is_patched_and_one_of_another_kind_of_cluster_ip_replaced(edit: dict[str, Any]) -> None:
    ports = replace(service().content, ports=())
    edited = replace(service(), **({"content": ports} if "content" in edit else edit))
    found = work(plan(membership_of()), [edited])
    assert (found.service_differs, found.replaces_service) == (True, False) or found.known is None
    headless = plan(membership_of(service={**SERVICE, "clusterIP": "None"}))
    assert work(headless, [service()]).replaces_service


@pytest.mark.parametrize(
    "edit", [{"pool": "x"}, {"owner": "x"}, {"term": None}, {"service": ""}, {"content": None}, {"family": "IPv6"}]
)
def test_an_edited_endpoint_slice_is_patched_or_replaced_if_its_address_type_is_wrong(edit: dict[str, Any]) -> None:
    planned = plan(membership_of(*many(3)))
    (known,) = stored(planned)
    diff = work(planned, [service()], [replace(known, **edit)]).diff("uid-service")
    expected = (0, 1) if "family" in edit else (1, 0)
    assert (len(diff.create), len(diff.update), len(diff.delete)) == (0, *expected)


def test_a_service_of_another_owner_or_of_a_living_pool_is_never_changed() -> None:
    planned = plan(membership_of())
    for foreign in (
        service(owner=None, term=None),
        service(owner="uid-other"),
        service(owner=None, pool="other"),
        service(owner="uid-gone", pool=""),
    ):
        found = work(planned, [foreign])
        assert (found.known, found.surplus) == (None, ())
    for former in (service(owner="uid-gone"), service(owner=None), service(term=None, pool="")):
        assert work(planned, [former]).known is former


def test_slices_of_a_former_service_stay_until_it_is_deleted_and_strays_are_deleted() -> None:
    planned = plan(membership_of(*many(1), service={**SERVICE, "name": "new"}))
    old = service("old", meta=Meta("old", "uid-old", 1))
    of_old = StoredEndpointSlice(Meta("old.asr.ipv4.1.0", "u", 1), "zh-en", "uid-old", 1, "old", "IPv4", None)
    stray = replace(of_old, meta=Meta("x.asr.ipv4.1.0", "v", 1), owner="uid-gone")
    found = work(planned, [old], [of_old, stray])
    assert (found.known, found.surplus, found.strays) == (None, (old,), (stray,))
    assert set(found.diff("").create) == {"new.asr.ipv4.6007.0"}


def test_a_change_is_a_withdrawal_if_an_endpoint_is_no_longer_ready() -> None:
    membership = membership_of(*many(2))
    before = plan(membership)
    membership.update("n001", serving("n001", "10.0.0.1", state="Draining"))
    assert work(plan(membership), [service()], stored(before)).change == "withdrawal"
    assert work(before, [service()], stored(plan(membership))).change == "gain"
    assert work(before, [service(intact=False)], stored(before)).change is None


def test_only_a_change_behind_the_service_of_a_pool_that_has_one_makes_the_pool_due() -> None:
    with_service, without = membership_of(), PoolMembership(pool("p", requires=requires("asr")))
    for membership in (with_service, without):
        membership.update("n", serving("n", "10.0.0.1"))
        version = membership.version
        moved = membership.update("n", serving("n", "10.0.0.2"))
        assert (moved, membership.version) == (membership is with_service, version)
    assert not with_service.update("n", serving("n", "10.0.0.2"))
    with_service.update("n", None)
    assert with_service.backends == {}


def test_desired_slices_keep_their_order() -> None:
    (item,) = plan(membership_of(*reversed(many(3)))).slices.values()
    assert [endpoint.address for endpoint in item.endpoints] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
