"""An upgrade from the release before endpoints, on a real API server and a real Redis: no node leaves a pool (B13).

The services of the fleet listen on loopback only. Definitions, operator and agents are upgraded in this order, and each
of them also works beside parts of the other release.
"""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from kubernetes import client, config
from pytest_kind.cluster import KindCluster
from tests.cluster.operator.test_chain import last_heartbeat
from tests.cluster.operator.test_endpoint_chain import DISCOVERED, ports_of
from tests.support.attacks import MERGE, READY, REPORT
from tests.support.fleet_objects import pool, published
from tests.support.former_fleet import (
    ADDRESS,
    REAL,
    SECONDS,
    FormerFleet,
    StoredMembersWatcher,
    downgrade_definitions,
    revoke_new_rights,
    upgrade_definitions,
)
from tests.support.own_kind_cluster import own_kind_cluster
from tests.support.own_network import run_in_own_network
from tests.support.simulated_agents import SimulatedAgents
from tests.support.slice_watcher import SliceWatcher

from hotpool.api.meta import timestamp
from hotpool.cli.enrollment import manifests
from localfleet.catalogue import translator
from localfleet.fleet import GROUP, Fleet
from localfleet.process import wait_for
from localfleet.redis_server import RedisServer

GONE: Final = "edge-gone"
"""A node whose record expires."""
INTERVAL: Final = 15
SERVICES: Final = translator(["zh", "en"])
NEW_FIELDS: Final = {"addresses", "endpoint", "endpointReason", "pod"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def kind_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCluster]:
    """A cluster of this module alone: its definitions change."""
    with own_kind_cluster("upgrade", tmp_path_factory.mktemp("upgrade")) as made:
        yield made


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    """A server of this module alone: the library in it is deleted."""
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def former(fleet: Fleet) -> Iterator[Fleet]:
    """A fleet with the definitions of the former release, the rights of its operator, and the policy of its agents."""
    revoke_new_rights(fleet)
    fleet.install_agents()
    downgrade_definitions(fleet)
    yield fleet
    upgrade_definitions(fleet)


def report(fleet: Fleet, node: str) -> Json:
    """Return the stored report of a node; empty if there is none."""
    status: Json = (fleet.get("nodecapabilities", node) or {}).get("status") or {}
    return dict(status.get("report") or {})


def fields(content: Json) -> set[str]:
    """Return the names of the fields of a report and of its services."""
    return {*content, *(name for item in content["services"] for name in item)}


def pids(fleet: Fleet) -> dict[str, int]:
    """Return the process of each service of the real agent."""
    return {item["id"]: item["pid"] for item in report(fleet, REAL)["services"]}


def endpoint_reasons(fleet: Fleet) -> set[str | None]:
    """Return why services of the real agent have no endpoint."""
    return {item.get("endpointReason") for item in report(fleet, REAL)["services"]}


def start_agent(fleet: Fleet) -> None:
    """Start the real agent, in the network of the calling thread. Its services outlive it."""
    fleet.start_agent(REAL, SERVICES, interval=INTERVAL, debounce=0.2, inside=DISCOVERED, onAgentExit="keep")


def account(fleet: Fleet, node: str) -> str:
    """Return the user name of a node's agent, whom the policy of agents limits."""
    return f"system:serviceaccount:{fleet.namespace}:{manifests.account_name(node)}"


def write_as_former_agent(fleet: Fleet, node: str, *sequences: int) -> None:
    """Create the record of a node, and write its reports, as an agent of the former release."""
    fleet.apply(*manifests.account(node, fleet.namespace))
    record = {"apiVersion": "/".join(GROUP), "kind": "NodeCapability", "metadata": {"name": node}}
    words = (f"--as={account(fleet, node)}", "apply", "--server-side", "--field-manager=hotpool-agent", "-f", "-")
    fleet.kubectl(*words, text=json.dumps(record))
    api: Any = config.new_client_from_config(str(fleet.admin))
    api.set_default_header("Impersonate-User", account(fleet, node))
    where = (*GROUP, fleet.namespace, "nodecapabilities", node)
    services = [{"id": "other", "type": "other", "state": "Running", "port": 6007}]
    capabilities = [{"type": "other", "ready": True, "reason": None, "services": ["other"]}]
    for sequence in sequences:
        numbers = {"sequence": sequence, "intervalSeconds": 1}
        content = {**REPORT, **numbers, "services": services, "capabilities": capabilities}
        client.CustomObjectsApi(api).patch_namespaced_custom_object_status(
            *where, {"status": {"report": content}}, _content_type=MERGE
        )
        assert report(fleet, node)["sequence"] == sequence


def wait_for_policy(fleet: Fleet, node: str) -> None:
    """Wait until the policy refuses what an agent must not write."""
    words = (f"--as={account(fleet, node)}", "patch", "ncap", node, "--type=merge", "--dry-run=server")

    def refused() -> bool:
        try:
            fleet.kubectl(*words, "-p", '{"spec": {"drain": true}}')
        except RuntimeError as error:
            return "an agent must not set or change spec" in str(error)
        return False

    wait_for("the policy of agents is enforced", refused, SECONDS)


def let_expire(fleet: Fleet, node: str) -> None:
    """Store that a node has been Offline for eleven minutes. No operator may run."""
    since = timestamp(datetime.now(UTC) - timedelta(minutes=11))
    offline = {**READY, "status": "Unknown", "reason": "Offline", "message": "", "lastTransitionTime": since}
    patch = json.dumps({"status": {"conditions": [offline]}})
    fleet.kubectl("patch", "ncap", node, "--subresource=status", "--type=merge", "-p", patch)


