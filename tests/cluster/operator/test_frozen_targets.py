"""A frozen target delays no other: stops reach Redis and the slices as fast as before (K7.2)."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.support.fleet_objects import pool, published
from tests.support.simulated_agents import SimulatedAgents

from localfleet.fleet import Fleet
from localfleet.process import wait_for
from localfleet.relay import Relay

NODE = "edge-1"
TYPES = [f"t{number}" for number in range(6)]
"""Each type has a pool and is stopped once, so that no stop waits for the pace of its pool's slices."""
BEFORE, DURING = TYPES[:3], TYPES[3:]
NOISE_SECONDS = 1.5
"""Less than the time-out of one write to the frozen target: 2 s of Kubernetes, 2.4 s of Redis."""
MEMBER = {NODE: "Ready"}


@pytest.fixture
def relayed(kind_cluster: Any, redis_address: str) -> Iterator[tuple[Fleet, Relay]]:
    """A fleet that leads and has published all pools, and the relay of its operator to Redis."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    address = urlsplit(redis_address)
    with Relay(address.port or 6379) as relay:
        through_relay = urlunsplit(address._replace(netloc=f"127.0.0.1:{relay.port}"))
        fleet = Fleet(kubeconfig, kubectl, f"frozen-{time.time_ns() % 10**6}", through_relay)
        fleet.install()
        fleet.apply(*(pool(name, types=[{"type": name}]) for name in TYPES))
        fleet.start_operator()
        fleet.redis_url = redis_address  # the test reads around the relay
        yield fleet, relay
        fleet.close()


@contextmanager
def running_agent(fleet: Fleet) -> Iterator[SimulatedAgents]:
    """Run an agent whose services are all published."""
    with SimulatedAgents(fleet.admin, fleet.namespace, interval=15) as agents:
        agents.create([NODE], TYPES)
        fleet.wait_leading()
        wait_for("all are published", lambda: all(published(fleet, name, MEMBER) for name in TYPES))
        yield agents


def stop_seconds(agents: SimulatedAgents, types: list[str], members: Callable[[str], dict[str, str] | None]) -> float:
    """Stop services one after the other. Return the longest time from a report to the pool without the node.

    The median would hide a delay: after the first time-out the operator only probes the frozen target.
    """
    times = []
    for name in types:
        began = time.monotonic()
        agents.report(NODE, **{name: False})
        wait_for(f"{name} is empty", lambda name=name: members(name) == {})  # type: ignore[misc]
        times.append(time.monotonic() - began)
    return max(times)


def test_a_frozen_redis_delays_no_slice_and_catches_up(relayed: tuple[Fleet, Relay]) -> None:
    fleet, relay = relayed
    with running_agent(fleet) as agents:
        before = stop_seconds(agents, BEFORE, fleet.members)
        relay.hold()
        during = stop_seconds(agents, DURING, fleet.members)
        assert during < before + NOISE_SECONDS
        wait_for("readyz shows it", lambda: "[-] redis: " in fleet.ask_operator("readyz")[1])
        assert [fleet.members_in_redis(name) for name in DURING] == [MEMBER] * len(DURING)
        relay.resume()
        wait_for("Redis has caught up", lambda: all(fleet.members_in_redis(name) == {} for name in TYPES))
        wait_for("it is ready again", lambda: fleet.probe("readyz") == 200)


def test_frozen_writes_of_kubernetes_delay_no_stop_in_redis_and_catch_up(relayed: tuple[Fleet, Relay]) -> None:
    """Watches, reads and the election Lease go on, as with an admission webhook that does not respond."""
    fleet, _ = relayed
    with running_agent(fleet) as agents:
        before = stop_seconds(agents, BEFORE, fleet.members_in_redis)
        with frozen_writes(fleet):
            during = stop_seconds(agents, DURING, fleet.members_in_redis)
            assert during < before + NOISE_SECONDS
            wait_for("readyz shows it", lambda: "[-] kubernetes: " in fleet.ask_operator("readyz")[1])
            assert [fleet.members(name) for name in DURING] == [MEMBER] * len(DURING)
        wait_for("slices have caught up", lambda: all(published(fleet, name, {}) for name in TYPES))
        wait_for("it is ready again", lambda: fleet.probe("readyz") == 200)


@contextmanager
def frozen_writes(
    fleet: Fleet, group: str = "hotpool.dev", probe: str = f"nodepoolslices/{DURING[0]}-0"
) -> Iterator[None]:
    """Let the operator's writes to objects of a group hang in an admission webhook that accepts connections only.

    `probe`: resource and name of an object by which the test finds out that they do.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"{fleet.namespace}.hotpool.dev"
        account = f"system:serviceaccount:{fleet.namespace}:hotpool-operator"
        webhook = {
            "name": name,
            "clientConfig": {"url": f"https://127.0.0.1:{silent.getsockname()[1]}/"},
            "matchConditions": [{"name": "operator", "expression": f"request.userInfo.username == '{account}'"}],
            "rules": [{"apiGroups": [group], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}],
            "timeoutSeconds": 30,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        fleet.apply({**kind, "metadata": {"name": name}, "webhooks": [webhook]})
        try:
            wait_for("the webhook is active", lambda: hangs(fleet, probe))
            yield
        finally:
            fleet.kubectl("delete", "validatingwebhookconfiguration", name)


def hangs(fleet: Fleet, probe: str) -> bool:
    """Return True if a write of the operator's account hangs. It changes nothing."""
    account = f"system:serviceaccount:{fleet.namespace}:hotpool-operator"
    words = ("delete", probe, "--dry-run=server", "--as", account, "--request-timeout=1s")
    try:
        fleet.kubectl(*words)
    except RuntimeError as error:
        return "Timeout" in str(error) or "deadline" in str(error)
    return False
