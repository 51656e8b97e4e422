"""A real API server that is stopped for 3 s, ten times (requirements C3, D9). `.ci/full` and `make soak`.

The API server is stopped for real, so the test has a local cluster of its own whatever `kind_cluster` is.
"""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.fleet_objects import BOTH, pool, published
from tests.support.simulated_agents import SimulatedAgents

from localfleet.clusters import cluster as own_cluster
from localfleet.clusters import own_name
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY, kubectl_program
from localfleet.process import ManagedProcess, wait_for
from localkube.cluster import Cluster

KIND = REPOSITORY / "tools" / "kind"
STALL_SECONDS = 3.0
GAP_SECONDS = 1.0
"""Time after the API server answers again within which writes follow, beside the time of an ordinary change."""
INTERVAL = 3
SETTLE_SECONDS = 2.0
"""Time between two stalls: leadership is renewed, and the next change is its pool's first one in a second."""
TURNS = 10
"""In the first half a change is under way when the API server stops; in the rest it is reported afterwards."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose programs the test may stop, and its kubeconfig."""
    name = own_name("stalls")
    kubeconfig = tmp_path_factory.mktemp("stalls") / "kubeconfig"
    with own_cluster(name, kubeconfig, KIND):
        yield Cluster(name), kubeconfig


@pytest.fixture
def own_fleet(cluster: tuple[Cluster, Path], redis_address: str) -> Iterator[Fleet]:
    """An empty fleet on that cluster."""
    fleet = Fleet(cluster[1], kubectl_program(KIND), f"fleet-{uuid.uuid4().hex[:6]}", redis_address)
    fleet.install()
    yield fleet
    fleet.close()


@contextmanager
def stopped(pid: int, seconds: float) -> Iterator[None]:
    """Suspend a process, run the block, and resume the process after `seconds` in all."""
    until = time.monotonic() + seconds
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(max(0.0, until - time.monotonic()))
    finally:
        os.kill(pid, signal.SIGCONT)


def follow_seconds(fleet: Fleet, *, ready: bool) -> float:
    """Return the seconds until slices and Redis have the reported state of the service `asr` of edge-1."""
    began = time.monotonic()
    wait_for("asr follows", lambda: published(fleet, "asr", {"edge-1": "Ready"} if ready else {}))
    return time.monotonic() - began


def silent_watches(fleet: Fleet) -> list[str]:
    """Return the watches without a proof of life, as lines of the operator's metrics."""
    lines = [line for line in fleet.ask_operator("metrics")[1].splitlines() if line.startswith("hotpool_watch_up{")]
    assert lines
    return [line for line in lines if not line.endswith(" 1.0")]


@pytest.mark.timeout(600)
def test_ten_stalls_of_the_api_server_change_no_member_and_writes_follow_within_a_second(
    cluster: tuple[Cluster, Path], own_fleet: Fleet
) -> None:
    fleet = own_fleet
    pid = cluster[0].process("kube-apiserver").pid
    assert pid
    with SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL) as agents:
        operator = start(fleet, agents)
        (before,) = slices(fleet, "llm")
        ordinary = 0.0
        for ready in (False, True):
            time.sleep(SETTLE_SECONDS)
            agents.report("edge-1", asr=ready)
            ordinary = max(ordinary, follow_seconds(fleet, ready=ready))
        for turn in range(TURNS):
            time.sleep(SETTLE_SECONDS)
            ready = not ready
            if turn < TURNS / 2:  # the change or its writes are under way
                agents.report("edge-1", asr=ready)
            with stopped(pid, STALL_SECONDS):
                assert operator.running
            if turn >= TURNS / 2:
                agents.report("edge-1", asr=ready)
            assert follow_seconds(fleet, ready=ready) <= ordinary + GAP_SECONDS
            assert silent_watches(fleet) == []
            assert slices(fleet, "llm") == [before]
        wait_for("it is ready", lambda: fleet.probe("readyz") == 200)
        assert published(fleet, "llm", BOTH)
        assert operator.running


def start(fleet: Fleet, agents: SimulatedAgents) -> ManagedProcess:
    """Start the operator, with two nodes in pool `llm`, and edge-1 in pool `asr`."""
    fleet.apply(pool("llm", types=[{"type": "llm"}]), pool("asr", types=[{"type": "asr"}]))
    agents.create(BOTH, ["llm"])
    agents.report("edge-1", asr=True)
    operator = fleet.start_operator()
    fleet.wait_leading()
    wait_for("both are in", lambda: published(fleet, "llm", BOTH) and published(fleet, "asr", {"edge-1": "Ready"}))
    return operator


def slices(fleet: Fleet, name: str) -> list[dict[str, object]]:
    """Return the stored slices of a pool, with their versions."""
    return [item for item in fleet.list("nodepoolslices") if item["metadata"]["labels"]["hotpool.dev/pool"] == name]
