"""Describe one cluster from its folder: whether it exists and is alive, and its processes.

Tests stop a program with ``Cluster(name).process("kube-apiserver").stop()``. Must not print.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from localkube import kubeconfig
from localkube.components import APISERVER, CONTROLLERS, PROGRAMS, Ports
from localkube.errors import KindError, PortTakenError
from localkube.health import Api
from localkube.paths import check_name, clusters_folder, is_name, write_private
from localkube.ports import LOOPBACK
from localkube.process import Process, State, wait_until
from localkube.worker import Worker
from localkube.worker_programs import WORKER_PROGRAMS

READY_WITHIN = 60.0
ALL_PROGRAMS = (*PROGRAMS, *WORKER_PROGRAMS)
_BIND_FAILURE = "address already in use"


@dataclass(frozen=True)
class Facts:
    """Persistent facts of a cluster beside its processes."""

    ports: Ports
    ready: bool = False
    worker: Worker | None = None


class Cluster:
    """A cluster that may or may not exist."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.folder = clusters_folder() / name

    @property
    def exists(self) -> bool:
        """Return True if any part of it exists, dead or alive."""
        return self.folder.is_dir()

    @property
    def alive(self) -> bool:
        """Return True if it was ready once and no process has ended since other than by stop()."""
        facts = self.facts()
        return facts is not None and facts.ready and not self.dead_programs()

    def facts(self) -> Facts | None:
        """Return the stored facts; None before they are stored."""
        try:
            stored = json.loads((self.folder / "cluster.json").read_bytes())
            worker = Worker(**stored["worker"]) if stored["worker"] else None
            return Facts(Ports(**stored["ports"]), stored["ready"], worker)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def remember(self, facts: Facts) -> None:
        """Store the facts."""
        write_private(self.folder / "cluster.json", json.dumps(asdict(facts)).encode())

    def process(self, program: str) -> Process:
        """One of its programs."""
        if program not in ALL_PROGRAMS:
            raise KindError(f"no program {program!r} in a cluster, only {', '.join(ALL_PROGRAMS)}")
        return Process(self.folder, program)

    def processes(self) -> list[Process]:
        """All of its programs, in the order of starting."""
        programs = ALL_PROGRAMS if self.worker() else PROGRAMS
        return [self.process(program) for program in programs]

    def worker(self) -> Worker | None:
        """Its worker, if it has one."""
        facts = self.facts()
        return facts.worker if facts else None

    def dead_programs(self) -> list[str]:
        """The programs that ended by themselves or were killed."""
        return [process.program for process in self.processes() if process.state is State.DEAD]

    def kubeconfig(self, user: str = "admin", host: str = LOOPBACK) -> kubeconfig.Config:
        """A kubeconfig for one of its users, who reaches the API server at the host."""
        server = f"https://{host}:{self._ports().apiserver}"
        return kubeconfig.single(kubeconfig.key_of(self.name), server, self.folder / "pki", user)

    def wait_ready(self, seconds: float = READY_WITHIN) -> None:
        """Wait until the API server and the controllers work."""
        self.wait_apiserver(seconds)
        self.wait_for(CONTROLLERS, self._api().has_default_account, seconds)

    def wait_apiserver(self, seconds: float = READY_WITHIN) -> None:
        """Wait until the API server reports that it is ready."""
        self.wait_for(APISERVER, self._api().ready, seconds)

    def node_is_ready(self, name: str) -> bool:
        """Return True if pods can run on a node."""
        return self._api().node_ready(name)

    def wait_for(self, program: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for what a program should bring about; raise at once when any program dies."""
        came_true = wait_until(lambda: bool(self.dead_programs()) or condition(), seconds)
        dead = self.dead_programs()
        if dead:
            raise self._failure(dead[0], f"{dead[0]} has exited")
        if not came_true:
            raise self._failure(program, f"{program} did not become ready in time")

    def _failure(self, program: str, what: str) -> KindError:
        tail = self.process(program).log_tail()
        kind = PortTakenError if _BIND_FAILURE in tail else KindError
        return kind(f"{what}; the end of its log:\n{tail}")

    def _api(self) -> Api:
        return Api(self._ports().apiserver, self.folder / "pki")

    def _ports(self) -> Ports:
        facts = self.facts()
        if facts is None:
            raise KindError(
                f"could not locate any control plane nodes for cluster named '{self.name}'. "
                "Use the --name option to select a different cluster"
            )
        return facts.ports


def all_clusters() -> list[Cluster]:
    """Every cluster of which there is anything, dead or alive."""
    folder = clusters_folder()
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [Cluster(path.name) for path in found if path.is_dir() and is_name(path.name)]
