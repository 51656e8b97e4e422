"""A namespace with objects that an agent must not change, and credentials of agents inside and outside the cluster.

The credentials are tokens that the API server issues for the chart's accounts, bound to Pods of Nodes. No kubelet
runs, so the Nodes and Pods are objects only.
"""

import base64
import json
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from click.testing import CliRunner
from tests.support.attacks import LABEL, OWN, READY, Attempt, lease, ncap
from tests.support.fleet_objects import pool

from hotpool.cli.program import app
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.process import wait_for

NODE, OTHER, FRESH = (f"edge-{number}-{uuid.uuid4().hex[:6]}" for number in (1, 2, 3))
"""Names of v1 Nodes, unique because Nodes have no namespace and other processes use the same cluster."""
PROBE: Final = Attempt("probe", "PATCH", OWN, {"spec": {"drain": True}})
"""A request that only the policy refuses, for every agent."""
POLICY: Final = "ValidatingAdmissionPolicy"
RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the API server."""

    status: int
    text: str

    @property
    def refused_by(self) -> str:
        """Return the barrier that refused: `policy`, `rbac` or `schema`; empty if the request was accepted."""
        if self.status == 403:
            return "policy" if f"{POLICY} " in self.text else "rbac"
        return "schema" if self.status == 422 else "" if self.status < 300 else f"{self.status}"


class Credential:
    """A kubeconfig with a token, and requests made with it."""

    def __init__(self, kubeconfig: Path, words: dict[str, str], read: Callable[[str], Any]) -> None:
        """Initialize. `read`: returns the object of a path with an administrator's rights."""
        self.kubeconfig = kubeconfig
        self._read = read
        self._words = words
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self._server, self.token = cluster["server"], content["users"][0]["user"]["token"]
        self._context = ssl.create_default_context(cadata=_authority(cluster))

    @property
    def encoded_token(self) -> str:
        """Return the token in base64, as in a Secret."""
        return base64.b64encode(self.token.encode()).decode()

    def send(self, attempt: Attempt, *, dry: bool = False) -> Response:
        """Send the request; `dry`: as a dry run, which is authorized alike and changes nothing."""
        path = _filled(attempt.path, self._words)
        if dry and not attempt.is_read:
            path += f"{'&' if '?' in path else '?'}dryRun=All"
        if attempt.kind.endswith("apply-patch+yaml"):
            path += f"{'&' if '?' in path else '?'}fieldManager=hotpool-agent"
        body = _filled(attempt.body, self._words)
        if attempt.method == "PUT":
            body = _merged(self._read(path), body)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._server}{path}", data, method=attempt.method)  # noqa: S310 - ours
        request.add_header("Authorization", f"Bearer {self.token}")
        if data:
            request.add_header("Content-Type", attempt.kind)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self._context) as response:  # noqa: S310
                return Response(response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            return Response(error.code, error.read().decode())


class IdentityNamespace:
    """A fleet's namespace with accounts, policy, and objects of nodes, pools and people."""

    def __init__(self, fleet: Fleet, *, wide: bool = False) -> None:
        """Install everything. `wide`: agents have every right in the namespace."""
        self.fleet = fleet
        self.words = {"ns": fleet.namespace, "node": NODE, "other": OTHER, "fresh": FRESH}
        self._accounts: dict[str, Path] = {}
        self._credentials: dict[tuple[str, str], Credential] = {}
        self.install()
        if wide:
            fleet.apply(*_every_right(fleet.namespace))
        self.create_objects()

    def install(self) -> None:
        """Install the chart's objects for agents, without the DaemonSet."""
        self.fleet.install_agents()

    def inside(self, node: str) -> Credential:
        """Return a credential of the shared account, with a token bound to a pod of the node."""
        if ("inside", node) not in self._credentials:
            self.pod(node)
            bound = ("--bound-object-kind=Pod", f"--bound-object-name=agent-{node}")
            self._credentials["inside", node] = self.credential("hotpool-agent", f"inside-{node}", *bound)
        return self._credentials["inside", node]

    def outside(self, node: str) -> Credential:
        """Return a credential of the node's own account, created by `hotpool enroll`."""
        if ("outside", node) not in self._credentials:
            path = self.fleet.folder / f"outside-{node}.kubeconfig"
            words = ["enroll", node, "-n", self.fleet.namespace, "--kubeconfig", str(self.fleet.admin)]
            done = CliRunner().invoke(app, [*words, "-o", str(path)])
            assert done.exit_code == 0, done.output
            self._credentials["outside", node] = self.credential_in(path)
        return self._credentials["outside", node]

    def delete_policy_binding(self) -> None:
        """Delete the policy's binding, and wait until the API server does not enforce the policy."""
        credential = self.inside(NODE)
        self.fleet.kubectl("delete", f"{POLICY}Binding".lower(), f"hotpool-{self.fleet.namespace}-agent")
        wait_for("the policy is not enforced", lambda: not credential.send(PROBE, dry=True).refused_by, 30)

    def credential_in(self, kubeconfig: Path) -> Credential:
        """Return the credential in a kubeconfig."""
        return Credential(kubeconfig, self.words, self._read)

    def account(self, role: str) -> Path:
        """Return a kubeconfig of an account with a Role of the chart."""
        if role not in self._accounts:
            self._accounts[role] = self._new_account(f"person-{role}", role)
        return self._accounts[role]

    def account_with(self, name: str, rules: list[dict[str, Any]]) -> Path:
        """Return a kubeconfig of an account with exactly these rules."""
        role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}
        return self._new_account(name, name, role)

    def _new_account(self, name: str, role: str, *more: dict[str, Any]) -> Path:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        self.fleet.apply(account, *more, _binding(role, [name], self.fleet.namespace))
        return self.credential(name, name).kubeconfig

    def credential(self, account: str, name: str, *words: str) -> Credential:
        """Return a credential of an account; `words`: arguments of `kubectl create token`."""
        token = self.fleet.kubectl("create", "token", account, "--duration=2h", *words).strip()
        view = json.loads(self.fleet.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        view["users"] = [{"name": account, "user": {"token": token}}]
        view["contexts"][0]["context"] |= {"user": account, "namespace": self.fleet.namespace}
        path = self.fleet.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(view))
        return self.credential_in(path)

    def _read(self, path: str) -> Any:
        return json.loads(self.fleet.kubectl("get", "--raw", path.partition("?")[0].removesuffix("/status")))

    def pod(self, node: str, *, account: str = "hotpool-agent", name: str | None = None) -> None:
        """Create a Node, and a Pod of the account on it, as objects."""
        spec = {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "agent", "image": "none"}],
            "tolerations": [{"operator": "Exists"}],
        }
        self.fleet.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        metadata = {"name": name or f"agent-{node}"}
        self.fleet.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def wait_for_policy(self) -> None:
        """Wait until the API server enforces the policy."""
        credential = self.inside(NODE)
        wait_for("the policy is enforced", lambda: credential.send(PROBE, dry=True).refused_by == "policy", 30)

    def close(self) -> None:
        """End all programs, and delete the Nodes, which have no namespace."""
        self.fleet.close()
        self.fleet.kubectl("delete", "pod", "--all", "--force", "--grace-period=0", "--wait=false")
        self.fleet.kubectl("delete", "node", NODE, OTHER, FRESH, "--ignore-not-found", "--wait=false")

    def create_objects(self) -> None:
        """Create records of two nodes with conditions of the operator, a pool, a slice, a generator and a Secret."""
        labels = {"zone": "a"}
        intents = {"services": [{"id": "nmt", "desired": "Running"}]}
        silent = {**READY, "status": "Unknown", "reason": "Offline"}
        for node in (NODE, OTHER):
            self.fleet.apply(ncap(node, spec=intents, labels=labels, annotations={"owner": "ops"}))
            status = json.dumps({"status": {"conditions": [silent], "ready": "Unknown"}})
            self.fleet.kubectl("patch", "ncap", node, "--subresource=status", "--type=merge", "-p", status)
            self.fleet.apply(lease(f"hotpool-node-{node}", **LABEL))
        self.fleet.apply(*(lease(name) for name in ("hotpool-operator", "hotpool-operator-canary")))
        self.fleet.apply(
            pool("p", types=[{"type": "asr"}]),
            {
                "apiVersion": "hotpool.dev/v1alpha1",
                "kind": "NodePoolSlice",
                "metadata": {"name": "p-0", "labels": {"hotpool.dev/pool": "p"}},
                "term": 1,
                "members": [],
            },
            yaml.safe_load((REPOSITORY / "crds" / "samples" / "generator.yaml").read_text())
            | {"metadata": {"name": "g"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"password": "secret"}},
        )


def _every_right(namespace: str) -> list[dict[str, Any]]:
    """Return a Role that allows everything, and its binding to the accounts of all agents."""
    accounts = ["hotpool-agent", *(f"hotpool-agent-{node}" for node in (NODE, OTHER, FRESH))]
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "mistake"}, "rules": rules}
    return [role, _binding("mistake", accounts, namespace)]


def _binding(role: str, accounts: list[str], namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": accounts[0] if len(accounts) == 1 else role},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace} for name in accounts],
    }


def _filled(value: Any, words: dict[str, str]) -> Any:
    """Return the value with `{node}` and similar placeholders replaced in every string."""
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    return [_filled(item, words) for item in value] if isinstance(value, list) else value


def _merged(stored: Any, patch: Any) -> Any:
    """Return the object that a PUT sends to make the change of a merge patch."""
    if not isinstance(stored, dict) or not isinstance(patch, dict):
        return patch
    return stored | {key: _merged(stored.get(key), value) for key, value in patch.items()}


def _authority(cluster: dict[str, Any]) -> str:
    data = cluster.get("certificate-authority-data")
    return base64.b64decode(data).decode() if data else Path(cluster["certificate-authority"]).read_text()
