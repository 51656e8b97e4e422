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
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.agent_run import Running, agent_running, eventually
from tests.support.fake_pods import status

from hotpool_agent.kube import credentials
from localfleet.clusters import cluster as own_cluster
from localfleet.clusters import own_name
from localfleet.kind import REPOSITORY, kubectl_program
from localfleet.process import wait_for
from localfleet.relay import Relay
from localkube.cluster import Cluster

KIND = REPOSITORY / "tools" / "kind"
Json = dict[str, Any]
READY = (True, None)
POD_RIGHTS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]


def fleet_rights(node: str) -> list[Json]:
    """What the agent of a node may do in the fleet's namespace."""
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
    """A Role and its binding."""
    about = {"name": name, "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": about, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}],
        },
    ]


class Place:
    """A node of its own with its account, and two namespaces of pods; all that was reported of it is kept."""

    def __init__(self, cluster: Cluster, kubeconfig: Path, folder: Path) -> None:
        word = uuid.uuid4().hex[:6]
        self.cluster = cluster
        self.folder = folder
        self.node, self.fleet, self.speech, self.llm = (f"{kind}-{word}" for kind in ("edge", "fleet", "speech", "llm"))
        self.account = {"name": "hotpool-agent", "namespace": self.fleet}
        self._kubeconfig = kubeconfig
        self._uid = ""

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """What kubectl prints for the administrator."""
        command = [str(kubectl_program(KIND)), "--kubeconfig", str(self._kubeconfig), *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def apply(self, *objects: Json) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def install(self) -> None:
        """Node, namespaces, account and rights."""
        namespaces = (self.fleet, self.speech, self.llm)
        self.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in namespaces))
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.node}})
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.account})
        self.apply(*granted(self.fleet, "hotpool-agent", fleet_rights(self.node), self.account))
        for namespace in (self.speech, self.llm):
            self.kubectl("-n", namespace, "wait", "--for=create", "--timeout=30s", "serviceaccount/default")
            self.allow(namespace)

    def allow(self, namespace: str) -> None:
        """Give the agent its rights on pods."""
        self.apply(*granted(namespace, "hotpool-agent-pods", POD_RIGHTS, self.account))

    def forbid(self, namespace: str) -> None:
        """Take them away, and wait until the API server knows, because a watch that it still opens lasts minutes."""
        self.kubectl("-n", namespace, "delete", "rolebinding", "hotpool-agent-pods")
        ask = [str(kubectl_program(KIND)), "--kubeconfig", str(self._kubeconfig), "-n", namespace, "auth", "can-i"]
        ask += ["watch", "pods", "--as", f"system:serviceaccount:{self.fleet}:hotpool-agent"]
        wait_for("the right is gone", lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 1, 30)

    def create(self, name: str, *, namespace: str | None = None, node: str | None = None, **annotations: str) -> None:
        """A pod of type asr that Kubernetes has bound to the node; not ready yet."""
        metadata = {
            "name": name,
            "namespace": namespace or self.speech,
            "labels": {"hotpool.dev/type": "asr"},
            "annotations": {f"hotpool.dev/{key}": value for key, value in annotations.items()},
        }
        containers = [{"name": "main", "image": "none", "ports": [{"containerPort": 8000}]}]
        spec = {"nodeName": node or self.node, "containers": containers}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def set(self, name: str, *, ready: bool, namespace: str | None = None) -> None:
        """What kubelet would write."""
        patch = json.dumps({"status": status(ready=ready)})
        where = ("-n", namespace or self.speech)
        self.kubectl(*where, "patch", "pod", name, "--subresource=status", "--type=strategic", "-p", patch)

    def delete(self, name: str, *words: str) -> None:
        """Delete a pod, which stays until kubelet says that it has ended, or with `--force`."""
        self.kubectl("-n", self.speech, "delete", "pod", name, "--wait=false", *words)

    def token(self) -> str:
        """As kubelet gives it to the agent's pod on the node: bound to that pod, it names the node."""
        name = f"agent-{uuid.uuid4().hex[:6]}"
        metadata = {"name": name, "namespace": self.fleet}
        spec = {"nodeName": self.node, "serviceAccountName": "hotpool-agent", "automountServiceAccountToken": False}
        spec["containers"] = [{"name": "agent", "image": "none"}]
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        words = ("--bound-object-kind=Pod", f"--bound-object-name={name}")
        return self.kubectl("-n", self.fleet, "create", "token", "hotpool-agent", *words).strip()

    def node_uid(self) -> str:
        """The uid of the v1 Node."""
        return self.kubectl("get", "node", self.node, "-o", "jsonpath={.metadata.uid}")

    def report(self) -> Json:
        """The stored report; empty where there is none."""
        words = ("-n", self.fleet, "get", "ncap", self.node, "--ignore-not-found", "-o", "json")
        found: Json = json.loads(self.kubectl(*words) or "{}")
        report: Json = found.get("status", {}).get("report", {})
        return report

    def states(self) -> dict[str, str]:
        """Service → state, as reported."""
        return {service["id"]: service["state"] for service in self.report().get("services", [])}

    def asr(self) -> tuple[bool, str | None]:
        """Ready and reason of the type, as reported; absent is not ready."""
        types = {item["type"]: item for item in self.report().get("capabilities", [])}
        return (types["asr"]["ready"], types["asr"].get("reason")) if "asr" in types else (False, "")

    async def until(self, condition: Callable[[], object], seconds: float = 20) -> float:
        """Wait until the condition holds at the API server; the seconds that it took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                pass
        return time.monotonic() - began


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    """A cluster whose API server may be stopped, with our definitions, and its administrator's kubeconfig."""
    name = own_name("pods")
    kubeconfig = tmp_path_factory.mktemp("pods") / "kubeconfig"
    with own_cluster(name, kubeconfig, KIND):
        crds = [str(kubectl_program(KIND)), "--kubeconfig", str(kubeconfig)]
        subprocess.run([*crds, "apply", "--server-side", "-f", str(REPOSITORY / "crds")], check=True)
        subprocess.run([*crds, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"], check=True)
        yield Cluster(name), kubeconfig


@pytest.fixture
def place(cluster: tuple[Cluster, Path], tmp_path: Path) -> Place:
    made = Place(*cluster, tmp_path)
    made.install()
    return made


@pytest.fixture
def relay(cluster: tuple[Cluster, Path]) -> Iterator[Relay]:
    """The agent's way to the API server."""
    facts = cluster[0].facts()
    assert facts
    with Relay(facts.ports.apiserver) as made:
        yield made


@pytest.fixture
def in_pod(place: Place, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes an agent as in a new pod: a token of that pod, and an empty state folder."""
    authority = yaml.safe_load(place.kubectl("config", "view", "--raw", "--minify"))["clusters"][0]["cluster"]

    def agent(**settings: Any) -> Any:
        folder = place.folder / uuid.uuid4().hex[:6]
        (folder / "account").mkdir(parents=True)
        (folder / "account" / "token").write_text(place.token(), encoding="utf-8")
        (folder / "account" / "ca.crt").write_bytes(base64.b64decode(authority["certificate-authority-data"]))
        (folder / "account" / "namespace").write_text(place.fleet, encoding="utf-8")
        monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", folder / "account")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(relay.port))
        monkeypatch.delenv("KUBECONFIG", raising=False)
        chosen: Json = {"pod_namespaces": f"{place.speech},{place.llm}", "request_seconds": 5.0} | settings
        return agent_running(folder, None, None, node=place.node, **chosen)

    return agent


def problem(it: Running) -> str:
    """What is wrong with the pods."""
    return it.agent.health().problems.get("pods", "")


async def test_a_pod_counts_from_ready_to_unready(place: Place, in_pod: Callable[..., Any]) -> None:
    async with in_pod(debounce=0.2) as it:
        await place.until(place.report)
        place.create("whisper-0", attributes="languages: [en, zh-CN]", model="large")
        await place.until(lambda: place.states() == {"whisper-0": "Starting"})
        place.set("whisper-0", ready=True)
        await place.until(lambda: place.asr() == READY)
        (service,) = place.report()["services"]
        assert (service["languages"], service["model"], service["port"]) == (["en", "zh"], "large", 8000)
        place.set("whisper-0", ready=False)
        await place.until(lambda: place.asr() == (False, "Failed"))
        place.set("whisper-0", ready=True)
        await place.until(lambda: place.asr() == READY)
        assert it.agent.health().problems == {}
        await it.shut_down()


async def test_a_pod_that_is_deleted_or_unready_is_withdrawn_at_once(place: Place, in_pod: Callable[..., Any]) -> None:
    for name in ("one", "two", "three"):
        place.create(name)
        place.set(name, ready=True)
    async with in_pod(debounce=60.0) as it:
        await place.until(lambda: len(place.states()) == 3)
        await place.until(lambda: it.agent.watch.problem is None)
        place.set("one", ready=False)
        await place.until(lambda: place.states() == {"one": "Failed", "two": "Running", "three": "Running"}, 5)
        place.delete("two")
        await place.until(lambda: place.states() == {"one": "Failed", "two": "Stopping", "three": "Running"}, 5)
        place.delete("three", "--force", "--grace-period=0")
        await place.until(lambda: place.asr() == (False, "Failed"), 5)
        await it.shut_down()


async def test_a_deployment_scaled_to_zero_leaves_nothing(place: Place, in_pod: Callable[..., Any]) -> None:
    """Its pods are bound to the node by its template, as no scheduler knows this node."""
    labels = {"app": "whisper", "hotpool.dev/type": "asr"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"nodeName": place.node, "containers": [{"name": "main", "image": "none"}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "whisper"}}, "template": template}
    metadata = {"name": "whisper", "namespace": place.speech}
    async with in_pod(debounce=0.2) as it:
        place.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        await place.until(lambda: len(place.states()) == 2)
        for name in place.states():
            place.set(name, ready=True)
        await place.until(lambda: set(place.states().values()) == {"Running"})
        assert place.asr() == READY
        place.kubectl("-n", place.speech, "scale", "deployment", "whisper", "--replicas=0")
        await place.until(lambda: place.asr() == (False, "Stopped"))
        for name in place.states():
            place.delete(name, "--force", "--grace-period=0")
        await place.until(lambda: place.report()["services"] == [])
        assert place.asr() == (False, "")
        await it.shut_down()


async def test_only_pods_of_this_node_with_a_type_in_the_namespaces_that_are_set(
    place: Place, in_pod: Callable[..., Any]
) -> None:
    place.create("mine")
    place.create("others", node="another-node")
    place.create("mine", namespace=place.llm)
    place.create("elsewhere", namespace="default")
    place.create("unlabelled")
    place.kubectl("-n", place.speech, "label", "pod", "unlabelled", "hotpool.dev/type-")
    async with in_pod(debounce=0.2) as it:
        await place.until(lambda: len(place.states()) == 2)
        first = set(place.states())
        assert "mine" in first
        place.kubectl("-n", place.speech, "label", "pod", "unlabelled", "hotpool.dev/type=tts")
        await place.until(lambda: set(place.states()) == first | {"unlabelled"})
        place.kubectl("-n", place.speech, "label", "pod", "unlabelled", "hotpool.dev/type-")
        await place.until(lambda: set(place.states()) == first)
        await it.shut_down()
    place.kubectl("-n", "default", "delete", "pod", "elsewhere", "--force", "--grace-period=0")


async def test_a_new_pod_of_the_agent_is_the_same_instance_and_withdraws_nothing(
    place: Place, in_pod: Callable[..., Any]
) -> None:
    place.create("whisper-0")
    place.set("whisper-0", ready=True)
    seen: list[Json] = []
    for epoch in (1, 2, 3):
        async with in_pod() as it:
            # Every report of this agent is looked at: there is one.
            await place.until(lambda epoch=epoch: place.report().get("epoch") == epoch)  # type: ignore[misc]
            await eventually(lambda: it.agent.health().ready)
            seen.append(place.report())
            assert it.agent.reporter.sequence == 1
            if epoch == 2:
                await it.shut_down()
    assert {report["instance"] for report in seen} == {place.node_uid()}
    assert all(report["capabilities"][0]["ready"] and not report["leaving"] for report in seen)
    assert {report["platform"]["hostname"] for report in seen} == {place.node}


async def test_the_api_server_away_withdraws_nothing_and_what_happened_meanwhile_is_found(
    place: Place, in_pod: Callable[..., Any], relay: Relay
) -> None:
    for name in ("stays", "goes"):
        place.create(name)
        place.set(name, ready=True)
    async with in_pod() as it:
        await place.until(lambda: place.states() == {"stays": "Running", "goes": "Running"})
        relay.cut()
        await eventually(lambda: "stay as they were" in problem(it), 30)
        place.delete("goes", "--force", "--grace-period=0")
        relay.restore()
        await place.until(lambda: place.states() == {"stays": "Running"})
        await eventually(lambda: it.agent.health().problems == {}, 30)
        api = place.cluster.process("kube-apiserver")
        api.stop()
        await eventually(lambda: "stay as they were" in problem(it), 30)
        api.start()
        await asyncio.to_thread(place.cluster.wait_ready)
        await eventually(lambda: it.agent.health().problems == {}, 60)
        assert place.states() == {"stays": "Running"}
        place.delete("stays", "--force", "--grace-period=0")
        await place.until(lambda: place.report()["services"] == [])
        await it.shut_down()


async def test_a_right_taken_away_is_no_evidence_for_a_running_agent_nor_for_a_new_one(
    place: Place, in_pod: Callable[..., Any], relay: Relay
) -> None:
    place.create("whisper-0")
    place.set("whisper-0", ready=True)
    async with in_pod() as it:
        await place.until(lambda: place.states() == {"whisper-0": "Running"})
        place.forbid(place.speech)
        # A watch that is open goes on without the right.
        relay.cut()
        relay.restore()
        await eventually(lambda: "403" in problem(it), 30)
        await eventually(lambda: it.agent.reporter.problem is None and it.agent.heartbeat.problem is None, 30)
        assert place.states() == {"whisper-0": "Running"}
    async with in_pod() as it:
        await eventually(lambda: "nothing is reported before" in problem(it) and "403" in problem(it), 30)
        assert (place.report()["epoch"], place.states()) == (1, {"whisper-0": "Running"})
        place.allow(place.speech)
        await place.until(lambda: place.report()["epoch"] == 2)
        await eventually(lambda: it.agent.health().problems == {}, 30)
        assert place.asr() == READY
        await it.shut_down()
