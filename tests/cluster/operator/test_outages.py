"""Outages of Redis and of the API server, at the operator's start and later (requirements D9, E1, E5, E6).

The API server is stopped for real, so these tests have a local cluster of their own whatever `kind_cluster` is.
"""

import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from tests.support.fleet_objects import BOTH, pool, published

from hotpool.lookup import Picked, Reason, SyncLookup
from localfleet.catalogue import service
from localfleet.clusters import cluster as own_cluster
from localfleet.clusters import own_name
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY, kubectl_program
from localfleet.process import wait_for
from localfleet.redis_server import RedisServer
from localfleet.relay import Relay
from localkube.cluster import Cluster

KIND = REPOSITORY / "tools" / "kind"
READY, NOT_READY = 200, 503
SHORT_OUTAGE_SECONDS = 1.0
"""Shorter than the operator's leadership lasts without a renewal: 3.5 s, of which 1 s may be over."""
OUTAGE_SECONDS = 20.0
"""Longer than 4 H of the agents and than the election's Lease."""
INTERVAL = 3
QUIET_SECONDS = 12.0
"""Seconds after a restart in which the operator must not write; its first resync comes 10 s after it leads."""
BOUND_SECONDS = 12.0
"""A dispatcher's limit of the age: longer than the leader's round, shorter than the outage."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose programs tests may stop."""
    name = own_name("outages")
    with own_cluster(name, tmp_path_factory.mktemp("outages") / "kubeconfig", KIND):
        yield Cluster(name)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that tests may stop."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    """The relay of operator and agents to the API server, which can be cut for an exact time."""
    facts = cluster.facts()
    assert facts
    with Relay(facts.ports.apiserver) as made:
        yield made


@pytest.fixture
def fleet(
    cluster: Cluster, redis: RedisServer, relay: Relay, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A pool `llm`, and two agents whose services match it; no operator yet."""
    kubeconfig = tmp_path_factory.getbasetemp() / f"{cluster.name}.kubeconfig"
    kubeconfig.write_text(
        subprocess.run(
            [KIND, "get", "kubeconfig", "--name", cluster.name], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    )
    made = Fleet(
        kubeconfig,
        kubectl_program(KIND),
        f"fleet-{uuid.uuid4().hex[:6]}",
        redis.url,
        server=f"https://127.0.0.1:{relay.port}",
    )
    made.install()
    made.apply(pool("llm", types=[{"type": "llm"}]))
    for node in BOTH:
        made.start_agent(node, [service("qwen", "llm")], interval=INTERVAL, debounce=0.2)
    yield made
    made.close()
    cluster.process("kube-apiserver").start()
    cluster.wait_ready()


def operator_writes(fleet: Fleet) -> float:
    """Return the number of writes to hotpool's kinds in all namespaces, without agents' reports."""
    return sum(count for key, count in fleet.writes().items() if key != ("PATCH", "nodecapabilities"))


def stands_by(fleet: Fleet) -> bool:
    """Return True if the operator does not lead, and sees no other leader."""
    return "[-] leading" in fleet.ask_operator("readyz")[1]


def settle(fleet: Fleet) -> None:
    fleet.wait_leading()
    wait_for("both are in", lambda: published(fleet, "llm", BOTH))


def test_a_restart_after_a_kill_loses_no_member_and_writes_nothing(fleet: Fleet) -> None:
    def stored() -> list[dict[str, Any]]:
        objects = [fleet.list(plural) for plural in ("nodepools", "nodepoolslices", "nodecapabilities")]
        return [item for group in objects for item in group]

    def settled() -> bool:
        return all(item.get("status", {}).get("members") == len(BOTH) for item in fleet.list("nodepools"))

    fleet.apply(*(pool(name, types=[{"type": "llm"}]) for name in ("also", "too")))
    operator = fleet.start_operator()
    settle(fleet)
    wait_for("statuses settled", settled)
    operator.kill()
    before, writes = stored(), operator_writes(fleet)
    operator = fleet.start_operator()
    fleet.wait_leading()
    time.sleep(QUIET_SECONDS)
    assert operator_writes(fleet) == writes
    assert stored() == before
    assert all(published(fleet, name, BOTH) for name in ("llm", "also", "too"))
    assert operator.stop() == 0


def test_an_outage_of_redis_at_the_start_or_later_does_not_affect_kubernetes_and_redis_catches_up(
    fleet: Fleet, redis: RedisServer
) -> None:
    redis.kill()
    operator = fleet.start_operator()
    wait_for("slices without Redis", lambda: fleet.members("llm") == BOTH)
    assert (fleet.probe("healthz"), fleet.probe("readyz")) == (READY, NOT_READY)
    redis.start()
    settle(fleet)
    redis.kill()
    fleet.agent("edge-1", "stop", "qwen")
    wait_for("slices follow", lambda: fleet.members("llm") == {"edge-2": "Ready"})
    wait_for("readyz shows it", lambda: fleet.probe("readyz") == NOT_READY)
    redis.start()
    wait_for("Redis has caught up", lambda: fleet.probe("readyz") == READY)
    assert published(fleet, "llm", {"edge-2": "Ready"})
    assert fleet.types_in_redis("edge-1") == set()
    assert operator.running
    fleet.agent("edge-1", "start", "qwen")
    wait_for("both again", lambda: published(fleet, "llm", BOTH))


def test_a_flushed_redis_is_rebuilt(fleet: Fleet, redis: RedisServer) -> None:
    operator = fleet.start_operator()
    settle(fleet)
    redis.ask("FLUSHALL")
    redis.ask("FUNCTION", "FLUSH")
    wait_for("members again", lambda: published(fleet, "llm", BOTH))
    for node in BOTH:
        wait_for("capability again", lambda node=node: fleet.types_in_redis(node) == {"llm"})  # type: ignore[misc]
    assert operator.running


def test_an_operator_started_during_an_outage_of_the_api_server_waits_and_loses_no_member(
    fleet: Fleet, cluster: Cluster
) -> None:
    first = fleet.start_operator()
    settle(fleet)
    before = fleet.list("nodepoolslices")
    assert first.stop() == 0
    cluster.process("kube-apiserver").stop()
    operator = fleet.start_operator()
    wait_for(
        "it is up and not ready",
        lambda: (fleet.probe("healthz"), fleet.probe("readyz")) == (READY, NOT_READY),
    )
    time.sleep(SHORT_OUTAGE_SECONDS)
    assert operator.running
    assert fleet.members_in_redis("llm") == BOTH
    cluster.process("kube-apiserver").start()
    settle(fleet)
    assert operator.running
    assert fleet.list("nodepoolslices") == before


@pytest.mark.parametrize("fault", ["cut", "hold"])
def test_an_operator_survives_a_short_outage_of_the_api_server(fleet: Fleet, relay: Relay, fault: str) -> None:
    operator = fleet.start_operator()
    settle(fleet)
    before = fleet.list("nodepoolslices")
    accepted = relay.accepted
    if fault == "cut":
        relay.cut()
        time.sleep(SHORT_OUTAGE_SECONDS)
        relay.restore()
        wait_for("operator and agents are back", lambda: relay.accepted > accepted)
    else:
        relay.hold()
        time.sleep(SHORT_OUTAGE_SECONDS)
        relay.resume()
    wait_for("ready again", lambda: fleet.probe("readyz") == READY)
    assert operator.running
    assert fleet.list("nodepoolslices") == before
    fleet.agent("edge-1", "stop", "qwen")
    wait_for("it follows", lambda: published(fleet, "llm", {"edge-2": "Ready"}))


def test_look_ups_work_without_an_api_server_and_return_their_age(
    fleet: Fleet, cluster: Cluster, redis: RedisServer
) -> None:
    """Static stability: nothing in Redis expires, only the age grows, and its limit is enforced."""
    operator = fleet.start_operator()
    settle(fleet)
    with SyncLookup.from_url(redis.url, namespace=fleet.namespace) as lookup:
        assert isinstance(lookup.pick("llm", max_age=BOUND_SECONDS), Picked)
        cluster.process("kube-apiserver").stop()
        wait_for("the operator stands by", lambda: stands_by(fleet))
        begun, first = time.monotonic(), lookup.pick("llm")
        assert first.age_seconds is not None
        last = first.age_seconds
        while last <= OUTAGE_SECONDS:
            bounded, free = lookup.pick("llm", max_age=BOUND_SECONDS), lookup.pick("llm")
            assert isinstance(free, Picked)
            assert free.node in BOTH
            assert free.complete
            assert free.age_seconds is not None
            assert bounded.age_seconds is not None
            assert last <= bounded.age_seconds <= free.age_seconds
            assert isinstance(bounded, Picked) == (bounded.age_seconds <= BOUND_SECONDS)
            assert isinstance(bounded, Picked) or bounded.reason is Reason.STALE
            last = free.age_seconds
            time.sleep(0.02)
        assert last - first.age_seconds <= time.monotonic() - begun + 0.1
        with Redis.from_url(redis.url) as plain:
            assert {plain.ttl(key) for key in plain.scan_iter()} == {-1}
        cluster.process("kube-apiserver").start()
        cluster.wait_apiserver()
        settle(fleet)
        assert operator.running
        assert isinstance(lookup.pick("llm", max_age=BOUND_SECONDS), Picked)


def test_an_operator_stands_by_during_a_long_outage_and_leads_again_with_all_members(
    fleet: Fleet, cluster: Cluster
) -> None:
    """Without the API server no process can lead."""
    operator = fleet.start_operator()
    settle(fleet)
    before = fleet.list("nodepoolslices")
    cluster.process("kube-apiserver").stop()
    wait_for("it stands by", lambda: stands_by(fleet))
    time.sleep(OUTAGE_SECONDS)
    assert operator.running
    assert fleet.members_in_redis("llm") == BOTH
    fleet.agent("edge-1", "stop", "qwen")
    cluster.process("kube-apiserver").start()
    cluster.wait_apiserver()
    fleet.wait_leading()
    wait_for("the change during the outage", lambda: published(fleet, "llm", {"edge-2": "Ready"}))
    (item,) = fleet.list("nodepoolslices")
    assert item["metadata"]["uid"] == before[0]["metadata"]["uid"]
    since = {member["node"]: member["since"] for member in before[0]["members"]}
    assert [member["since"] for member in item["members"]] == [since["edge-2"]]
