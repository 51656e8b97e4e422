"""The chart installed on a cluster with pods: helm and kubectl as people type them, and looks at what is published."""

import base64
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from localfleet.chart import CHART, helm_program
from localfleet.kind import REPOSITORY

PATIENCE: Final = 180.0
"""Seconds for what should take some; two cores run everything."""
_PAUSE: Final = 0.3
_ASK_REDIS: Final = """
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
        """Run a line as a person would, in the repository's folder; its output. Raises RuntimeError."""
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
        """Kubectl in the release's namespace."""
        return self.run(shlex.join(["kubectl", "-n", self.namespace, *words]), text=text)

    def helm(self, verb: str, *words: str, values: Mapping[str, Any] | None = None) -> str:
        """Helm about the release; `values` for install and upgrade."""
        chart = [str(CHART), "--values", "-"] if values is not None else []
        command = ["helm", verb, "hotpool", *chart, "-n", self.namespace, *words]
        return self.run(shlex.join(command), text=json.dumps(values) if values is not None else None)

    def get(self, *words: str) -> Any:
        """What kubectl gets, as objects."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects in the release's namespace."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def members(self, pool: str) -> dict[str, str]:
        """Who is in a pool by its slices: node → state."""
        slices = self.get("nodepoolslices", "-l", f"hotpool.dev/pool={pool}")["items"]
        return {member["node"]: member["state"] for found in slices for member in found.get("members", [])}

    def in_redis(self, pool: str) -> dict[str, str]:
        """Who is in a pool by Redis, asked in the operator's pod with the dispatchers' account."""
        login = self.get("secret", "hotpool-redis")["data"]["dispatcher-password"]
        password = base64.b64decode(login).decode()
        where = ["exec", "deploy/hotpool-operator", "--", "python3", "-c", _ASK_REDIS, password, self.namespace, pool]
        found: dict[str, str] = json.loads(self.kubectl(*where))
        return found

    def published(self, pool: str, expected: Mapping[str, str]) -> None:
        """Wait until slices and Redis both say so."""
        until(lambda: self.members(pool), expected)
        until(lambda: self.in_redis(pool), expected)

    def leader(self) -> str:
        """The name of the pod that leads."""
        holder: str = self.get("lease", "hotpool-operator")["spec"]["holderIdentity"] or ""
        pods = [pod["metadata"]["name"] for pod in self.pods("operator")]
        return next((pod for pod in pods if holder.startswith(pod)), "")

    def led(self) -> str:
        """Wait until a pod leads that nobody has deleted; its name as it was seen then."""
        seen = [""]

        def look() -> bool:
            pods = [pod["metadata"] for pod in self.pods("operator")]
            living = {pod["name"] for pod in pods if "deletionTimestamp" not in pod}
            seen[0] = self.leader()
            return seen[0] in living

        until(look, True)
        return seen[0]

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of a part of the release."""
        found: list[dict[str, Any]] = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return found

    def processes(self, pod: str) -> list[int]:
        """Ids, on this machine, of the processes of a pod of ours except its pause container."""
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


def until(look: Callable[[], T], wanted: T) -> None:
    """Look again and again until it is as wanted; not in a loop as fast as it goes, because each look is a program."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"wanted {wanted!r}, found {found!r}")
        time.sleep(_PAUSE)
