"""Services of pools over a fake API server in simulated time (requirements D3, D4, D9, D10, D11, D12).

On a real API server: tests/cluster/operator/test_services.py.
"""

import asyncio
from typing import Any

import pytest
from tests.support.builders import generator_object, kube_node_object, report, requires, service
from tests.support.llm_fleet import publish
from tests.support.service_fleet import (
    SERVICES,
    SLICES,
    ServiceApi,
    address,
    addresses,
    asr,
    no_fault,
    operator,
    put_node,
    put_pool,
    service_fleet,
)
from tests.support.simulated_fleet import FakeRedis, refusing, simulated, until

from hotpool.controllers.context import ROUND_SECONDS
from hotpool.core import match_index
from hotpool.core.model import Kind
from hotpool.errors import NotLeaderError
from hotpool.kube.writer import WRITE_TIMEOUT

pytestmark = pytest.mark.timeout(60)

READY = "ready+serving"
AT_ONCE = 0.05
DRIFT_SECONDS = 5.0
"""Time between two drift checks."""
REPAIR_SECONDS = DRIFT_SECONDS + ROUND_SECONDS + AT_ONCE
NAME_SECONDS = 10.0 + ROUND_SECONDS + AT_ONCE
"""Time in which a name that was taken is used."""


@simulated
async def test_a_pool_with_a_service_gets_one_without_selector_and_its_members_are_the_endpoints() -> None:
    api = service_fleet(2)
    async with operator(api):
        found = api.core[SERVICES]["asr"]
        assert "selector" not in found["spec"]
        assert found["spec"]["ports"] == [{"name": "asr", "port": 80, "protocol": "TCP", "targetPort": 80}]
        assert (found["spec"]["type"], found["spec"]["ipFamilyPolicy"]) == ("ClusterIP", "PreferDualStack")
        assert found["metadata"]["annotations"] == {"service.hotpool.dev/term": "7"}
        assert found["metadata"]["ownerReferences"][0]["uid"] == "uid-asr"
        (item,) = api.core[SLICES].values()
        assert item["metadata"]["labels"] == {
            "service.hotpool.dev/pool": "asr",
            "kubernetes.io/service-name": "asr",
            "endpointslice.kubernetes.io/managed-by": "operator.hotpool.dev",
        }
        assert item["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
        assert api.endpoints("asr") == dict.fromkeys(addresses(range(2)), READY)


@simulated
async def test_a_stop_and_a_start_change_the_endpoints_at_once_and_an_unchanged_heartbeat_never() -> None:
    api = service_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(ROUND_SECONDS)
        publish(api, "n0", asr(address(0), 2, running=False))
        assert await until(lambda: address(0) not in api.endpoints("asr")) < AT_ONCE
        await fleet.beating(ROUND_SECONDS)
        publish(api, "n0", asr(address(0), 3))
        assert await until(lambda: address(0) in api.endpoints("asr")) < AT_ONCE
        written = len(api.service_writes)
        for sequence in range(4, 14):
            publish(api, "n0", asr(address(0), sequence))
            await fleet.beating(5.0)
        assert len(api.service_writes) == written


@simulated
async def test_another_port_or_address_replaces_the_endpoint_at_once() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(ROUND_SECONDS)
        publish(api, "n0", asr(address(0), 2, port=7000))
        await until(lambda: "asr.asr.ipv4.7000.0" in api.core[SLICES], AT_ONCE)
        assert [e["addresses"] for e in api.core[SLICES]["asr.asr.ipv4.7000.0"]["endpoints"]] == [[address(0)]]
        assert [e["addresses"] for e in api.core[SLICES]["asr.asr.ipv4.6007.0"]["endpoints"]] == [[address(1)]]
        await fleet.beating(ROUND_SECONDS)
        publish(api, "n0", asr("fd00::7", 3, port=7000))
        await until(lambda: set(api.endpoints("asr")) == {"fd00::7", address(1)}, AT_ONCE)
        assert api.core[SLICES]["asr.asr.ipv6.7000.0"]["addressType"] == "IPv6"
        assert "asr.asr.ipv4.7000.0" not in api.core[SLICES]


@simulated
async def test_many_changes_of_a_pool_are_written_at_most_once_a_second() -> None:
    api = service_fleet(50)
    async with operator(api) as fleet:
        await fleet.beating(ROUND_SECONDS)
        written = len(api.service_writes)
        for number in range(40):
            publish(api, f"n{number}", asr(address(number), 2, running=False))
            await asyncio.sleep(0.05)
        await fleet.beating(2 * ROUND_SECONDS)
        assert set(api.endpoints("asr")) == addresses(range(40, 50))
        assert len(api.service_writes) - written <= 4


@simulated
async def test_draining_and_suspect_members_have_their_conditions_and_the_last_suspect_ones_are_used() -> None:
    api = service_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.edit(Kind.NODE, "n0", {"spec": {"drain": True}})
        await until(lambda: api.endpoints("asr")[address(0)] == "terminating", 2.0)
        await fleet.beating(50, "n1")
        assert api.endpoints("asr")[address(2)] == ""
        assert api.endpoints("asr")[address(1)] == READY
        publish(api, "n1", asr(address(1), 2, running=False))
        await until(lambda: api.endpoints("asr") == {address(0): "terminating", address(2): READY}, 2.0)


@simulated
async def test_an_address_outside_the_allowed_ranges_is_no_endpoint() -> None:
    api = service_fleet(1)
    put_node(api, "people", asr("10.0.9.9"), people=("203.0.113.7",))
    put_node(api, "agent", asr("192.0.2.1"))
    async with operator(api):
        assert api.members("asr") == {"n0": "Ready", "people": "Ready", "agent": "Ready"}
        assert set(api.endpoints("asr")) == {address(0)}


@simulated
async def test_an_endpoint_names_a_v1_node_only_where_there_is_one() -> None:
    api = service_fleet(2)
    api.put(kube_node_object("n1"))
    async with operator(api, kube_nodes=True):
        (item,) = api.core[SLICES].values()
        assert [endpoint.get("nodeName") for endpoint in item["endpoints"]] == [None, "n1"]
        assert [endpoint["hostname"] for endpoint in item["endpoints"]] == ["n0", "n1"]


@simulated
async def test_a_restart_writes_nothing_when_nothing_changed_whatever_the_term() -> None:
    api = service_fleet(3)
    for taken in (False, True):
        if taken:
            put_pool(api, "second", {"name": "asr"}, created=2)
        async with operator(api) as fleet:
            await fleet.beating(60)
        written, others = len(api.service_writes), len(api.writes)
        async with operator(api) as fleet:
            fleet.term = 99
            await fleet.beating(60)
            assert not fleet.services_error
        assert (len(api.service_writes), len(api.writes)) == (written, others)


@pytest.mark.parametrize(
    ("plural", "patch"),
    [
        (SERVICES, {"spec": {"selector": {"app": "x"}}}),
        (SERVICES, {"spec": {"type": "LoadBalancer"}}),
        (SERVICES, {"spec": {"externalIPs": ["192.0.2.1"]}}),
        (SERVICES, {"spec": {"ports": [{"name": "asr", "port": 81}]}}),
        (SERVICES, {"metadata": {"labels": None}}),
        (SERVICES, {"metadata": {"labels": {"service.hotpool.dev/pool": "other"}}}),
        (SERVICES, {"metadata": {"annotations": None}}),
        (SERVICES, {"metadata": {"ownerReferences": None}}),
        (SLICES, {"endpoints": []}),
        (SLICES, {"endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}]}),
        (SLICES, {"ports": []}),
        (SLICES, {"metadata": {"labels": {"kubernetes.io/service-name": "other"}}}),
        (SLICES, {"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": "other"}}}),
        (SLICES, {"metadata": {"labels": {"service.hotpool.dev/pool": None}}}),
        (SLICES, {"metadata": {"labels": {"service.hotpool.dev/pool": "other"}}}),
        (SLICES, {"metadata": {"annotations": None}}),
        (SLICES, {"metadata": {"ownerReferences": None}}),
    ],
)
@simulated
async def test_what_another_client_changed_is_repaired_with_an_event(plural: str, patch: dict[str, Any]) -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(DRIFT_SECONDS)
        (name,) = api.core[plural]
        before = _without_version(api.core[plural][name])
        api.edit_core(plural, name, patch)
        await fleet.beating(REPAIR_SECONDS)
        assert _without_version(api.core[plural][name]) == before
        assert list(api.core[plural]) == [name]
        assert "ServiceRepaired" in {reason for reason, _ in api.event_notes("asr")}


def _without_version(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": ""}}


@simulated
async def test_a_change_of_what_the_operator_does_not_maintain_is_left_alone() -> None:
    api = service_fleet(1)
    async with operator(api) as fleet:
        await fleet.beating(DRIFT_SECONDS)
        written = len(api.service_writes)
        api.edit_core(SERVICES, "asr", {"spec": {"sessionAffinity": "ClientIP"}, "metadata": {"labels": {"team": "a"}}})
        await fleet.beating(3 * DRIFT_SECONDS)
        assert len(api.service_writes) == written
        assert not fleet.services_error


@pytest.mark.parametrize("plural", [SERVICES, SLICES])
@simulated
async def test_what_another_client_deleted_is_created_again(plural: str) -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(DRIFT_SECONDS)
        (name,) = api.core[plural]
        api.delete_core(plural, name)
        await fleet.beating(REPAIR_SECONDS + ROUND_SECONDS)
        assert api.endpoints("asr") == dict.fromkeys(addresses(range(2)), READY)
        assert api.core[SERVICES]["asr"]["metadata"]["uid"] == _owner(api)


def _owner(api: ServiceApi) -> str:
    (owner,) = {item["metadata"]["ownerReferences"][0]["uid"] for item in api.core[SLICES].values()}
    return str(owner)


@simulated
async def test_a_deleted_pool_takes_its_service_along_also_without_the_garbage_collector() -> None:
    for collects in (True, False):
        api = service_fleet(2)
        async with operator(api) as fleet:
            await fleet.beating(1)
            api.collects = collects
            api.delete(Kind.POOL, "asr")
            await fleet.beating(2 * REPAIR_SECONDS)
            assert api.core == {SERVICES: {}, SLICES: {}}
            assert not fleet.services_error


@simulated
async def test_what_is_left_of_a_pool_that_was_deleted_while_no_operator_ran_is_deleted() -> None:
    api = service_fleet(2)
    async with operator(api):
        pass
    api.collects = False
    api.delete(Kind.POOL, "asr")
    for item in (*api.core[SERVICES].values(), *api.core[SLICES].values()):
        item["metadata"]["ownerReferences"] = []
    async with operator(api) as fleet:
        await fleet.beating(REPAIR_SECONDS)
        assert api.core == {SERVICES: {}, SLICES: {}}


@simulated
async def test_a_pool_created_again_under_its_name_keeps_the_service_of_the_former_one() -> None:
    api = service_fleet(2)
    async with operator(api):
        pass
    api.collects = False
    cluster_ip = api.core[SERVICES]["asr"]["spec"]["clusterIP"]
    api.delete(Kind.POOL, "asr")
    put_pool(api, "asr")
    async with operator(api) as fleet:
        await fleet.beating(1)
        found = api.core[SERVICES]["asr"]
        assert found["metadata"]["ownerReferences"][0]["uid"] == api.objects[Kind.POOL]["asr"]["metadata"]["uid"]
        assert found["spec"]["clusterIP"] == cluster_ip


@simulated
async def test_dry_run_empties_a_service_and_a_paused_pool_keeps_it_as_it_is() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.edit(Kind.POOL, "asr", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(1)
        written = len(api.service_writes)
        publish(api, "n0", asr(address(0), 2, running=False))
        api.edit_core(SERVICES, "asr", {"spec": {"selector": {"app": "x"}}})
        await fleet.beating(2 * REPAIR_SECONDS)
        assert (len(api.service_writes), set(api.endpoints("asr"))) == (written, addresses(range(2)))
        api.edit(Kind.POOL, "asr", {"metadata": {"annotations": None}})
        await until(lambda: set(api.endpoints("asr")) == {address(1)}, 2.0)
        assert not api.core[SERVICES]["asr"]["spec"].get("selector")
        await fleet.beating(ROUND_SECONDS)
        api.edit(Kind.POOL, "asr", {"spec": {"mode": "DryRun"}})
        await until(lambda: api.endpoints("asr") == {}, 2.0)
        assert list(api.core[SERVICES]) == ["asr"]


@simulated
async def test_a_pool_that_no_longer_asks_for_a_service_has_none() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.edit(Kind.POOL, "asr", {"spec": {"service": None}})
        await until(lambda: api.core == {SERVICES: {}, SLICES: {}}, 2.0)


@pytest.mark.parametrize("giving_up", ["no service", "another name", "another member", "a deleted pool"])
@pytest.mark.parametrize("plural", [SERVICES, SLICES])
@pytest.mark.parametrize("lost", [{"labels": {"service.hotpool.dev/pool": None}}, {"ownerReferences": None}])
@simulated
async def test_what_lost_its_label_or_owner_just_before_the_pool_gives_it_up_goes_nevertheless(
    giving_up: str, plural: str, lost: dict[str, Any]
) -> None:
    api = service_fleet(1)
    async with operator(api) as fleet:
        await fleet.beating(DRIFT_SECONDS)
        (name,) = api.core[plural]
        former = api.core[plural][name]["metadata"]["uid"]
        api.edit_core(plural, name, {"metadata": lost})
        if giving_up == "a deleted pool":
            api.delete(Kind.POOL, "asr")
        elif giving_up == "another member":  # the port, and with it the EndpointSlice
            publish(api, "n0", asr(address(0), 2, port=6008))
        else:
            api.edit(Kind.POOL, "asr", {"spec": {"service": None if giving_up == "no service" else {"name": "new"}}})
        await fleet.beating(2 * REPAIR_SECONDS)
        left = {item["metadata"]["uid"] for item in api.core[plural].values()}
        assert (former in left) == (giving_up == "another member" and plural == SERVICES)
        wanted = {"another name": "new", "another member": "asr"}.get(giving_up)
        assert set(api.core[SERVICES]) == ({wanted} if wanted else set())


@simulated
async def test_no_endpoint_goes_before_all_nodes_are_matched_with_a_changed_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(match_index, "_MATCHES_PER_STEP", 1)  # one node
    api = service_fleet(20)
    async with operator(api) as fleet:
        await fleet.beating(2 * ROUND_SECONDS)
        written = len(api.service_writes)
        api.edit(Kind.POOL, "asr", {"spec": {"minMembers": 3}})
        await asyncio.sleep(0)  # the event arrives
        assert not fleet.cache.matches.done
        await fleet.beating(2 * ROUND_SECONDS)
        assert fleet.cache.matches.done
        assert len(api.service_writes) == written


@simulated
async def test_a_service_of_another_name_is_filled_before_the_former_one_goes() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.service_writes.clear()
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "speech"}}})
        await until(lambda: list(api.core[SERVICES]) == ["speech"], 2.0)
        assert set(api.endpoints("speech")) == addresses(range(2))
        assert api.written_core() == [
            ("create", "speech"),
            ("create", "speech.asr.ipv4.6007.0"),
            ("delete", "asr"),
        ]
        await fleet.beating(2 * DRIFT_SECONDS)
        assert api.endpoints("asr") == {}


