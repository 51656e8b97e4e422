"""A client pod reaches the members of a pool by its Service: cluster IP, kube-proxy and DNS (requirement D12).

The members are pods that two simulated agents claim, so that each can stop, fall silent and drain by itself.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from tests.e2e.release import Release, until
from tests.e2e.service_pods import PORT, SERVER, VALUES, pod
from tests.support.simulated_agents import SimulatedAgents

NAMESPACE: Final = "services"
ASK: Final = """
import collections, json, sys, urllib.request
host, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
found = collections.Counter()
for _ in range(number):
    try:
        found[urllib.request.urlopen(f"http://{host}:{port}/", timeout=2).read().decode()] += 1
    except OSError as error:
        found["error"] += 1
print(json.dumps(found))
"""
RESOLVE: Final = """
import json, socket, sys
try:
    print(json.dumps(sorted({item[4][0] for item in socket.getaddrinfo(sys.argv[1], None)})))
except OSError:
    print("[]")
"""
KEEP: Final = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
for line in sys.stdin:
    connection.request("GET", "/")
    print(connection.getresponse().read().decode(), flush=True)
"""
REQUESTS: Final = 20
"""Enough that each of two members answers at least one, but for a chance of 1 in 500,000."""


def deployment(name: str, command: list[str], replicas: int) -> dict[str, Any]:
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod(name, command)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pool(name: str = "speech", **service: Any) -> dict[str, Any]:
    spec = {"requires": {"types": [{"type": "asr"}]}, "service": {"ports": [{"type": "asr", "port": 80}], **service}}
    return {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def release(bare: Release) -> Iterator[Release]:
    """An operator with Services, three servers, and a client."""
    bare.namespace = NAMESPACE
    bare.run(f"kubectl create namespace {NAMESPACE}")
    bare.helm("install", "--wait", "--timeout", "3m", values=VALUES)
    servers = deployment("server", ["python3", "-c", SERVER, str(PORT)], 3)
    bare.apply(servers, deployment("client", ["sleep", "infinity"], 1), pool())
    for name in ("server", "client"):
        bare.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
    yield bare
    bare.helm("uninstall", "--wait")
    bare.run(f"kubectl delete namespace {NAMESPACE}")


@pytest.fixture
def agents(release: Release) -> Iterator[SimulatedAgents]:
    """Agents of edge-1 and edge-2, each with the address of one server, as members of the pool."""
    for name in ("edge-1", "edge-2", "edge-3"):
        release.kubectl("delete", "nodecapability", name, "--ignore-not-found")
        release.kubectl("delete", "lease", f"hotpool-node-{name}", "--ignore-not-found")
    addresses = dict(zip(("edge-1", "edge-2", "edge-3"), servers(release), strict=True))
    with SimulatedAgents(release.kubeconfig, NAMESPACE, interval=5, addresses=addresses) as agents:
        agents.create(["edge-1", "edge-2"], ["asr"])
        until(lambda: release.members("speech"), {"edge-1": "Ready", "edge-2": "Ready"})
        until(lambda: answering(release), names(release, 2))
        yield agents


def servers(release: Release) -> list[str]:
    """Return the addresses of the server pods, ordered by the pods' names."""
    pods = sorted(release.get("pods", "-l", "app=server")["items"], key=lambda pod: str(pod["metadata"]["name"]))
    return [str(pod["status"]["podIP"]) for pod in pods]


def names(release: Release, number: int) -> set[str]:
    """Return the names of the first server pods."""
    return set(sorted(pod["metadata"]["name"] for pod in release.get("pods", "-l", "app=server")["items"])[:number])


def client(release: Release, program: str, *words: str) -> Any:
    """Run a program in the client's pod; return its output as JSON."""
    return json.loads(release.kubectl("exec", "deploy/client", "--", "python3", "-c", program, *words))


def cluster_ip(release: Release, service: str = "speech") -> str:
    return str(release.get("service", service)["spec"]["clusterIP"])


def answering(release: Release, host: str | None = None) -> set[str]:
    """Return the servers that answer new connections, and `error` if one fails."""
    return set(client(release, ASK, host or cluster_ip(release), "80", str(REQUESTS)))


@pytest.mark.usefixtures("agents")
def test_members_are_reached_by_cluster_ip_and_by_name(release: Release) -> None:
    both = names(release, 2)
    assert answering(release) == both
    assert answering(release, f"speech.{NAMESPACE}.svc.cluster.local") == both
    assert client(release, RESOLVE, f"speech.{NAMESPACE}.svc.cluster.local") == [cluster_ip(release)]


def test_a_stop_and_a_start_move_new_connections(release: Release, agents: SimulatedAgents) -> None:
    first, second = sorted(names(release, 2))
    agents.report("edge-1", asr=False)
    until(lambda: answering(release), {second})
    agents.report("edge-1", asr=True)
    until(lambda: answering(release), {first, second})
    agents.create(["edge-3"], ["asr"])
    until(lambda: answering(release), names(release, 3))


def test_suspect_members_are_used_only_when_no_ready_one_is_left(release: Release, agents: SimulatedAgents) -> None:
    """Two of three are silent, so that the brake keeps them in the pool."""
    first, second, third = sorted(names(release, 3))
    agents.create(["edge-3"], ["asr"])
    until(lambda: answering(release), {first, second, third})
    agents.silence(["edge-1", "edge-2"])
    until(lambda: answering(release), {third})
    until(lambda: release.members("speech"), {"edge-1": "Suspect", "edge-2": "Suspect", "edge-3": "Ready"})
    agents.report("edge-3", asr=False)
    until(lambda: answering(release), {first, second})
    until(lambda: release.members("speech"), {"edge-1": "Suspect", "edge-2": "Suspect"})


def test_a_draining_member_gets_no_new_connection_and_keeps_its_open_ones(
    release: Release, agents: SimulatedAgents
) -> None:
    first, second = sorted(names(release, 2))
    agents.report("edge-2", asr=False)
    until(lambda: answering(release), {first})
    with open_connection(release) as request:
        assert request() == first
        agents.report("edge-2", asr=True)
        release.kubectl("patch", "nodecapability", "edge-1", "--type=merge", "-p", '{"spec":{"drain":true}}')
        until(lambda: answering(release), {second})
        assert request() == first


@contextmanager
def open_connection(release: Release) -> Iterator[Any]:
    """Keep one connection open in the client's pod; yield a function that sends a request over it."""
    command = ["python3", "-c", KEEP, cluster_ip(release), "80"]
    with release.conversation("deploy/client", "--", *command) as (stdin, stdout):

        def request() -> str:
            stdin.write("\n")
            stdin.flush()
            return stdout.readline().strip()

        yield request


def test_a_headless_service_answers_with_the_addresses_of_its_members(
    release: Release, agents: SimulatedAgents
) -> None:
    release.apply(pool("headless", clusterIP="None"))
    name = f"headless.{NAMESPACE}.svc.cluster.local"
    expected = sorted(servers(release)[:2])
    until(lambda: client(release, RESOLVE, name), expected)
    until(lambda: client(release, RESOLVE, f"edge-1.{name}"), [servers(release)[0]])
    assert set(client(release, ASK, name, str(PORT), str(REQUESTS))) <= names(release, 2)
    agents.report("edge-1", asr=False)
    until(lambda: client(release, RESOLVE, name), [servers(release)[1]])
    release.kubectl("delete", "nodepool", "headless")
    until(lambda: client(release, RESOLVE, name), [])
