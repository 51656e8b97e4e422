"""The chart's release on a cluster with pods: helm and kubectl as people type them, and published members."""

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from localfleet.chart import CHART, helm_program
from localfleet.kind import REPOSITORY

PATIENCE: Final = 180.0
"""Seconds until a wait fails; two cores run everything."""
_PAUSE: Final = 0.3
_READ_REDIS: Final = """
import json, sys
import redis
from hotpool.lookup import SyncLookup
password, namespace, pool = sys.argv[1:]
client = redis.Redis(host="hotpool-redis", username="hotpool-dispatcher", password=password)
with SyncLookup(client, namespace=namespace) as lookup:
    found = lookup.members(pool)
states = {"Ready": found.ready, "Suspect": found.suspect, "Draining": found.draining}
print(json.dumps({node: state for state, nodes in states.items() for node in nodes}))
"""
T = TypeVar("T")


class Release:
    """The release `hotpool` of one namespace."""

    def __init__(self, kubeconfig: Path, kubectl: Path, namespace: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace
        folders = [str(kubectl.parent), str(helm_program().parent), str(Path(sys.executable).parent)]
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": os.pathsep.join([*folders, os.environ["PATH"]]),
            "COLUMNS": "120",
        }

    def run(self, command: str, *, text: str | None = None, seconds: float = PATIENCE) -> str:
        """Run a shell command in the repository's folder; return its output. Raise RuntimeError on failure."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=REPOSITORY,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"$ {command}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Run kubectl in the release's namespace; return its output."""
        return self.run(shlex.join(["kubectl", "-n", self.namespace, *words]), text=text)

    @contextmanager
    def conversation(self, *words: str) -> Iterator[tuple[IO[str], IO[str]]]:
        """Run `kubectl exec -i` with these words; yield its standard input and output, as lines of text."""
        command = shlex.join(["kubectl", "-n", self.namespace, "exec", "-i", *words])
        with subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            yield process.stdin, process.stdout
            process.stdin.close()
            process.wait(PATIENCE)

    def helm(self, verb: str, *words: str, values: Mapping[str, Any] | None = None) -> str:
        """Run helm for the release; `values` for install and upgrade. Return its output."""
        chart = [str(CHART), "--values", "-"] if values is not None else []
        command = ["helm", verb, "hotpool", *chart, "-n", self.namespace, *words]
        return self.run(shlex.join(command), text=json.dumps(values) if values is not None else None)

    def get(self, *words: str) -> Any:
        """Return the JSON of `kubectl get`."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects in the release's namespace."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def members(self, pool: str) -> dict[str, str]:
        """Return node → state of a pool's members in its slices."""
        slices = self.get("nodepoolslices", "-l", f"hotpool.dev/pool={pool}")["items"]
        return {member["node"]: member["state"] for found in slices for member in found.get("members", [])}

    def members_in_redis(self, pool: str) -> dict[str, str]:
        """Return node → state of a pool's members in Redis, read in the operator's pod as a dispatcher."""
        login = self.get("secret", "hotpool-redis")["data"]["dispatcher-password"]
        password = base64.b64decode(login).decode()
        command = ["python3", "-c", _READ_REDIS, password, self.namespace, pool]
        members: dict[str, str] = json.loads(self.kubectl("exec", "deploy/hotpool-operator", "--", *command))
        return members

    def wait_for_members(self, pool: str, expected: Mapping[str, str]) -> None:
        """Wait until slices and Redis both hold the expected members."""
        until(lambda: self.members(pool), expected)
        until(lambda: self.members_in_redis(pool), expected)

    def leader(self) -> str:
        """Return the name of the leading pod, or an empty string."""
        holder: str = self.get("lease", "hotpool-operator")["spec"]["holderIdentity"] or ""
        pods = [pod["metadata"]["name"] for pod in self.pods("operator")]
        return next((pod for pod in pods if holder.startswith(pod)), "")

    def wait_for_leader(self) -> str:
        """Wait until a pod leads that is not being deleted; return its name."""
        leaders = [""]

        def leads() -> bool:
            pods = [pod["metadata"] for pod in self.pods("operator")]
            running = {pod["name"] for pod in pods if "deletionTimestamp" not in pod}
            leaders[0] = self.leader()
            return leaders[0] in running

        until(leads, True)
        return leaders[0]

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Return the pods of a component of the release."""
        found: list[dict[str, Any]] = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return found

    def processes(self, pod: str) -> list[int]:
        """Return the ids on this machine of a pod's processes, without its pause container."""
        uid = self.get("pod", pod)["metadata"]["uid"]
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                inside = (
                    uid in (folder / "cgroup").read_text() or uid.replace("-", "_") in (folder / "cgroup").read_text()
                )
                if inside and b"pause" not in (folder / "cmdline").read_bytes().split(b"\0")[0]:
                    found.append(int(folder.name))
            except OSError:
                continue
        return found


@contextmanager
def frozen(processes: Iterable[int]) -> Iterator[None]:
    """Stop processes (SIGSTOP) for the duration of the block."""
    stopped = list(processes)
    assert stopped
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


def kubelet(node: str) -> list[int]:
    """Return the id on this machine of the kubelet of a node: one, if the local cluster has started it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if words[0].endswith("/kubelet") and f"--hostname-override={node}" in words:
            found.append(int(folder.name))
    return found


def until(read: Callable[[], T], expected: T) -> None:
    """Poll until a value is as expected, with pauses, because each read starts a program. Raise TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while (found := read()) != expected:
        if time.monotonic() > deadline:
            raise TimeoutError(f"expected {expected!r}, found {found!r}")
        time.sleep(_PAUSE)