@simulated
async def test_another_kind_of_cluster_ip_replaces_the_service_and_keeps_its_slices() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.service_writes.clear()
        api.collects = False
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"clusterIP": "None"}}})
        await until(lambda: api.core[SERVICES].get("asr", {}).get("spec", {}).get("clusterIP") == "None", 2.0)
        await fleet.beating(1)
        assert api.written_core() == [("delete", "asr"), ("create", "asr"), ("patch", "asr.asr.ipv4.6007.0")]
        assert _owner(api) == api.core[SERVICES]["asr"]["metadata"]["uid"]


@simulated
async def test_a_service_that_others_made_is_never_touched_and_its_name_is_used_when_it_is_free() -> None:
    api = service_fleet(2)
    api.put_core(SERVICES, "asr", spec={"type": "ClusterIP", "selector": {"app": "theirs"}})
    async with operator(api) as fleet:
        await fleet.beating(6 * DRIFT_SECONDS)
        assert api.service_writes == []
        assert api.conditions(Kind.POOL, "asr")["ServiceNameTaken"] == ("True", "NotOurs")
        assert not fleet.services_error
        api.delete_core(SERVICES, "asr")
        await until(lambda: set(api.endpoints("asr")) == addresses(range(2)), NAME_SECONDS)
        await until(lambda: "ServiceNameTaken" not in api.conditions(Kind.POOL, "asr"), 2.0)


