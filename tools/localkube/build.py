"""Build the programs of the cluster, once per version.

Compiles what ``programs/go.mod`` names, keeps it in the cache folder and prints progress. Must not call Go when the
programs are there.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from localkube import golang
from localkube.console import Console
from localkube.errors import KindError
from localkube.locks import locked
from localkube.paths import cache_folder

MODULE = Path(__file__).parent / "programs"
_CNI = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
# In the order of need, and etcd first because a broken set-up should show within seconds.
CONTROL_PLANE = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
CHARTS = {"helm": "helm.sh/helm/v4/cmd/helm"}
WORKER = {
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "containerd": f"{_CONTAINERD}/containerd",
    "containerd-shim-runc-v2": f"{_CONTAINERD}/containerd-shim-runc-v2",
    "ctr": f"{_CONTAINERD}/ctr",
    "ptp": f"{_CNI}/main/ptp",
    "loopback": f"{_CNI}/main/loopback",
    "host-local": f"{_CNI}/ipam/host-local",
    "portmap": f"{_CNI}/meta/portmap",
    "dns": "./dns",
    "pause": "./pause",
}
Group = dict[str, str]
_TELL_EVERY = 15.0
_TAIL = 20


def kubernetes_version() -> str:
    """The version that go.mod asks for, like ``v1.37.2``."""
    return _from_module(r"^\s*(?:require\s+)?k8s\.io/kubernetes (v\S+)")


def programs(console: Console, *groups: Group) -> Path:
    """Return the folder that holds the programs of the groups, building first what is missing."""
    target = _target()
    wanted = {program: package for group in groups for program, package in group.items()}
    if not _missing(target, wanted):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.parent / f"{target.name}.lock"
    with locked(lock, lock.touch, lambda: console.say(" • Waiting for another build of the programs ...")) as held:
        if missing := _missing(target, wanted):
            _build(target, missing, held, console)
    return target


def build_flags(version: str) -> list[str]:
    """The flags that make the programs small, and tell clients the right version."""
    major, minor = version.removeprefix("v").split(".")[:2]
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    symbols = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in facts.items())
    # Without the tag containerd needs a C compiler and the headers of btrfs.
    return ["-trimpath", "-ldflags", f"-s -w {symbols}", "-tags", "no_btrfs"]


def _target() -> Path:
    version = kubernetes_version()
    digest = hashlib.sha256(" ".join([sys.platform, platform.machine(), *build_flags(version)]).encode())
    for path in (MODULE / "go.mod", MODULE / "go.sum", *sorted(MODULE.glob("*/*.go"))):
        digest.update(path.read_bytes())
    return cache_folder() / "programs" / f"{version}-{digest.hexdigest()[:12]}"


def _missing(folder: Path, wanted: Group) -> Group:
    return {program: package for program, package in wanted.items() if not os.access(folder / program, os.X_OK)}


def _build(target: Path, wanted: Group, lock: int, console: Console) -> None:
    """Build beside the target, then rename each: a killed build leaves nothing that looks finished."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "work").mkdir(parents=True)
    target.mkdir(exist_ok=True)
    go = golang.find_go(golang.parse_version(_from_module(r"^go (\S+)")), console)
    version = kubernetes_version()
    with console.step(f"Building Kubernetes {version}"):
        console.say("   This takes about 10 minutes with an empty Go cache, else seconds; it is done once per version.")
        for number, (program, package) in enumerate(wanted.items(), 1):
            command = [str(go), "build", "-v", *build_flags(version), "-o", str(part / program), package]
            _Build(f"[{number}/{len(wanted)}] {program}", command, part, lock).run(console)
            (part / program).rename(target / program)
    shutil.rmtree(part)


class _Build:
    """Run of the Go compiler with printed progress."""

    def __init__(self, title: str, command: list[str], part: Path, lock: int) -> None:
        self._title, self._command, self._part, self._lock = title, command, part, lock
        self._log = part / "build.log"

    def run(self, console: Console) -> None:
        """Run to the end; kill the compiler if we are interrupted."""
        started = time.monotonic()
        with self._log.open("wb") as log:
            process = self._start(log.fileno())
        try:
            while (status := self._poll(process)) is None:
                console.say(f"   {self._title}: {time.monotonic() - started:.0f} s, {self._progress()}")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if status:
            raise KindError(f"building {self._title} failed:\n{self._tail()}")
        console.say(f"   {self._title}: done in {time.monotonic() - started:.0f} s")

    def _start(self, log: int) -> subprocess.Popen[bytes]:
        # Go inherits the lock: if we are killed, the next command waits for the compiler that we left behind.
        environment = {**golang.environment(), "GOTMPDIR": str(self._part / "work")}
        return subprocess.Popen(
            self._command,
            cwd=MODULE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(self._lock,),
        )

    @staticmethod
    def _poll(process: subprocess.Popen[bytes]) -> int | None:
        try:
            return process.wait(_TELL_EVERY)
        except subprocess.TimeoutExpired:
            return None

    def _progress(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        fetched = sum(line.startswith("go: downloading") for line in lines)
        return f"{fetched} modules fetched, {len(lines) - fetched} packages compiled"

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL:])


def _from_module(pattern: str) -> str:
    match = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    if not match:
        raise KindError(f"{MODULE / 'go.mod'} has no line like {pattern}")
    return match[1]
