"""Services that are pods, on a real API server (A3, A11, B6, B12, C7): no kubelet, so the tests write status.

The API server is stopped for real, so these tests have a local cluster of their own whatever `kind_cluster` is. The
rights of the agent are exactly those that docs/how-to/pods.md names.

Requirements A1, A5, D9.
"""

import asyncio
import base64
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.agent_run import Running, agent_running, eventually
from tests.support.fake_pods import status

from hotpool.common import kubeconfig
from localfleet.clusters import cluster as own_cluster
from localfleet.clusters import own_name
from localfleet.kind import REPOSITORY, kubectl_program
from localfleet.process import wait_for
from localfleet.relay import Relay
from localkube.cluster import Cluster

KIND = REPOSITORY / "tools" / "kind"
Json = dict[str, Any]
AgentInPod = Callable[..., AbstractAsyncContextManager[Running]]
READY = (True, None)
POD_RIGHTS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]


def fleet_rights(node: str) -> list[Json]:
    """Return the rights of a node's agent in the fleet's namespace."""
    return [
        {
            "apiGroups": ["hotpool.dev"],
            "resources": ["nodecapabilities"],
            "resourceNames": [node],
            "verbs": ["get", "list", "watch", "create", "patch"],
        },
        {
            "apiGroups": ["hotpool.dev"],
            "resources": ["nodecapabilities/status"],
            "resourceNames": [node],
            "verbs": ["patch"],
        },
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [f"hotpool-node-{node}"],
            "verbs": ["get", "create", "patch"],
        },
    ]


def granted(namespace: str, name: str, rules: list[Json], account: Json) -> list[Json]:
    """Return a Role and its binding."""
    metadata = {"name": name, "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}],
        },
    ]