@simulated
async def test_an_endpoint_slice_that_others_made_under_our_name_is_never_touched() -> None:
    api = service_fleet(2)
    name = "asr.asr.ipv4.6007.0"
    theirs = api.put_core(SLICES, name, metadata={"labels": {"kubernetes.io/service-name": "asr"}}, endpoints=[])
    async with operator(api) as fleet:
        await fleet.beating(3 * DRIFT_SECONDS)
        assert api.core[SLICES][name] == theirs
        assert "WriteRefused" in {reason for reason, _ in api.event_notes("asr")}
        api.delete_core(SLICES, name)
        await until(lambda: set(api.endpoints("asr")) == addresses(range(2)), NAME_SECONDS)


@simulated
async def test_a_name_that_an_older_pool_wanted_for_a_moment_only_is_not_taken() -> None:
    api = service_fleet(1)
    put_pool(api, "young", {"name": "speech"}, created=2)
    async with operator(api) as fleet:
        await until(lambda: "speech" in api.core[SERVICES])
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "speech"}}})
        await asyncio.sleep(0.01)  # within the round of the other
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "asr"}}})
        await fleet.beating(NAME_SECONDS)
        assert set(api.endpoints("speech")) == addresses(range(1))
        assert "ServiceNameTaken" not in api.conditions(Kind.POOL, "young")


