"""A real Envoy routes by DNS to a pool's headless Service while members start, stop and crash (requirement D12).

Envoy runs in a pod, with the configuration of docs/how-to/services.md, and finds members through the cluster's DNS. The
members are pods that simulated agents claim. `.ci/full`.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import pytest
import yaml
from tests.e2e.release import PATIENCE, Release, until
from tests.e2e.service_pods import SERVER, VALUES, pod
from tests.support.simulated_agents import SimulatedAgents

from hotpool.api.meta import LEASE_LABEL
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for
from localimages import images
from localkube.console import Console

pytestmark = pytest.mark.timeout(900)

PAGE: Final = REPOSITORY / "docs/how-to/services.md"
NAMESPACE, POOL, PORT, GATEWAY_PORT = "speech", "zh-en", 6007, 10000
"""As the page has them."""
MEMBERS: Final = ("edge-1", "edge-2")
"""Names of nodes, and of the pods in which their services run."""
BOUND_SECONDS: Final = 5.0
"""From a report to Envoy: 1 s until the next write of a pool, 1 s until Envoy asks DNS again; the rest is for two cores
that run a cluster."""
CRASH_SECONDS: Final = 1.0
"""Time after a crash in which Envoy may still send a request over a connection that it does not know to be broken."""
REQUESTS: Final = 100
"""Observed after each bound; with two members each would answer some of them."""
UNNOTICED: Final = 20
"""Requests between a crash and its report: an agent notices one by its next probe."""
LOAD: Final = """
import http.client, select, sys, time
host, port = sys.argv[1], int(sys.argv[2])
connection = http.client.HTTPConnection(host, port, timeout=10)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    began = time.monotonic()
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read().decode()
        answer = body if response.status == 200 else str(response.status)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        answer = type(error).__name__
    print(began, answer, flush=True)
"""
"""Program that sends one request after the other until its input ends. Prints start (monotonic seconds) and answer."""


class Request(NamedTuple):
    """A request through Envoy."""

    began: float
    """Seconds of the monotonic clock, which pods share with the test."""
    answer: str
    """Name of the pod that answered, else a status other than 200, or an exception."""


class Load:
    """Requests that a pod sends to Envoy, as they end."""

    def __init__(self, output: IO[str]) -> None:
        self.requests: list[Request] = []
        self._reader = threading.Thread(target=self._read, args=[output], name="load", daemon=True)
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            began, answer = line.split()
            self.requests.append(Request(float(began), answer))

    def finish(self) -> None:
        """Wait until the last request is read."""
        self._reader.join(PATIENCE)

    def first(self, answer: str) -> float:
        """Wait for an answer; return when the first request that got it began."""
        wait_for(f"a request is answered by {answer}", lambda: self._of(answer), PATIENCE)
        return self._of(answer)[0].began

    def answers_after(self, moment: float, number: int = REQUESTS) -> set[str]:
        """Return the answers to at least `number` requests that began after a moment."""
        wait_for("requests are answered", lambda: len(self._since(moment)) >= number, PATIENCE)
        return {request.answer for request in self._since(moment)}

    def failed(self) -> list[Request]:
        """Return the requests that no member answered."""
        return [request for request in self.requests if request.answer not in MEMBERS]

    def _of(self, answer: str) -> list[Request]:
        return [request for request in self.requests if request.answer == answer]

    def _since(self, moment: float) -> list[Request]:
        return [request for request in self.requests if request.began >= moment]


def envoy_configs() -> dict[str, str]:
    """Return the configuration of the page with each of the two forms of its cluster, as YAML."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Envoy\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    whole, other = (yaml.safe_load(block) for block in blocks)
    (cluster,) = whole["static_resources"]["clusters"]
    assert cluster["type"] == "STRICT_DNS"
    kept = {key: value for key, value in cluster.items() if key != "type" and not key.startswith("dns_")}
    resources = {**whole["static_resources"], "clusters": [{**kept, **other}]}
    return {"strict-dns": yaml.safe_dump(whole), "dns-extension": yaml.safe_dump({"static_resources": resources})}