def test_an_upgrade_of_definitions_operator_and_agent_changes_no_slice_and_no_pool_in_redis(
    former: Fleet, request: pytest.FixtureRequest
) -> None:
    async def scenario() -> None:
        await asyncio.to_thread(upgrade, former)  # in the network of this thread

    run_in_own_network(request, scenario, f"{ADDRESS}/32", ports=ports_of(former))


def upgrade(fleet: Fleet) -> None:
    """Upgrade part by part, while watchers record each membership."""
    start_agent(fleet)
    with SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL) as agents, FormerFleet(fleet, agents) as former:
        former.publish()
        wait_for_policy(fleet, REAL)
        pools = former.pools()
        stored = StoredMembersWatcher(fleet, pools)
        with SliceWatcher(fleet.admin, fleet.namespace) as slices, stored:
            upgrade_stored_objects(former)
            upgrade_operator(former)
            upgrade_agent(former)
        # One membership each, that of the start: no slice was written, and no set in Redis has changed.
        assert {name: len(slices.memberships[name]) for name in pools} == dict.fromkeys(pools, 1)
        assert {name: len(stored.memberships[name]) for name in pools} == dict.fromkeys(pools, 1)
        assert all(fleet.members_in_redis(name) == stored.memberships[name][0] for name in pools)
        fleet.agents[REAL].stop()


def upgrade_stored_objects(former: FormerFleet) -> None:
    """Upgrade the definitions below a former operator and former agents."""
    fleet = former.fleet
    assert not NEW_FIELDS & fields(report(fleet, REAL))
    upgrade_definitions(fleet)
    for plural in ("nodecapabilities", "nodepools", "nodepoolslices", "nodepoolgenerators"):
        items = fleet.list(plural)
        for item in items:
            del item["metadata"]["resourceVersion"]  # the operator may write the object meanwhile
        objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        fleet.kubectl("replace", "--dry-run=server", "--validate=strict", "-f", "-", text=objects)
    write_as_former_agent(fleet, GONE, 1, 2)
    former.wait_processed()


def upgrade_operator(former: FormerFleet) -> None:
    """Replace the operator by one that finds what a former one left, and has the rights of the former chart."""
    fleet = former.fleet
    assert fleet.operator
    fleet.operator.stop()
    former.reduce_redis()
    let_expire(fleet, GONE)
    fleet.start_operator()
    fleet.wait_leading()
    former.wait_rewritten()
    wait_for("the record expires", lambda: fleet.get("nodecapabilities", GONE) is None, SECONDS)
    former.wait_processed()


def upgrade_agent(former: FormerFleet) -> None:
    """Replace the agent by one that reports endpoints. Its services stay."""
    fleet, before = former.fleet, pids(former.fleet)
    fleet.agents[REAL].stop()
    start_agent(fleet)
    wait_for("the new agent has checked", lambda: endpoint_reasons(fleet) == {"LoopbackOnly"}, SECONDS)
    assert report(fleet, REAL)["addresses"] == [{"ip": ADDRESS, "source": "Route"}]
    assert pids(fleet) == before
    former.wait_processed()


def test_an_agent_newer_than_the_definitions_reports_once_and_endpoints_after_their_upgrade(former: Fleet) -> None:
    fleet = former
    fleet.start_agent(REAL, SERVICES[:1], interval=1, debounce=0.2)
    wait_for("the service is reported", lambda: report(fleet, REAL).get("summary") == "1/1", SECONDS)
    stored = report(fleet, REAL)
    for _ in range(3):
        last = last_heartbeat(fleet, REAL)
        wait_for("the next heartbeat", lambda last=last: last_heartbeat(fleet, REAL) > last, SECONDS)  # type: ignore[misc]
    assert report(fleet, REAL) == stored
    assert not NEW_FIELDS & fields(stored)
    status = json.loads(fleet.agent(REAL, "status", "-o", "json"))
    assert (status["problems"], status["droppedItems"]) == ({}, [])
    upgrade_definitions(fleet)
    id_, port = SERVICES[0]["id"], SERVICES[0]["port"]
    fleet.agent(REAL, "stop", id_)
    fleet.agent(REAL, "start", id_)
    wait_for("the endpoint is stored", lambda: report(fleet, REAL)["services"][0].get("endpoint"), SECONDS)
    assert report(fleet, REAL)["services"][0]["endpoint"] == {"addresses": [], "port": port}


def test_an_operator_with_services_and_the_rights_of_the_former_chart_publishes_pools_and_names_what_is_missing(
    fleet: Fleet,
) -> None:
    revoke_new_rights(fleet)
    asr = pool("asr", types=[{"type": "asr"}])
    asr["spec"]["service"] = {"ports": [{"type": "asr", "port": 80}]}
    fleet.apply(asr)
    with SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL, addresses={"edge-1": "10.1.2.3"}) as agents:
        agents.create(["edge-1"], ["asr"])
        fleet.start_operator("operator", "--services", "--endpoints-allowed-cidrs", "10.0.0.0/8")
        wait_for("asr is published", lambda: published(fleet, "asr", {"edge-1": "Ready"}), SECONDS)
        agents.report("edge-1", asr=False)
        wait_for("asr is empty", lambda: published(fleet, "asr", {}), SECONDS)
        missing = "[-] services: this account may not list services: the chart grants it with services.enabled=true"
        wait_for("the missing right", lambda: missing in fleet.ask_operator("readyz")[1], SECONDS)
        assert fleet.ask_operator("readyz")[1].count("[-]") == 1