@simulated
async def test_a_pool_says_that_its_name_is_taken_although_its_service_was_edited_meanwhile() -> None:
    api = service_fleet(1)
    put_pool(api, "young", {"name": "speech"}, created=2)
    async with operator(api) as fleet:
        await fleet.beating(2 * ROUND_SECONDS)
        api.edit_core(SERVICES, "speech", {"spec": {"selector": {"app": "x"}}})
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "speech"}}})
        await until(lambda: "ServiceNameTaken" in api.conditions(Kind.POOL, "young"), 2 * ROUND_SECONDS)


@simulated
async def test_of_two_pools_with_one_name_the_older_one_has_the_service_until_it_is_gone() -> None:
    api = service_fleet(2)
    put_pool(api, "first", {"name": "speech"}, created=2)
    put_pool(api, "second", {"name": "speech"}, created=3, excludeNodes=["n0"])
    async with operator(api) as fleet:
        await fleet.beating(2)
        assert set(api.endpoints("speech")) == addresses(range(2))
        assert api.conditions(Kind.POOL, "second")["ServiceNameTaken"] == ("True", "NotOurs")
        assert "ServiceNameTaken" not in api.conditions(Kind.POOL, "first")
        api.delete(Kind.POOL, "first")
        await until(lambda: set(api.endpoints("speech")) == {address(1)}, 2.0)
        await until(lambda: "ServiceNameTaken" not in api.conditions(Kind.POOL, "second"), 2.0)
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "speech"}}})
        await until(lambda: set(api.endpoints("speech")) == addresses(range(2)), 3 * ROUND_SECONDS)
        assert list(api.core[SERVICES]) == ["speech"]
        await until(lambda: "ServiceNameTaken" in api.conditions(Kind.POOL, "second"), 2 * ROUND_SECONDS)


