"""One projection for one cluster: another cluster's is not changed, and the cluster's id must be readable (E4, E5)."""

import asyncio

import pytest
from tests.cluster.operator.test_events import wait_event
from tests.support.fleet_objects import BOTH, pool, published
from tests.support.leadership import FixedLeadership

from hotpool.projection.connection.async_connection import connect
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import OtherClusterError
from hotpool.projection.writer import RedisWriter
from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.process import wait_for


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """A pool and two agents; no operator yet."""
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    for node in BOTH:
        fleet.start_agent(node, [service("qwen", "llm")], interval=3, debounce=0.2)
    return fleet


def claim_for_another_cluster(fleet: Fleet, *, alive: bool) -> bool:
    """Claim the fleet's keys for another cluster, as if 61 s ago unless `alive`. Return False if it was refused."""

    async def claim() -> bool:
        client = connect(fleet.redis_url)
        try:
            writer, term = RedisWriter(client, FixedLeadership(), namespace=fleet.namespace), 0
            while (known := await writer.claim(term, "another")) != term:
                term = known
            if not alive:
                await client.execute_command("HINCRBY", FleetKeys("hotpool", fleet.namespace).meta, "claimMs", "-61000")
        except OtherClusterError:
            return False
        finally:
            await client.aclose()
        return True

    return asyncio.run(claim())


def not_ready(fleet: Fleet, text: str) -> bool:
    status, answer = fleet.ask_operator("readyz")
    return status == 503 and f"[-] redis: {text}" in answer


def test_the_projection_of_another_cluster_is_not_changed_until_it_is_abandoned(running: Fleet) -> None:
    assert claim_for_another_cluster(running, alive=True)
    operator = running.start_operator()
    wait_for("slices without Redis", lambda: running.members("llm") == BOTH)
    wait_for("readyz has the reason", lambda: not_ready(running, "another cluster writes to this Redis"))
    assert 'hotpool_target_up{target="redis"} 0.0' in running.ask_operator("metrics")[1]
    wait_event(running, "hotpool-operator", "RedisDown", "give one of them another --redis-prefix")
    assert running.members_in_redis("llm") == {}
    assert claim_for_another_cluster(running, alive=False)
    running.wait_leading()
    assert published(running, "llm", BOTH)
    assert not claim_for_another_cluster(running, alive=True)
    assert operator.running


def test_without_the_right_to_read_the_clusters_id_nothing_is_written_to_redis_and_readyz_shows_it(
    running: Fleet,
) -> None:
    role = f"hotpool-{running.namespace}-operator"
    running.kubectl("patch", "clusterrole", role, "--type=json", "-p", '[{"op":"remove","path":"/rules/1"}]')
    try:
        running.start_operator()
        wait_for("slices without Redis", lambda: running.members("llm") == BOTH)
        wait_for(
            "readyz names the right", lambda: not_ready(running, "no write to Redis before the cluster's id is known")
        )
        assert "namespaces/kube-system: 403 Forbidden" in running.ask_operator("readyz")[1]
        assert running.members_in_redis("llm") == {}
    finally:
        running.install()
    running.wait_leading()
    wait_for("members in both", lambda: published(running, "llm", BOTH))
