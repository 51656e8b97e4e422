"""Reads of what an address belongs to, over real HTTP: pods, ranges of Services, and the API server itself (B13)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration
from structlog.testing import capture_logs
from tests.support.agent_run import eventually

from hotpool.controllers import cluster_addresses
from hotpool.controllers.cluster_addresses import ClusterAddresses
from hotpool.controllers.pod_reader import PodReader
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.endpoints.pod_observations import NO_POD, PodAddresses, PodObservations
from hotpool.core.model import PodReference
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.endpoint_facts import EndpointFacts

CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
POD = "/api/v1/namespaces/a/pods/p"
REFERENCE = PodReference("a", "p", "u")


@dataclass
class Server:
    """Answers each path with its body, while `answers` is set; 404 for any other path."""

    bodies: dict[str, Any] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        await self.answers.wait()
        if request.path in self.refused:
            return web.json_response({"kind": "Status", "message": "not you"}, status=403)
        found = self.bodies.get(request.path)
        return web.json_response(found if found is not None else {"message": "none"}, status=404 if not found else 200)


@pytest.fixture
def server() -> Server:
    ranges = [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00:96::/108", "odd"]}}]
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "192.0.2.10:6443"}]
    found = Server(
        {
            CIDRS: {"metadata": {"resourceVersion": "1"}, "items": ranges},
            "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses},
            POD: {
                "metadata": {"name": "p", "uid": "u"},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.1.1.1"}, {"ip": "2001:DB8::1"}, {"ip": "odd"}]},
            },
        }
    )
    found.answers.set()
    return found


@pytest.fixture
async def facts(server: Server) -> AsyncIterator[EndpointFacts]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as running:
        configuration = Configuration(host=str(running.make_url("/")).rstrip("/"))
        async with ApiClient(configuration) as client:
            yield EndpointFacts(client, "https://127.0.0.1:6443/prefix")


async def test_the_node_and_the_addresses_of_a_pod_are_read(facts: EndpointFacts) -> None:
    assert await facts.pod(REFERENCE) == PodAddresses("n", ("10.1.1.1", "2001:db8::1"))
    assert await facts.pod(REFERENCE._replace(uid="other")) == NO_POD
    assert await facts.pod(REFERENCE._replace(name="q")) == NO_POD


async def test_a_refused_pod_is_an_error(server: Server, facts: EndpointFacts) -> None:
    server.refused.add(POD)
    with pytest.raises(ApiUnavailable, match="cannot get pods/p: 403"):
        await facts.pod(REFERENCE)


async def test_the_policy_has_the_ranges_and_the_addresses_that_the_cluster_states(
    server: Server, facts: EndpointFacts
) -> None:
    own = ip_network("10.200.0.0/16")
    found = await ClusterAddresses(facts, AddressPolicy(service_cidrs=(own,))).read()
    assert found.service_cidrs == (own, ip_network("10.96.0.0/12"), ip_network("fd00:96::/108"))
    assert found.api_servers == {("192.0.2.10", 6443), ("127.0.0.1", 6443)}
    assert sorted(server.requests) == ["/api", CIDRS]


@pytest.mark.parametrize("known", [(), (ip_network("10.200.0.0/16"),)])
async def test_unreadable_ranges_are_a_warning_once_unless_the_settings_have_them(
    server: Server, facts: EndpointFacts, known: Any
) -> None:
    server.refused.add(CIDRS)
    addresses = ClusterAddresses(facts, AddressPolicy(service_cidrs=known))
    with capture_logs() as logs:
        assert (await addresses.read()).service_cidrs == known
        await addresses.read()
    assert sum(line["log_level"] == "warning" for line in logs) == (0 if known else 1)


async def test_a_new_range_is_applied_and_one_that_cannot_be_read_stays(
    server: Server, facts: EndpointFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_addresses, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(cluster_addresses, "RETRY_SECONDS", 0.01)
    addresses, applied = ClusterAddresses(facts, AddressPolicy()), asyncio.Queue[AddressPolicy]()
    before = await addresses.read()
    following = asyncio.create_task(addresses.follow(applied.put))
    server.bodies["/api"] = [1]
    server.bodies[CIDRS]["items"].append({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/16"]}})
    after = await asyncio.wait_for(applied.get(), 30)
    following.cancel()
    assert after.service_cidrs == (*before.service_cidrs, ip_network("10.200.0.0/16"))
    assert after.api_servers == before.api_servers


Reads = asyncio.Queue[tuple[PodReference, PodAddresses | None]]


@asynccontextmanager
async def reading(facts: EndpointFacts, pods: PodObservations) -> AsyncIterator[tuple[PodReader, Reads]]:
    """Run a reader of pods of the namespace `a`."""
    reader, reads = PodReader(facts, pods, ["a"]), Reads()
    task = asyncio.create_task(reader.run(lambda pod, found: reads.put_nowait((pod, found))))
    try:
        yield reader, reads
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("name", ["..", "p/../../secrets", "P", ""])
async def test_a_name_that_no_pod_can_have_is_not_asked_for(server: Server, facts: EndpointFacts, name: str) -> None:
    pods = PodObservations()
    async with reading(facts, pods) as (reader, reads):
        bad = PodReference("a", name, "u")
        pods.claim("n", {}, {bad: ("10.1.1.1",), REFERENCE: ("10.1.1.1",)})
        reader.wake()
        found = dict([await asyncio.wait_for(reads.get(), 30) for _ in range(2)])
    assert found == {bad: NO_POD, REFERENCE: PodAddresses("n", ("10.1.1.1", "2001:db8::1"))}
    assert server.requests == [POD]


async def test_a_claim_during_a_read_does_not_end_it_and_leads_to_another_one(
    server: Server, facts: EndpointFacts
) -> None:
    pods, claimed = PodObservations(), {REFERENCE: ("10.1.1.1",)}
    server.answers.clear()
    async with reading(facts, pods) as (reader, reads):
        pods.claim("n", {}, claimed)
        reader.wake()
        await eventually(lambda: server.requests == [POD])
        pods.claim("m", {}, claimed)
        reader.wake()
        await eventually(lambda: not pods.unread)
        assert server.requests == [POD]
        server.answers.set()
        assert [(await asyncio.wait_for(reads.get(), 30))[0] for _ in range(2)] == [REFERENCE, REFERENCE]
    assert server.requests == [POD, POD]