class PodNode:
    """A node with its account, and two namespaces of pods."""

    def __init__(self, cluster: Cluster, kubeconfig: Path, folder: Path) -> None:
        suffix = uuid.uuid4().hex[:6]
        self.cluster = cluster
        self.folder = folder
        self.name, self.fleet, self.speech, self.llm = (
            f"{kind}-{suffix}" for kind in ("edge", "fleet", "speech", "llm")
        )
        self.account = {"name": "hotpool-agent", "namespace": self.fleet}
        self._kubeconfig = kubeconfig
        self._uid = ""

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Return the output of kubectl with the administrator's kubeconfig."""
        command = [str(kubectl_program(KIND)), "--kubeconfig", str(self._kubeconfig), *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def apply(self, *objects: Json) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def install(self) -> None:
        """Create node, namespaces, account and rights."""
        namespaces = (self.fleet, self.speech, self.llm)
        self.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in namespaces))
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}})
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.account})
        self.apply(*granted(self.fleet, "hotpool-agent", fleet_rights(self.name), self.account))
        for namespace in (self.speech, self.llm):
            self.kubectl("-n", namespace, "wait", "--for=create", "--timeout=30s", "serviceaccount/default")
            self.allow(namespace)

    def allow(self, namespace: str) -> None:
        """Give the agent its rights on pods."""
        self.apply(*granted(namespace, "hotpool-agent-pods", POD_RIGHTS, self.account))

    def forbid(self, namespace: str) -> None:
        """Remove them, and wait until the API server enforces it, because a watch opened before lasts minutes."""
        self.kubectl("-n", namespace, "delete", "rolebinding", "hotpool-agent-pods")
        ask = [str(kubectl_program(KIND)), "--kubeconfig", str(self._kubeconfig), "-n", namespace, "auth", "can-i"]
        ask += ["watch", "pods", "--as", f"system:serviceaccount:{self.fleet}:hotpool-agent"]
        wait_for(
            "the right is removed", lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 1, 30
        )

    def create(self, name: str, *, namespace: str | None = None, node: str | None = None, **annotations: str) -> None:
        """Create a pod of type asr that is bound to the node and not ready yet."""
        metadata = {
            "name": name,
            "namespace": namespace or self.speech,
            "labels": {"hotpool.dev/type": "asr"},
            "annotations": {f"hotpool.dev/{key}": value for key, value in annotations.items()},
        }
        containers = [{"name": "main", "image": "none", "ports": [{"containerPort": 8000}]}]
        spec = {"nodeName": node or self.name, "containers": containers}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def set(self, name: str, *, ready: bool, namespace: str | None = None) -> None:
        """Set the status of a pod as kubelet does."""
        patch = json.dumps({"status": status(ready=ready)})
        self.kubectl(
            "-n",
            namespace or self.speech,
            "patch",
            "pod",
            name,
            "--subresource=status",
            "--type=strategic",
            "-p",
            patch,
        )

    def delete(self, name: str, *words: str) -> None:
        """Delete a pod, which stays until kubelet reports its end, unless `--force` is given."""
        self.kubectl("-n", self.speech, "delete", "pod", name, "--wait=false", *words)

    def token(self) -> str:
        """Return a token as kubelet gives it to the agent's pod: bound to a new pod on the node, it names the node."""
        name = f"agent-{uuid.uuid4().hex[:6]}"
        metadata = {"name": name, "namespace": self.fleet}
        spec = {"nodeName": self.name, "serviceAccountName": "hotpool-agent", "automountServiceAccountToken": False}
        spec["containers"] = [{"name": "agent", "image": "none"}]
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        words = ("--bound-object-kind=Pod", f"--bound-object-name={name}")
        return self.kubectl("-n", self.fleet, "create", "token", "hotpool-agent", *words).strip()

    def node_uid(self) -> str:
        """Return the uid of the v1 Node."""
        return self.kubectl("get", "node", self.name, "-o", "jsonpath={.metadata.uid}")

    def report(self) -> Json:
        """Return the stored report, or an empty one."""
        words = ("-n", self.fleet, "get", "ncap", self.name, "--ignore-not-found", "-o", "json")
        found: Json = json.loads(self.kubectl(*words) or "{}")
        report: Json = found.get("status", {}).get("report", {})
        return report

    def states(self) -> dict[str, str]:
        """Return service → state of the stored report."""
        return {service["id"]: service["state"] for service in self.report().get("services", [])}

    def asr(self) -> tuple[bool, str | None]:
        """Return ready and reason of the type in the stored report; an absent type is not ready."""
        types = {item["type"]: item for item in self.report().get("capabilities", [])}
        return (types["asr"]["ready"], types["asr"].get("reason")) if "asr" in types else (False, "")

    async def until(self, condition: Callable[[], object], seconds: float = 20) -> float:
        """Wait until the condition holds at the API server; return the seconds that passed."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                pass
        return time.monotonic() - began


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose API server tests may stop, with the CRDs, and its administrator's kubeconfig."""
    name = own_name("pods")
    kubeconfig = tmp_path_factory.mktemp("pods") / "kubeconfig"
    with own_cluster(name, kubeconfig, KIND):
        crds = [str(kubectl_program(KIND)), "--kubeconfig", str(kubeconfig)]
        subprocess.run([*crds, "apply", "--server-side", "-f", str(REPOSITORY / "crds")], check=True)
        subprocess.run([*crds, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"], check=True)
        yield Cluster(name), kubeconfig


@pytest.fixture
def node(cluster: tuple[Cluster, Path], tmp_path: Path) -> PodNode:
    created = PodNode(*cluster, tmp_path)
    created.install()
    return created


@pytest.fixture
def relay(cluster: tuple[Cluster, Path]) -> Iterator[Relay]:
    """The relay between the agent and the API server."""
    facts = cluster[0].facts()
    assert facts
    with Relay(facts.ports.apiserver) as made:
        yield made


@pytest.fixture
def in_pod(node: PodNode, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> AgentInPod:
    """A function that runs an agent as in a new pod: with a token of that pod and an empty state folder."""
    authority = yaml.safe_load(node.kubectl("config", "view", "--raw", "--minify"))["clusters"][0]["cluster"]

    def agent(**settings: Any) -> AbstractAsyncContextManager[Running]:
        folder = node.folder / uuid.uuid4().hex[:6]
        (folder / "account").mkdir(parents=True)
        (folder / "account" / "token").write_text(node.token(), encoding="utf-8")
        (folder / "account" / "ca.crt").write_bytes(base64.b64decode(authority["certificate-authority-data"]))
        (folder / "account" / "namespace").write_text(node.fleet, encoding="utf-8")
        monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", folder / "account")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(relay.port))
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("HOME", str(folder))
        chosen: Json = {"pod_namespaces": f"{node.speech},{node.llm}", "request_seconds": 5.0} | settings
        return agent_running(folder, None, None, node=node.name, **chosen)

    return agent


def problem(it: Running) -> str:
    """Return the agent's problem with pods, or an empty string."""
    return it.agent.health().problems.get("pods", "")


async def test_a_pod_counts_while_it_is_ready(node: PodNode, in_pod: AgentInPod) -> None:
    async with in_pod(debounce=0.2) as it:
        await node.until(node.report)
        node.create("whisper-0", attributes="languages: [en, zh-CN]", model="large")
        await node.until(lambda: node.states() == {"whisper-0": "Starting"})
        node.set("whisper-0", ready=True)
        await node.until(lambda: node.asr() == READY)
        (service,) = node.report()["services"]
        assert (service["languages"], service["model"], service["port"]) == (["en", "zh"], "large", 8000)
        node.set("whisper-0", ready=False)
        await node.until(lambda: node.asr() == (False, "Failed"))
        node.set("whisper-0", ready=True)
        await node.until(lambda: node.asr() == READY)
        assert it.agent.health().problems == {}
        await it.shut_down()


async def test_a_deleted_or_unready_pod_is_withdrawn_at_once(node: PodNode, in_pod: AgentInPod) -> None:
    for name in ("one", "two", "three"):
        node.create(name)
        node.set(name, ready=True)
    async with in_pod(debounce=60.0) as it:
        await node.until(lambda: len(node.states()) == 3)
        await node.until(lambda: it.agent.watch.problem is None)
        node.set("one", ready=False)
        await node.until(lambda: node.states() == {"one": "Failed", "two": "Running", "three": "Running"}, 5)
        node.delete("two")
        await node.until(lambda: node.states() == {"one": "Failed", "two": "Stopping", "three": "Running"}, 5)
        node.delete("three", "--force", "--grace-period=0")
        await node.until(lambda: node.asr() == (False, "Failed"), 5)
        await it.shut_down()


async def test_a_deployment_scaled_to_zero_leaves_no_service(node: PodNode, in_pod: AgentInPod) -> None:
    """Its pods are bound to the node by its template, as no scheduler knows this node."""
    labels = {"app": "whisper", "hotpool.dev/type": "asr"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "whisper"}}, "template": template}
    metadata = {"name": "whisper", "namespace": node.speech}
    async with in_pod(debounce=0.2) as it:
        node.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        await node.until(lambda: len(node.states()) == 2)
        for name in node.states():
            node.set(name, ready=True)
        await node.until(lambda: set(node.states().values()) == {"Running"})
        assert node.asr() == READY
        node.kubectl("-n", node.speech, "scale", "deployment", "whisper", "--replicas=0")
        await node.until(lambda: node.asr() == (False, "Stopped"))
        for name in node.states():
            node.delete(name, "--force", "--grace-period=0")
        await node.until(lambda: node.report()["services"] == [])
        assert node.asr() == (False, "")
        await it.shut_down()


async def test_only_labelled_pods_of_this_node_in_the_configured_namespaces_are_services(
    node: PodNode, in_pod: AgentInPod
) -> None:
    node.create("mine")
    node.create("others", node="another-node")
    node.create("mine", namespace=node.llm)
    node.create("elsewhere", namespace="default")
    node.create("unlabelled")
    node.kubectl("-n", node.speech, "label", "pod", "unlabelled", "hotpool.dev/type-")
    async with in_pod(debounce=0.2) as it:
        await node.until(lambda: len(node.states()) == 2)
        first = set(node.states())
        assert "mine" in first
        node.kubectl("-n", node.speech, "label", "pod", "unlabelled", "hotpool.dev/type=tts")
        await node.until(lambda: set(node.states()) == first | {"unlabelled"})
        node.kubectl("-n", node.speech, "label", "pod", "unlabelled", "hotpool.dev/type-")
        await node.until(lambda: set(node.states()) == first)
        await it.shut_down()
    node.kubectl("-n", "default", "delete", "pod", "elsewhere", "--force", "--grace-period=0")


async def test_a_new_pod_of_the_agent_is_the_same_instance_and_withdraws_nothing(
    node: PodNode, in_pod: AgentInPod
) -> None:
    node.create("whisper-0")
    node.set("whisper-0", ready=True)
    seen: list[Json] = []
    for epoch in (1, 2, 3):
        async with in_pod() as it:
            # This agent sends one report, which is checked below.
            await node.until(lambda epoch=epoch: node.report().get("epoch") == epoch)  # type: ignore[misc]
            await eventually(lambda: it.agent.health().ready)
            seen.append(node.report())
            assert it.agent.reporter.state.sequence == 1
            if epoch == 2:
                await it.shut_down()
    assert {report["instance"] for report in seen} == {node.node_uid()}
    assert all(report["capabilities"][0]["ready"] and not report["leaving"] for report in seen)
    assert {report["platform"]["hostname"] for report in seen} == {node.name}


async def test_an_outage_of_the_api_server_withdraws_nothing_and_changes_in_it_are_found_later(
    node: PodNode, in_pod: AgentInPod, relay: Relay
) -> None:
    for name in ("stays", "goes"):
        node.create(name)
        node.set(name, ready=True)
    async with in_pod() as it:
        await node.until(lambda: node.states() == {"stays": "Running", "goes": "Running"})
        relay.cut()
        await eventually(lambda: "stay as they were" in problem(it), 30)
        node.delete("goes", "--force", "--grace-period=0")
        relay.restore()
        await node.until(lambda: node.states() == {"stays": "Running"})
        await eventually(lambda: it.agent.health().problems == {}, 30)
        api = node.cluster.process("kube-apiserver")
        api.stop()
        await eventually(lambda: "stay as they were" in problem(it), 30)
        api.start()
        await asyncio.to_thread(node.cluster.wait_ready)
        await eventually(lambda: it.agent.health().problems == {}, 60)
        assert node.states() == {"stays": "Running"}
        node.delete("stays", "--force", "--grace-period=0")
        await node.until(lambda: node.report()["services"] == [])
        await it.shut_down()


async def test_a_lost_right_to_read_pods_is_no_evidence_for_a_running_or_a_new_agent(
    node: PodNode, in_pod: AgentInPod, relay: Relay
) -> None:
    node.create("whisper-0")
    node.set("whisper-0", ready=True)
    async with in_pod() as it:
        await node.until(lambda: node.states() == {"whisper-0": "Running"})
        node.forbid(node.speech)
        # An open watch continues without the right.
        relay.cut()
        relay.restore()
        await eventually(lambda: "403" in problem(it), 30)
        await eventually(lambda: it.agent.reporter.problem is None and it.agent.heartbeat.problem is None, 30)
        assert node.states() == {"whisper-0": "Running"}
    async with in_pod() as it:
        await eventually(lambda: "nothing is reported before" in problem(it) and "403" in problem(it), 30)
        assert (node.report()["epoch"], node.states()) == (1, {"whisper-0": "Running"})
        node.allow(node.speech)
        await node.until(lambda: node.report()["epoch"] == 2)
        await eventually(lambda: it.agent.health().problems == {}, 30)
        assert node.asr() == READY
        await it.shut_down()
