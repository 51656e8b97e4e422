"""What is away comes back: Redis and the API server, when the operator starts and later (requirements D9, E1, E5, E6).

The API server is stopped for real, so these tests have a local cluster of their own whatever `kind_cluster` is.
"""

import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from tests.support.fleet_objects import BOTH, everywhere, pool

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
WELL, UNWELL = 200, 503
BLINK_SECONDS = 1.0
"""Shorter than the operator's leadership lasts without a renewal: 3.5 s, of which 1 s may be over."""
OUTAGE_SECONDS = 20.0
"""Longer than 4 H of the agents and than the election's Lease."""
INTERVAL = 3
LOOK_SECONDS = 12.0
"""How long nothing may be written after a restart; the operator's first audit comes 10 s after it leads."""
BOUND_SECONDS = 12.0
"""A dispatcher's bound on the age: longer than the leader's round, shorter than the outage."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose programs may be stopped."""
    name = own_name("outages")
    with own_cluster(name, tmp_path_factory.mktemp("outages") / "kubeconfig", KIND):
        yield Cluster(name)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that may be stopped."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    """The way of operator and agents to the API server, which may be cut for an exact time."""
    facts = cluster.facts()
    assert facts
    with Relay(facts.ports.apiserver) as made:
        yield made


@pytest.fixture
def fleet(
    cluster: Cluster, redis: RedisServer, relay: Relay, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A pool `llm`, and two agents whose services qualify for it; no operator yet."""
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
    """Return the writes to our kinds that the API server has counted in all namespaces, without agents' reports."""
    return sum(count for what, count in fleet.writes().items() if what != ("PATCH", "nodecapabilities"))


def settle(fleet: Fleet) -> None:
    fleet.wait_leading()
    wait_for("both are in", lambda: everywhere(fleet, "llm", BOTH))


def test_killed_operator_loses_no_membership_and_writes_nothing_when_nothing_changed(fleet: Fleet) -> None:
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
    time.sleep(LOOK_SECONDS)
    assert operator_writes(fleet) == writes
    assert stored() == before
    assert all(everywhere(fleet, name, BOTH) for name in ("llm", "also", "too"))
    assert operator.stop() == 0


def test_redis_away_at_the_start_and_later_kubernetes_goes_on_and_redis_catches_up(
    fleet: Fleet, redis: RedisServer
) -> None:
    redis.kill()
    operator = fleet.start_operator()
    wait_for("slices without Redis", lambda: fleet.members("llm") == BOTH)
    assert (fleet.probe("healthz"), fleet.probe("readyz")) == (WELL, UNWELL)
    redis.start()
    settle(fleet)
    redis.kill()
    fleet.agent("edge-1", "stop", "qwen")
    wait_for("slices follow", lambda: fleet.members("llm") == {"edge-2": "Ready"})
    wait_for("it says so", lambda: fleet.probe("readyz") == UNWELL)
    redis.start()
    wait_for("Redis has caught up", lambda: fleet.probe("readyz") == WELL)
    assert everywhere(fleet, "llm", {"edge-2": "Ready"})
    assert fleet.types_in_redis("edge-1") == set()
    assert operator.running
    fleet.agent("edge-1", "start", "qwen")
    wait_for("both again", lambda: everywhere(fleet, "llm", BOTH))


def test_flushed_redis_is_whole_again_by_itself(fleet: Fleet, redis: RedisServer) -> None:
    operator = fleet.start_operator()
    settle(fleet)
    redis.ask("FLUSHALL")
    redis.ask("FUNCTION", "FLUSH")
    wait_for("members again", lambda: everywhere(fleet, "llm", BOTH))
    for node in BOTH:
        wait_for("capability again", lambda node=node: fleet.types_in_redis(node) == {"llm"})  # type: ignore[misc]
    assert operator.running


def test_an_operator_that_starts_while_the_api_server_is_away_waits_and_loses_nobody(
    fleet: Fleet, cluster: Cluster
) -> None:
    first = fleet.start_operator()
    settle(fleet)
    before = fleet.list("nodepoolslices")
    assert first.stop() == 0
    cluster.process("kube-apiserver").stop()
    operator = fleet.start_operator()
    wait_for(
        "it is up and says that it is not ready",
        lambda: (fleet.probe("healthz"), fleet.probe("readyz")) == (WELL, UNWELL),
    )
    time.sleep(BLINK_SECONDS)
    assert operator.running
    assert fleet.members_in_redis("llm") == BOTH
    cluster.process("kube-apiserver").start()
    settle(fleet)
    assert operator.running
    assert fleet.list("nodepoolslices") == before


@pytest.mark.parametrize("fault", ["cut", "hold"])
def test_a_short_outage_of_the_api_server_is_waited_out(fleet: Fleet, relay: Relay, fault: str) -> None:
    operator = fleet.start_operator()
    settle(fleet)
    before = fleet.list("nodepoolslices")
    accepted = relay.accepted
    if fault == "cut":
        relay.cut()
        time.sleep(BLINK_SECONDS)
        relay.restore()
        wait_for("operator and agents are back", lambda: relay.accepted > accepted)
    else:
        relay.hold()
        time.sleep(BLINK_SECONDS)
        relay.resume()
    wait_for("ready again", lambda: fleet.probe("readyz") == WELL)
    assert operator.running
    assert fleet.list("nodepoolslices") == before
    fleet.agent("edge-1", "stop", "qwen")
    wait_for("it follows", lambda: everywhere(fleet, "llm", {"edge-2": "Ready"}))


def test_look_ups_go_on_without_an_api_server_and_say_how_old_they_are(
    fleet: Fleet, cluster: Cluster, redis: RedisServer
) -> None:
    """Static stability: nothing in Redis expires, only the age grows, and a bound on it is kept."""
    operator = fleet.start_operator()
    settle(fleet)
    with SyncLookup.from_url(redis.url, namespace=fleet.namespace) as lookup:
        assert isinstance(lookup.pick("llm", max_age=BOUND_SECONDS), Picked)
        cluster.process("kube-apiserver").stop()
        wait_for("nobody leads", lambda: not operator.running)
        assert operator.stop() == 1
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
        fleet.start_operator()
        cluster.process("kube-apiserver").start()
        cluster.wait_apiserver()
        fleet.wait_leading(60)
        settle(fleet)
        assert isinstance(lookup.pick("llm", max_age=BOUND_SECONDS), Picked)


def test_a_long_outage_ends_the_operator_and_a_restart_finds_everybody_in_place(fleet: Fleet, cluster: Cluster) -> None:
    """Without the API server nobody can be leader, so the process ends; something starts it again."""
    operator = fleet.start_operator()
    settle(fleet)
    before = fleet.list("nodepoolslices")
    cluster.process("kube-apiserver").stop()
    wait_for("it ends", lambda: not operator.running)
    assert operator.stop() == 1
    again = fleet.start_operator()
    time.sleep(OUTAGE_SECONDS)
    assert again.running
    assert fleet.members_in_redis("llm") == BOTH
    fleet.agent("edge-1", "stop", "qwen")
    cluster.process("kube-apiserver").start()
    cluster.wait_apiserver()
    fleet.wait_leading(60)
    wait_for("what happened meanwhile", lambda: everywhere(fleet, "llm", {"edge-2": "Ready"}))
    (item,) = fleet.list("nodepoolslices")
    assert item["metadata"]["uid"] == before[0]["metadata"]["uid"]
    since = {member["node"]: member["since"] for member in before[0]["members"]}
    assert [member["since"] for member in item["members"]] == [since["edge-2"]]