@simulated
async def test_a_pool_whose_name_an_older_pool_took_for_a_while_has_its_service_again() -> None:
    api = service_fleet(1)
    put_pool(api, "young", {"name": "speech"}, created=2)
    async with operator(api) as fleet:
        api.edit(Kind.POOL, "asr", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "speech"}}})
        await until(lambda: "speech" not in api.core[SERVICES], NAME_SECONDS)
        await fleet.beating(2 * NAME_SECONDS)
        assert api.conditions(Kind.POOL, "young")["ServiceNameTaken"] == ("True", "NotOurs")
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"name": "asr"}}})
        await until(lambda: set(api.endpoints("speech")) == addresses(range(1)), NAME_SECONDS)
        await until(lambda: "ServiceNameTaken" not in api.conditions(Kind.POOL, "young"), 2.0)


@simulated
async def test_without_allowed_ranges_no_pool_has_a_service_and_says_so() -> None:
    api = service_fleet(2)
    async with operator(api):
        pass
    async with operator(api, refusal="endpoints.allowedCIDRs is empty") as fleet:
        await fleet.beating(2)
        assert api.core == {SERVICES: {}, SLICES: {}}


@simulated
async def test_a_generator_makes_a_service_for_each_of_its_pools() -> None:
    api = service_fleet(0)
    api.delete(Kind.POOL, "asr")
    languages = [service("w", "asr", attributes=[{"key": "tier", "values": [tier]}], endpoint=_PORT) for tier in "ab"]
    nodes = [{"ip": address(number), "source": "Route"} for number in range(2)]
    for number, item in enumerate(languages):
        put_node(api, f"n{number}", report(item, addresses=[nodes[number]]))
    template = {"requires": requires("asr"), "service": {"ports": [{"type": "asr", "port": 80}]}}
    rule = {"attributeValues": {"type": "asr", "key": "tier"}}
    api.put(generator_object("tiers", rule=rule, template={"spec": template}))
    async with operator(api) as fleet:
        await fleet.beating(2)
        assert set(api.core[SERVICES]) == set(api.objects[Kind.POOL])
        assert sorted(str(set(api.endpoints(name))) for name in api.core[SERVICES]) == [
            str({address(0)}),
            str({address(1)}),
        ]


