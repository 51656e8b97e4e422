"""The worker node of `tools/kind` for real: pods, services, names, identities."""

import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from pytest_kind import KindCluster

from localkube.cluster import ALL_PROGRAMS
from localkube.tests.support.kind import KIND
from localkube.tests.support.pods import pod

WAITS = 60


@pytest.fixture(scope="module")
def namespace(kind_cluster: KindCluster, archive: Path) -> Iterator[str]:
    """A namespace with the strictest security, a server in it, and its service."""
    subprocess.run([KIND, "load", "image-archive", archive, "--name", kind_cluster.name], check=True)
    kind_cluster.kubectl("create", "namespace", "worker")
    kind_cluster.kubectl("label", "namespace", "worker", "pod-security.kubernetes.io/enforce=restricted")
    server = pod("web", "proxy", "--port=8001", "--address=0.0.0.0", "--accept-hosts=^.*$")
    server["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/version", "port": 8001}}
    ports = [{"port": 80, "targetPort": 8001}]
    service = {"kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
    _create(kind_cluster, server, {"apiVersion": "v1", **service})
    kind_cluster.kubectl("-n", "worker", "wait", "--for=condition=Ready", "pod/web", f"--timeout={WAITS}s")
    yield "worker"
    kind_cluster.kubectl("delete", "namespace", "worker")


def test_the_node_is_listed_ready_and_labelled(kind_cluster: KindCluster) -> None:
    listed = subprocess.check_output([kind_cluster.kind_path, "get", "nodes", "--name", kind_cluster.name], text=True)
    node = json.loads(kind_cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [item["metadata"]["name"] for item in node] == listed.split()
    assert node[0]["metadata"]["labels"]["purpose"] == "test"


def test_a_pod_speaks_to_another_by_the_name_of_its_service(kind_cluster: KindCluster, namespace: str) -> None:
    answer = _run(
        kind_cluster, namespace, "client", "--server=http://web.worker.svc.cluster.local", "get", "--raw=/version"
    )
    assert "gitVersion" in answer


def test_a_pod_is_known_to_the_api_server_by_its_token_with_its_node(kind_cluster: KindCluster, namespace: str) -> None:
    user = json.loads(_run(kind_cluster, namespace, "who", "auth", "whoami", "-o", "json"))["status"]["userInfo"]
    node = json.loads(kind_cluster.kubectl("get", "nodes", "-o", "json"))["items"][0]["metadata"]
    assert user["username"] == "system:serviceaccount:worker:default"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == [node["name"]]
    assert user["extra"]["authentication.kubernetes.io/node-uid"] == [node["uid"]]


def test_logs_exec_and_port_forward_work(kind_cluster: KindCluster, namespace: str) -> None:
    assert "Starting to serve" in kind_cluster.kubectl("-n", namespace, "logs", "web")
    assert "Client Version" in kind_cluster.kubectl("-n", namespace, "exec", "web", "--", "/kubectl", "version")
    with _forwarded(kind_cluster, namespace, "pod/web") as port:
        assert "gitVersion" in _get("127.0.0.1", port)


def test_the_host_reaches_pods_and_services(kind_cluster: KindCluster, namespace: str) -> None:
    address = kind_cluster.kubectl("-n", namespace, "get", "pod", "web", "-o", "jsonpath={.status.podIP}")
    service = kind_cluster.kubectl("-n", namespace, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    assert "gitVersion" in _get(address, 8001)
    assert "gitVersion" in _get(service, 80)


def test_who_has_no_rights_gets_nothing_from_the_kubelet(kind_cluster: KindCluster, namespace: str) -> None:
    account = kind_cluster.kubectl("-n", namespace, "create", "token", "default").strip()
    address = kind_cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}")
    for token, status in (("nonsense", HTTPStatus.UNAUTHORIZED), (account, HTTPStatus.FORBIDDEN)):
        anybody = ssl._create_unverified_context()  # noqa: S323, SLF001 - what it answers counts, not who it is.
        kubelet = http.client.HTTPSConnection(address, 10250, timeout=10, context=anybody)
        kubelet.request("GET", "/pods", headers={"Authorization": f"Bearer {token}"})
        assert kubelet.getresponse().status == status


def test_logs_of_programs_and_pods_are_exported(kind_cluster: KindCluster, namespace: str, tmp_path: Path) -> None:
    command = [kind_cluster.kind_path, "export", "logs", str(tmp_path), "--name", kind_cluster.name]
    assert subprocess.check_output(command, text=True).strip() == str(tmp_path)
    assert {f"{program}.log" for program in ALL_PROGRAMS} <= {path.name for path in tmp_path.iterdir()}
    assert list(tmp_path.glob(f"pods/{namespace}_web_*/c/0.log"))


def _create(cluster: KindCluster, *objects: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl("-n", "worker", "create", "-f", "-", input=text)


def _run(cluster: KindCluster, namespace: str, name: str, *words: str) -> str:
    """Run a pod to its end; return its log."""
    _create(cluster, pod(name, *words))
    done = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("-n", namespace, "wait", done, f"pod/{name}", f"--timeout={WAITS}s")
    return str(cluster.kubectl("-n", namespace, "logs", name))


@contextmanager
def _forwarded(cluster: KindCluster, namespace: str, target: str) -> Iterator[int]:
    """`kubectl port-forward` to the server, on a port that kubectl chooses."""
    command = [cluster.kubectl_path, f"--kubeconfig={cluster.kubeconfig_path}", "-n", namespace]
    with subprocess.Popen([*command, "port-forward", target, ":8001"], stdout=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stdout
        try:
            yield int(forwarding.stdout.readline().split()[2].rpartition(":")[2])
        finally:
            forwarding.terminate()


def _get(host: str, port: int) -> str:
    """Send a GET without a proxy, also where the environment has one."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", "/version")
    return connection.getresponse().read().decode()
