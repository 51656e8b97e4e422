"""The end of a drain by the whole path: reservation, Redis, operator, condition, command and agent (B10, C5)."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_kind.cluster import KindCluster
from tests.support.fleet_objects import pool, published

from hotpool.lookup import Picked, Reservation, SyncLookup
from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.process import wait_for
from localfleet.redis_server import RedisServer

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
ONE = {"edge-1": "Ready"}


@pytest.fixture
def fleet(kind_cluster: KindCluster, server: RedisServer) -> Iterator[Fleet]:
    """One node in a pool, with a Redis of its own."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    fleet = Fleet(kubeconfig, kubectl, f"fleet-{uuid.uuid4().hex[:6]}", server.url)
    fleet.install()
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    fleet.start_operator()
    fleet.start_agent("edge-1", [service("qwen", "llm")], interval=1, debounce=0.2, drainTimeoutSeconds=60)
    fleet.wait_leading()
    wait_for("the node is in", lambda: published(fleet, "llm", ONE), 60)
    yield fleet
    fleet.agents["edge-1"].kill()  # an orderly end would wait for the drain
    fleet.close()


def command(fleet: Fleet, *words: str) -> "subprocess.Popen[str]":
    """Start `hotpool` as the administrator."""
    words = (*words, "-n", fleet.namespace, "--kubeconfig", str(fleet.admin))
    return subprocess.Popen(
        [PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def drained(fleet: Fleet) -> tuple[str, str]:
    """Return status and reason of condition Drained."""
    status = (fleet.get("nodecapabilities", "edge-1") or {}).get("status", {})
    found: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Drained"), {})
    return found.get("status", ""), found.get("reason", "")


def reserve(lookup: SyncLookup) -> Reservation:
    """Reserve for a short time: a ledger that is younger than the longest reservation proves nothing."""
    picked = lookup.pick("llm", reserve=8)
    assert isinstance(picked, Picked)
    assert picked.reservation
    return picked.reservation


def test_the_wait_for_a_drain_ends_with_the_last_reservation_and_so_does_the_stop_of_the_agent(
    fleet: Fleet, server: RedisServer
) -> None:
    with SyncLookup.from_url(server.url, namespace=fleet.namespace) as lookup:
        reservation = reserve(lookup)
        waiting = command(fleet, "drain", "edge-1", "--wait", "--timeout", "60")
        wait_for("the reservation is counted", lambda: drained(fleet) == ("False", "InUse"), 30)
        assert waiting.poll() is None
        lookup.release(reservation)
        output, progress = waiting.communicate(timeout=60)
        assert (waiting.returncode, output) == (0, "edge-1: draining\nedge-1: drained\n")
        assert "1 in use, the last reservation expires at 20" in progress
        fleet.kubectl("wait", "nodecapability/edge-1", "--for=condition=Drained", "--timeout=10s")
        assert command(fleet, "undrain", "edge-1").wait(30) == 0
        wait_for("the node is in again", lambda: published(fleet, "llm", ONE))

        reservation = reserve(lookup)
        os.kill(fleet.agents["edge-1"].pid, signal.SIGTERM)
        wait_for("the agent drains", lambda: drained(fleet) == ("False", "InUse"), 30)
        assert fleet.members("llm") == {"edge-1": "Draining"}
        lookup.release(reservation)
        wait_for("the node has left", lambda: published(fleet, "llm", {}), 30)


def test_a_flush_in_the_middle_of_a_drain_leaves_its_end_unknown(fleet: Fleet, server: RedisServer) -> None:
    with SyncLookup.from_url(server.url, namespace=fleet.namespace) as lookup:
        reserve(lookup)
        assert command(fleet, "drain", "edge-1").wait(30) == 0
        wait_for("the reservation is counted", lambda: drained(fleet) == ("False", "InUse"), 30)
        server.ask("FLUSHALL")
        wait_for("the loss is seen", lambda: drained(fleet) == ("Unknown", "LedgerTooYoung"), 30)
        waiting = command(fleet, "drain", "edge-1", "--wait", "--timeout", "1")
        _, error = waiting.communicate(timeout=30)
        assert waiting.returncode == 1
        assert "edge-1: not drained in 1 s: LedgerTooYoung: " in error
        server.stop()
        wait_for("Redis is away", lambda: drained(fleet) == ("Unknown", "RedisDown"), 30)