_PORT = {"addresses": [], "port": 6007}


@simulated
async def test_a_missing_right_is_named_and_everything_is_written_once_it_is_granted() -> None:
    api = service_fleet(2)
    api.denied = {("patch", "endpointslices")}
    async with operator(api) as fleet:
        await fleet.beating(5)
        assert "may not patch endpointslices.discovery.k8s.io" in fleet.services_error
        assert api.service_writes == []
        assert set(api.members("asr")) == {"n0", "n1"}
        api.denied = set()
        await until(lambda: set(api.endpoints("asr")) == addresses(range(2)), 2.0)
        await until(lambda: not fleet.services_error)


@simulated
async def test_a_refused_write_is_reported_at_the_pool_and_keeps_no_other_pool_waiting() -> None:
    api = service_fleet(2)
    put_pool(api, "other")
    api.service_fault = lambda verb, _plural, name: (
        _refused() if (verb, name) == ("create", "asr") else None  # by a quota
    )
    async with operator(api) as fleet:
        await fleet.beating(3 * DRIFT_SECONDS)
        assert set(api.endpoints("other")) == addresses(range(2))
        assert not fleet.services_error
        assert "WriteRefused" in {reason for reason, _ in api.event_notes("asr")}
        api.service_fault = no_fault
        await until(lambda: set(api.endpoints("asr")) == addresses(range(2)), NAME_SECONDS)


def _refused() -> BaseException:
    error = refusing(403)("create", Kind.POOL, "")
    assert error
    return error


@simulated
async def test_a_refused_creation_keeps_no_endpoint_that_ended() -> None:
    api = service_fleet(1)
    async with operator(api) as fleet:
        await fleet.beating(2 * ROUND_SECONDS)
        api.service_fault = lambda verb, plural, _name: _refused() if (verb, plural) == ("create", SLICES) else None
        publish(api, "n0", asr(address(0), 2, port=6008))
        await until(lambda: not api.endpoints("asr"), AT_ONCE)
        api.service_fault = no_fault
        await until(lambda: list(api.core[SLICES]) == ["asr.asr.ipv4.6008.0"], NAME_SECONDS)


@simulated
async def test_a_service_whose_change_is_refused_has_current_endpoints() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(2 * ROUND_SECONDS)
        api.service_fault = lambda verb, plural, _name: _refused() if (verb, plural) == ("patch", SERVICES) else None
        api.edit(Kind.POOL, "asr", {"spec": {"service": {"ports": [{"type": "asr", "port": 81}]}}})
        await fleet.beating(2 * ROUND_SECONDS)
        publish(api, "n0", asr(address(0), 2, running=False))
        await until(lambda: set(api.endpoints("asr")) == {address(1)}, AT_ONCE)
        assert "WriteRefused" in {reason for reason, _ in api.event_notes("asr")}
        api.service_fault = no_fault
        await until(lambda: api.core[SERVICES]["asr"]["spec"]["ports"][0]["port"] == 81, NAME_SECONDS)


@simulated
async def test_a_refused_patch_of_an_endpoint_slice_keeps_no_other_slice_of_the_pool_waiting() -> None:
    api = service_fleet(2)
    put_node(api, "n2", asr("fd00::2"))
    async with operator(api) as fleet:
        await fleet.beating(2 * ROUND_SECONDS)
        api.service_fault = lambda verb, _plural, name: _refused() if verb == "patch" and "ipv4" in name else None
        publish(api, "n0", asr(address(0), 2, running=False))
        put_node(api, "n3", asr("fd00::3"))
        await until(lambda: "fd00::3" in api.endpoints("asr"), 2 * ROUND_SECONDS + AT_ONCE)
        await until(lambda: "WriteRefused" in {reason for reason, _ in api.event_notes("asr")})
        api.service_fault = no_fault
        await until(lambda: set(api.endpoints("asr")) == {address(1), "fd00::2", "fd00::3"}, NAME_SECONDS)