def server(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", **pod(name, ["python3", "-c", SERVER, str(PORT)], restartPolicy="Never")}


def gateway(name: str) -> dict[str, Any]:
    """Return the pod of Envoy with the configuration of that name."""
    container = {
        "name": "envoy",
        "image": images.envoy().name,
        "imagePullPolicy": "Never",
        "args": ["-c", f"/etc/envoy/{name}.yaml"],
        "readinessProbe": {"tcpSocket": {"port": GATEWAY_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/envoy"}],
    }
    volumes = [{"name": "config", "configMap": {"name": "envoy"}}]
    return {"apiVersion": "v1", "kind": "Pod", **pod(name, [], containers=[container], volumes=volumes)}


def pool() -> dict[str, Any]:
    service = {"clusterIP": "None", "ports": [{"type": "asr", "port": PORT, "appProtocol": "http"}]}
    spec = {"requires": {"types": [{"type": "asr"}]}, "service": service}
    return {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": POOL}, "spec": spec}


def ready(release: Release, *names: str) -> None:
    release.kubectl("wait", "--for=condition=Ready", "--timeout=120s", *(f"pod/{name}" for name in names))


def address(release: Release, name: str) -> str:
    return str(release.get("pod", name)["status"]["podIP"])


@pytest.fixture(scope="module")
def release(bare: Release, load: Callable[[Path], None]) -> Iterator[Release]:
    """An operator with Services, a pool, an Envoy for each form of the configuration, and a client."""
    load(images.ensure(images.envoy(), Console()))
    bare.namespace = NAMESPACE
    bare.run(f"kubectl create namespace {NAMESPACE}")
    bare.helm("install", "--wait", "--timeout", "3m", values=VALUES)
    configs = envoy_configs()
    data = {f"{name}.yaml": text for name, text in configs.items()}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy"}, "data": data}
    client = {"apiVersion": "v1", "kind": "Pod", **pod("client", ["sleep", "infinity"])}
    bare.apply(config, client, pool(), *map(gateway, configs))
    ready(bare, "client", *configs)
    yield bare
    bare.helm("uninstall", "--wait")
    bare.run(f"kubectl delete namespace {NAMESPACE}")


@pytest.fixture
def agents(release: Release) -> Iterator[SimulatedAgents]:
    """Agents of new nodes, each with the address of a new server; no node exists yet."""
    release.kubectl("delete", "nodecapabilities", "--all")
    release.kubectl("delete", "leases", "-l", f"{LEASE_LABEL}=true")
    release.kubectl("delete", "pods", *MEMBERS, "--ignore-not-found")
    release.apply(*map(server, MEMBERS))
    ready(release, *MEMBERS)
    addresses = {name: address(release, name) for name in MEMBERS}
    until(lambda: len(release.members(POOL)), 0)
    with SimulatedAgents(release.kubeconfig, NAMESPACE, interval=5, addresses=addresses, first_port=PORT) as agents:
        yield agents


@pytest.fixture(params=["strict-dns", "dns-extension"])
def requests(request: pytest.FixtureRequest, release: Release) -> Callable[[], Any]:
    """A context in which a pod sends requests to the Envoy of one configuration."""
    return lambda: sending(release, address(release, request.param))


@contextmanager
def sending(release: Release, host: str) -> Iterator[Load]:
    words = ["client", "--", "python3", "-c", LOAD, host, str(GATEWAY_PORT)]
    with release.conversation(*words) as (stdin, stdout):
        load = Load(stdout)
        try:
            yield load
        finally:
            stdin.close()
            load.finish()


def test_a_start_and_a_stop_move_requests_within_the_bound_and_none_fails(
    agents: SimulatedAgents, requests: Callable[[], Any]
) -> None:
    agents.create(["edge-1"], ["asr"])
    with requests() as load:
        settled = load.first("edge-1")
        started = time.monotonic()
        agents.create(["edge-2"], ["asr"])
        assert load.first("edge-2") - started < BOUND_SECONDS
        stopped = time.monotonic()
        agents.report("edge-2", asr=False)
        assert load.answers_after(stopped + BOUND_SECONDS) == {"edge-1"}
    assert [request for request in load.failed() if request.began >= settled] == []


def test_a_crash_fails_at_most_the_request_under_way(
    release: Release, agents: SimulatedAgents, requests: Callable[[], Any]
) -> None:
    """Until the agent has noticed the crash and Envoy knows, retries send requests to the other member."""
    agents.create(MEMBERS, ["asr"])
    with requests() as load:
        settled = max(load.first(name) for name in MEMBERS)
        processes = release.processes("edge-2")
        crashed = time.monotonic()
        for process in processes:
            os.kill(process, signal.SIGKILL)
        assert "edge-1" in load.answers_after(crashed, UNNOTICED)
        reported = time.monotonic()
        agents.report("edge-2", asr=False)
        assert load.answers_after(reported + BOUND_SECONDS) == {"edge-1"}
    failed = [request for request in load.failed() if request.began >= settled]
    assert len(failed) <= 1
    assert all(request.began < crashed + CRASH_SECONDS for request in failed)


def test_an_empty_pool_is_answered_503_until_a_service_starts(
    agents: SimulatedAgents, requests: Callable[[], Any]
) -> None:
    agents.create(["edge-1"], ["asr"])
    with requests() as load:
        load.first("edge-1")
        stopped = time.monotonic()
        agents.report("edge-1", asr=False)
        assert load.answers_after(stopped + BOUND_SECONDS) == {"503"}
        started = time.monotonic()
        agents.create(["edge-2"], ["asr"])
        joined = load.first("edge-2")
        assert joined - started < BOUND_SECONDS
        assert load.answers_after(joined) == {"edge-2"}
