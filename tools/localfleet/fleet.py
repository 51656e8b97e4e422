"""A fleet in one namespace: definitions, accounts, the operator and the agents, for the demo and the tests.

Installs as people do, by kubectl with the administrator's kubeconfig. The operator and each agent have a kubeconfig
with a token of their own account only.
"""

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import client, config

from hotpool.cli.enrollment import manifests
from hotpool.lookup import Lookup, LookupUnavailableError
from localfleet.catalogue import render
from localfleet.chart import render as render_chart
from localfleet.kind import REPOSITORY
from localfleet.ports import free_port
from localfleet.process import ManagedProcess, wait_for
from localfleet.sweep import kill_marked

_RIGHTS: Final = {
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
_BIN: Final = Path(sys.executable).parent
GROUP: Final = ("hotpool.dev", "v1alpha1")
_WRITES: Final = {"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}


_STATE_VARIABLE: Final = "HOTPOOL_AGENT_STATE_DIR"
_ADVERTISE: Final = "HOTPOOL_AGENT_ADVERTISE"
_LOOPBACK: Final = "127.0.0.1"
"""Address of every agent of the fleet: by default loopback, because its clients are on this machine, too."""
_ANY_NAMESPACE: Final = "any-namespace"


@cache
def _rights(part: str, values: str) -> str:
    """Return the accounts and rights of a part of the chart as YAML, cached because helm takes half a second.

    `values`: of the chart, as JSON.
    """
    rendered = render_chart(_ANY_NAMESPACE, json.loads(values), only=f"{part}/*")
    return yaml.safe_dump_all(found for found in rendered if found["kind"] in _RIGHTS)


@cache
def install_definitions(kubeconfig: Path, kubectl: Path) -> None:
    """Apply the definitions to a cluster and wait until they are served, once per process."""
    words = [str(kubectl), "--kubeconfig", str(kubeconfig)]
    for command in (
        ("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds")),
        ("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"),
    ):
        subprocess.run([*words, *command], check=True, stdout=subprocess.DEVNULL)


@cache
def _view(kubeconfig: Path, kubectl: Path) -> str:
    """Return the kubeconfig as JSON with nothing but its current context."""
    words = [str(kubectl), "--kubeconfig", str(kubeconfig), "config", "view", "--raw", "--minify", "-o", "json"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Fleet:
    """One namespace with its operator and agents; `close` ends every process that they started.

    `server`: the address by which operator and agents reach the API server; default: the administrator's.
    `advertise`: the address of each agent for clients; default: $HOTPOOL_AGENT_ADVERTISE, else loopback.
    """

    def __init__(
        self,
        kubeconfig: Path,
        kubectl: Path,
        namespace: str,
        redis_url: str,
        *,
        server: str | None = None,
        advertise: str | None = None,
    ) -> None:
        self.namespace = namespace
        self._server = server
        self._advertise = advertise or os.environ.get(_ADVERTISE, _LOOPBACK)
        self.redis_url = redis_url
        self.folder = Path(tempfile.mkdtemp(prefix=f"hotpool-{namespace}-"))
        atexit.register(self.close)
        self.operator: ManagedProcess | None = None
        """The operator started last."""
        self.agents: dict[str, ManagedProcess] = {}
        self._started: list[ManagedProcess] = []
        self._probe_ports: dict[str, int] = {}
        """Name of an operator → port of its probes and metrics."""
        self.admin = kubeconfig
        self.kubectl_program = kubectl
        api: Any = config.new_client_from_config(str(kubeconfig))
        self.objects = client.CustomObjectsApi(api)
        self.leases = client.CoordinationV1Api(api)
        self._core = client.CoreV1Api(api)

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Run kubectl as the administrator in this namespace and return its output. Raises RuntimeError."""
        command = [str(self.kubectl_program), "--kubeconfig", str(self.admin), "-n", self.namespace, *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def install(self, values: Mapping[str, Any] | None = None) -> None:
        """Create definitions, namespace, and the operator's account. `values`: of the chart."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        install_definitions(self.admin, self.kubectl_program)
        self._account("operator", values)

    def install_agents(self) -> None:
        """Create the accounts, the Roles and the admission policy for agents, as `hotpool enroll` needs them."""
        self._account("agent")

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects as the administrator."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def start_operator(self, name: str = "operator", *more: str) -> ManagedProcess:
        """Start the operator, or another replica of it, without waiting for a leader (`wait_leading`).

        `more`: further words of its command line.
        """
        port = self._probe_ports.setdefault(name, free_port())
        kubeconfig = self.operator_kubeconfig()
        words = ["operator", "-n", self.namespace, "--kubeconfig", str(kubeconfig), "--redis", self.redis_url]
        command = [str(_BIN / "hotpool"), *words, "--listen", f"127.0.0.1:{port}", *more]
        self.operator = ManagedProcess(name, command, self.folder / f"{name}.log", {})
        self._started.append(self.operator)
        return self.operator

    def wait_leading(self, seconds: float = 60.0, name: str = "operator") -> None:
        """Wait until the operator's /readyz reports that it leads and is healthy."""

        def leads() -> bool:
            status, text = self.ask_operator("readyz", name)
            return status == 200 and "[+] leading" in text  # noqa: PLR2004 - HTTP's own number.

        wait_for("the operator leads", leads, seconds)

    def probe(self, path: str, name: str = "operator") -> int:
        """Return the HTTP status of the operator's /healthz or /readyz; 0: connection failed."""
        return self.ask_operator(path, name)[0]

    def ask_operator(self, path: str, name: str = "operator") -> tuple[int, str]:
        """Return status (0: connection failed) and text of /healthz, /readyz or /metrics."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._probe_ports[name]}/{path}", timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def start_agent(
        self,
        node: str,
        services: Sequence[dict[str, Any]],
        *,
        interval: int = 15,
        debounce: float = 2.0,
        inside: Sequence[str] = (),
        **head: Any,
    ) -> ManagedProcess:
        """Start (or restart) the agent of a node with a catalogue; `head`: its other fields.

        `inside`: the words of a program that executes the agent.
        """
        kubeconfig = self.folder / f"hotpool-agent-{node}.kubeconfig"
        if not kubeconfig.exists():
            self.apply(*manifests.account(node, self.namespace))
            self._kubeconfig(f"hotpool-agent-{node}")
        catalogue = self.write_catalogue(node, services, **head)
        words = ["run", "--catalogue", str(catalogue), "--node", node, "-n", self.namespace]
        words += ["--kubeconfig", str(kubeconfig), "--interval", str(interval), "--debounce", str(debounce)]
        # Several agents share this machine.
        words += ["--listen", "127.0.0.1:0"]
        log = self.folder / f"agent-{node}.log"
        agent = ManagedProcess(
            f"agent {node}", [*inside, str(_BIN / "hotpool-agent"), *words], log, self.agent_environment
        )
        self.agents[node] = agent
        self._started.append(agent)
        return agent

    def write_catalogue(self, node: str, services: Sequence[dict[str, Any]], **head: Any) -> Path:
        """Write the node's catalogue and return its path; the agent reads it at its start and on SIGHUP."""
        path = self.folder / f"{node}.yaml"
        path.write_text(render(services, **head))
        return path

    @property
    def agent_environment(self) -> dict[str, str]:
        """Environment in which `hotpool-agent` finds this fleet's agents."""
        return {_STATE_VARIABLE: str(self.folder / "agents"), _ADVERTISE: self._advertise}

    def agent(self, node: str, *words: str) -> str:
        """Run a `hotpool-agent` command for a node's agent and return its output."""
        command = [str(_BIN / "hotpool-agent"), *words, "--node", node]
        environment = {**os.environ, **self.agent_environment}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"hotpool-agent {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def get(self, plural: str, name: str) -> dict[str, Any] | None:
        """Return one custom object, or None."""
        try:
            found: Any = self.objects.get_namespaced_custom_object(*GROUP, self.namespace, plural, name)
        except client.exceptions.ApiException as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise
        return dict(found)

    def list(self, plural: str) -> list[dict[str, Any]]:
        """Return all custom objects of one kind."""
        found: Any = self.objects.list_namespaced_custom_object(*GROUP, self.namespace, plural)
        return list(found["items"])

    def members(self, pool: str) -> dict[str, str]:
        """Return node → state, from the pool's slices."""
        slices = (
            item for item in self.list("nodepoolslices") if item["metadata"]["labels"]["hotpool.dev/pool"] == pool
        )
        return {member["node"]: member["state"] for item in slices for member in item.get("members") or []}

    def members_in_redis(self, pool: str) -> dict[str, str] | None:
        """Return node → state, as a dispatcher sees them; None while the look-up fails, which proves nothing."""

        async def look_up() -> dict[str, str] | None:
            async with Lookup.from_url(self.redis_url, namespace=self.namespace) as lookup:
                try:
                    found = await lookup.members(pool)
                except LookupUnavailableError:
                    return None
            states = (("Ready", found.ready), ("Suspect", found.suspect), ("Draining", found.draining))
            return {node: state for state, nodes in states for node in nodes}

        return asyncio.run(look_up())

    def types_in_redis(self, node: str) -> set[str]:
        """Return the types that are ready on a node, as a dispatcher sees them."""

        async def look_up() -> set[str]:
            async with Lookup.from_url(self.redis_url, namespace=self.namespace) as lookup:
                found = await lookup.capability(node)
            return {type_ for type_, state in found.types.items() if state.ready} if found else set()

        return asyncio.run(look_up())

    def writes(self) -> dict[tuple[str, str], float]:
        """Return verb and resource → number of writes to hotpool's kinds since the API server started."""
        total: dict[tuple[str, str], float] = {}
        for line in self.kubectl("get", "--raw", "/metrics").splitlines():
            if not line.startswith("apiserver_request_total{") or 'group="hotpool.dev"' not in line:
                continue
            labels, count = line[line.index("{") + 1 :].rsplit("} ", 1)
            values = {name: text.strip('"') for name, text in (pair.split("=", 1) for pair in labels.split(","))}
            if values["verb"] in _WRITES:
                key = (values["verb"], values["resource"])
                total[key] = total.get(key, 0.0) + float(count)
        return total

    def viewer(self) -> Path:
        """Return a kubeconfig of the chart's viewer account."""
        self._account("viewer")
        return self._kubeconfig("hotpool-viewer")

    def maintainer(self) -> Path:
        """Return a kubeconfig of an account with the chart's Role for maintainers, and no other."""
        self._account("viewer")
        group, name = "rbac.authorization.k8s.io", "maintainer"
        self.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "hotpool-maintainer"},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
            },
        )
        return self._kubeconfig(name)

    def close(self) -> None:
        """End every process, also services that outlive their agents, and remove the folder. The namespace stays."""
        atexit.unregister(self.close)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(kill_marked, _STATE_VARIABLE, self.agent_environment[_STATE_VARIABLE])
            for process in reversed(self._started):
                stack.callback(process.stop)

    def _account(self, part: str, values: Mapping[str, Any] | None = None) -> None:
        """Create the account of a part of the chart, and its rights."""
        rights = _rights(part, json.dumps(values or {}))
        self.kubectl("apply", "-f", "-", text=rights.replace(_ANY_NAMESPACE, self.namespace))

    def operator_kubeconfig(self) -> Path:
        """Return the path of a kubeconfig with the operator's credential."""
        return self._kubeconfig("hotpool-operator")

    def _kubeconfig(self, account: str) -> Path:
        """Write a kubeconfig with only the account's token, readable by its owner only; return its path."""
        path = self.folder / f"{account}.kubeconfig"
        if not path.exists():
            body: Any = {"spec": {"expirationSeconds": 24 * 3600}}
            request: Any = self._core.create_namespaced_service_account_token(account, self.namespace, body)
            view = json.loads(_view(self.admin, self.kubectl_program))
            view["users"] = [{"name": account, "user": {"token": request.status.token}}]
            view["contexts"][0]["context"]["user"] = account
            if self._server:
                view["clusters"][0]["cluster"]["server"] = self._server
            path.touch(mode=0o600)
            path.write_text(json.dumps(view))
        return path