@simulated
async def test_everything_is_right_after_an_outage_and_a_write_without_a_response() -> None:
    api = service_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.service_fault = lambda _verb, _plural, _name: TimeoutError()
        for number in range(2):
            publish(api, f"n{number}", asr(address(number), 2, running=False))
            await fleet.beating(20)
        assert "TimeoutError" in fleet.services_error
        assert set(api.members("asr")) == {"n2"}
        api.service_fault = no_fault
        await until(lambda: set(api.endpoints("asr")) == {address(2)}, 5.0)
        await until(lambda: not fleet.services_error)


@simulated
async def test_frozen_writes_of_services_delay_neither_slices_nor_redis() -> None:
    api, redis = service_fleet(20), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(2)
        api.service_delay = WRITE_TIMEOUT
        api.service_fault = lambda verb, _plural, _name: None if verb in {"get", "list"} else TimeoutError()
        for number in range(5):
            publish(api, f"n{number}", asr(address(number), 2, running=False))
            assert await until(lambda number=number: f"n{number}" not in redis.pools["asr"].ready) < AT_ONCE  # type: ignore[misc]
            assert await until(lambda number=number: f"n{number}" not in api.members("asr")) < AT_ONCE  # type: ignore[misc]
            await fleet.beating(ROUND_SECONDS)
        await fleet.beating(60)
        api.service_delay, api.service_fault = 0.0, no_fault
        await until(lambda: set(api.endpoints("asr")) == addresses(range(5, 20)), 5.0)


@simulated
async def test_a_deposed_leader_writes_nothing() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        written = len(api.service_writes)
        fleet.leading = False
        publish(api, "n0", asr(address(0), 2, running=False))
        await asyncio.sleep(5)
        assert len(api.service_writes) == written
        assert isinstance(fleet.tasks[0].exception(), NotLeaderError)
        fleet.tasks.clear()


@simulated
async def test_a_late_write_of_a_former_leader_is_repaired() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        (name,) = api.core[SLICES]
        old = {**api.core[SLICES][name], "addressType": "IPv4"}
        publish(api, "n0", asr(address(0), 2, running=False))
        publish(api, "n1", asr(address(1), 2, running=False))
        await until(lambda: api.endpoints("asr") == {}, 2.0)
        late = {**old["metadata"], "uid": None, "annotations": {"service.hotpool.dev/term": "3"}}
        api.put_core(SLICES, name, **{**old, "metadata": {**late, "uid": "uid-late"}})
        await fleet.beating(REPAIR_SECONDS)
        assert api.core[SLICES] == {}


@simulated
async def test_a_pool_deleted_and_created_while_its_service_is_written_does_not_get_what_is_of_the_former_one() -> None:
    api = service_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(1)
        api.service_delay = 0.5
        publish(api, "n0", asr(address(0), 2, running=False))
        await asyncio.sleep(0.2)
        api.delete(Kind.POOL, "asr")
        put_pool(api, "asr", {"ports": [{"type": "asr", "port": 8080}]})
        await fleet.beating(REPAIR_SECONDS)
        found = api.core[SERVICES]["asr"]
        assert found["metadata"]["ownerReferences"][0]["uid"] == api.objects[Kind.POOL]["asr"]["metadata"]["uid"]
        assert [port["port"] for port in found["spec"]["ports"]] == [8080]
        assert set(api.endpoints("asr")) == {address(1)}


@simulated
async def test_a_pool_without_a_service_causes_no_request_about_services() -> None:
    api = service_fleet(3)
    api.edit(Kind.POOL, "asr", {"spec": {"service": None}})
    asked: list[str] = []

    def note(verb: str, plural: str, name: str) -> BaseException | None:
        asked.extend([f"{verb} {plural} {name}"] if verb not in {"list", "review"} else [])
        return None

    api.service_fault = note
    async with operator(api) as fleet:
        for sequence in range(2, 6):
            publish(api, "n0", asr(address(0), sequence, running=sequence % 2 == 0))
            await fleet.beating(2)
        assert asked == []


@simulated
async def test_endpoints_are_in_slices_of_100_that_change_only_where_they_must() -> None:
    api = service_fleet(130)
    async with operator(api) as fleet:
        await fleet.beating(1)
        assert sorted(len(item["endpoints"]) for item in api.core[SLICES].values()) == [30, 100]
        api.service_writes.clear()
        publish(api, "n7", asr(address(7), 2, running=False))
        await until(lambda: address(7) not in api.endpoints("asr"), 2.0)
        assert len(api.service_writes) == 1
