"""Traces of a worker node on its host, compared before it is made and after it is deleted.

Nodes of other clusters may come and go on the host meanwhile: traces with their names or in their namespaces do not
count.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from localkube.process import MARKER
from localkube.worker import cgroup_name, link_name

# Where kubelet, containerd and CNI plugins put files by default, with the depth to compare.
_FOLDERS = {"/etc": 2, "/opt": 2, "/usr/libexec": 2, "/var/lib": 1, "/var/log": 1, "/run": 1, "/": 1}
_SETTINGS = ("net/ipv4/ip_forward", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
_NODE = re.compile(r"\b(?:hotpool-|hp)[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Traces:
    """The host as a worker node finds it, or leaves it."""

    mounts: frozenset[str]
    namespaces: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    rules: frozenset[str]
    files: frozenset[str]
    settings: frozenset[str]

    def beyond(self, other: "Traces") -> dict[str, set[str]]:
        """Return the traces that only this snapshot has, by kind."""
        found = {field.name: getattr(self, field.name) - getattr(other, field.name) for field in fields(self)}
        return {name: more for name, more in found.items() if more}


def look(folder: Path) -> Traces:
    """The host now, without what belongs to clusters in other folders."""
    own = {link_name(folder), cgroup_name(folder)}
    return Traces(
        mounts=_not_of_others(Path("/proc/self/mountinfo").read_text().splitlines(), own),
        namespaces=_namespaces(folder, own),
        cgroups=_not_of_others(map(str, Path("/sys/fs/cgroup").rglob("*/")), own),
        links=_not_of_others((path.name for path in Path("/sys/class/net").iterdir()), own),
        routes=_not_of_others(_output("ip", "-4", "route", "show", "table", "all"), own),
        rules=_not_of_others(_output("nft", "list", "ruleset"), own),
        files=frozenset(path for folder, depth in _FOLDERS.items() for path in _below(Path(folder), depth)),
        settings=frozenset(f"{name}={Path('/proc/sys', name).read_text()}" for name in _SETTINGS),
    )


def _not_of_others(lines: Iterable[str], own: set[str]) -> frozenset[str]:
    return frozenset(line for line in lines if set(_NODE.findall(line)) <= own)


def _namespaces(folder: Path, own: set[str]) -> frozenset[str]:
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not _is_of_another(process, folder, own):
                found |= {str(link.readlink()) for link in (process / "ns").iterdir()}
        except OSError:  # The process has gone.
            continue
    return frozenset(found)


def _is_of_another(process: Path, folder: Path, own: set[str]) -> bool:
    """Return True for a program of another cluster (by its environment), or a pod there (by its control group).

    Also for a program in a user namespace of its own, because a worker node makes none.
    """
    if (process / "ns" / "user").readlink() != Path("/proc/self/ns/user").readlink():
        return True
    variables = (process / "environ").read_bytes().split(b"\0")
    marks = {line for line in variables if line.startswith(f"{MARKER}=".encode())}
    groups = set(_NODE.findall((process / "cgroup").read_text()))
    return not (marks <= {f"{MARKER}={folder}".encode()} and groups <= own)


def _below(folder: Path, depth: int) -> set[str]:
    found = {str(path) for path in folder.glob("*")}
    if depth > 1:
        found |= {name for path in folder.glob("*/") for name in _below(path, depth - 1)}
    return found


def _output(program: str, *words: str) -> list[str]:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()
