"""What a worker node could leave on its host: compared before it is made and after it is deleted.

Another node may stand on the host meanwhile, and pods come and go on it. So nothing is compared that is inside a node's
control group, only the groups themselves: a group that still has a process cannot be removed.
"""

import os
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

# Where kubelet, containerd and CNI plugins put things unless they are told otherwise; and how deep they are looked at.
_FOLDERS = {"/etc": 2, "/opt": 2, "/usr/libexec": 2, "/var/lib": 1, "/var/log": 1, "/var/run": 1, "/run": 1, "/": 1}
_NODE = "/hotpool-"
_SETTINGS = ("net/ipv4/ip_forward", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")


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
        """What is here and not there, by kind."""
        found = {field.name: getattr(self, field.name) - getattr(other, field.name) for field in fields(self)}
        return {name: more for name, more in found.items() if more}


def look() -> Traces:
    """The host now."""
    return Traces(
        mounts=_lines(Path("/proc/self/mountinfo").read_text()),
        namespaces=_namespaces(),
        cgroups=frozenset(str(path) for path in Path("/sys/fs/cgroup").rglob("*/") if _NODE not in str(path.parent)),
        links=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        routes=_lines(_output("ip", "route", "show", "table", "all")),
        rules=_lines(_output("nft", "list", "ruleset")),
        files=frozenset(path for folder, depth in _FOLDERS.items() for path in _below(Path(folder), depth)),
        settings=frozenset(f"{name}={Path('/proc/sys', name).read_text()}" for name in _SETTINGS),
    )


def _namespaces() -> frozenset[str]:
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _NODE not in (process / "cgroup").read_text():
                found |= {str(link.readlink()) for link in (process / "ns").iterdir()}
        except OSError:  # The process has gone.
            continue
    return frozenset(found)


def _below(folder: Path, depth: int) -> set[str]:
    found = {str(path) for path in folder.glob("*")}
    if depth > 1:
        found |= {name for path in folder.glob("*/") for name in _below(path, depth - 1)}
    return found


def _output(program: str, *words: str) -> str:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    return subprocess.run([program, *words], capture_output=True, text=True, check=True, env=environment).stdout


def _lines(text: str) -> frozenset[str]:
    return frozenset(text.splitlines())
