"""Fixtures of the cluster tier: pytest-kind's `kind_cluster`, unchanged, and a fleet on it with a real Redis."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.support.agent_world.world import QUICK, AgentWorld
from tests.support.not_run import not_run
from tests.support.run import CLUSTERS, share_cluster

from hotpool.lookup import Lookup
from hotpool.projection.connection.async_connection import Client, connect
from localfleet.fleet import Fleet
from localfleet.kind import kind_program, kubectl_program
from localfleet.redis_server import RedisServer, redis_url
from localfleet.relay import Relay


def pytest_configure(config: pytest.Config) -> None:
    """Configure pytest-kind: its programs, so that it downloads none, and in a worker the cluster of the run."""
    option = config.option
    kind = kind_program(option.kind_bin)
    option.kind_bin = str(kind)
    option.kind_kubectl_bin = option.kind_kubectl_bin or str(kubectl_program(kind))
    share_cluster(config, "cluster")
    if shared := config.stash.get(CLUSTERS, {}).get("cluster"):
        option.cluster_name, option.kubeconfig, option.keep_cluster = shared["name"], shared["kubeconfig"], True
    elif option.cluster_name == "pytest-kind" and not option.keep_cluster:
        option.cluster_name = f"pytest-kind-{uuid.uuid4().hex[:6]}"  # two runs without workers can go on side by side


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """The address in $HOTPOOL_TEST_REDIS_URL, else that of a new server."""
    with redis_url() as url:
        yield url


@pytest.fixture
def fleet(kind_cluster: Any, redis_address: str) -> Iterator[Fleet]:
    """An empty fleet in a namespace of its own; no program runs yet."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    fleet = Fleet(kubeconfig, kubectl, f"fleet-{uuid.uuid4().hex[:6]}", redis_address)
    fleet.install()
    yield fleet
    fleet.close()


@pytest.fixture
def agent_world(
    kind_cluster: Any, redis_address: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[[int], AgentWorld]]:
    """A function that creates the world of a seed: one agent that reaches the API server through a relay."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    address = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    namespace = f"fleet-{uuid.uuid4().hex[:6]}"
    for name, value in {**QUICK, "HOTPOOL_AGENT_POD_NAMESPACES": namespace}.items():
        monkeypatch.setenv(name, value)
    with Relay(address.port or 443) as relay, ExitStack() as stack:
        fleet = Fleet(kubeconfig, kubectl, namespace, redis_address, server=f"https://127.0.0.1:{relay.port}")
        stack.callback(fleet.close)
        fleet.install()

        def world(seed: int) -> AgentWorld:
            created = AgentWorld(fleet, relay, seed)
            stack.callback(created.close)
            for reason in created.missing:
                not_run(request, reason)
            return created

        yield world


@pytest.fixture(scope="module")
def module_server() -> Iterator[RedisServer]:
    """A Redis server of one module."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def server(module_server: RedisServer) -> RedisServer:
    """A running, empty Redis server, which a test may flush, stop and damage."""
    module_server.start()
    module_server.ask("FLUSHALL")
    module_server.ask("FUNCTION", "FLUSH")
    return module_server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Client]:
    """A client of that server."""
    connected = connect(server.url)
    yield connected
    await connected.aclose()


@pytest.fixture
async def lookup(server: RedisServer) -> AsyncIterator[Lookup]:
    """A look-up client of the fleet `speech` on that server."""
    async with Lookup.from_url(server.url, namespace="speech") as lookup:
        yield lookup
