"""Create and delete a cluster, one command at a time per cluster.

Must not leave a process or a file behind when a step fails.
"""

import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from localkube import build, joining, kubeconfig, node
from localkube.certs import write_certificates
from localkube.cluster import ALL_PROGRAMS, READY_WITHIN, Cluster, Facts, all_clusters
from localkube.components import APISERVER, CONTROLLERS, ETCD, SCHEDULER, Layout, Ports, command_lines
from localkube.config import ClusterConfig
from localkube.console import Console
from localkube.errors import KindError, PortTakenError
from localkube.locks import locked
from localkube.paths import clusters_folder, make_private, write_private
from localkube.ports import accepts, free_ports, is_free
from localkube.process import Launch, kill_orphans
from localkube.routes import choose_subnet
from localkube.worker import Worker

_PORT_ATTEMPTS = 3
_USERS = {CONTROLLERS: "controller-manager", SCHEDULER: "scheduler"}


@dataclass(frozen=True)
class Request:
    """Options of a cluster to create."""

    config: ClusterConfig
    kubeconfig: str | None = None
    ready_within: float = READY_WITHIN


def create(cluster: Cluster, request: Request, console: Console) -> None:
    """Create a cluster, or leave nothing of it."""
    worker = [] if request.config.worker_labels is None else [build.WORKER]
    binaries = build.programs(console, build.CONTROL_PLANE, *worker)
    with _locked(cluster, console):
        if cluster.alive:
            raise KindError(f'node(s) already exist for a cluster with the name "{cluster.name}"')
        if any(cluster.folder.iterdir()):
            console.say(f'Removing what is left of a dead cluster "{cluster.name}" ...')
            _empty(cluster)
        try:
            _create(cluster, binaries, request, console)
            kubeconfig.add(cluster.kubeconfig(), request.kubeconfig)
        except BaseException:
            _remove(cluster)
            raise


def delete(cluster: Cluster, explicit_kubeconfig: str | None, console: Console) -> None:
    """Delete whatever there is of a cluster, and its kubeconfig entries."""
    key = kubeconfig.key_of(cluster.name)
    if not cluster.exists:
        kubeconfig.remove(key, explicit_kubeconfig)
        return
    with _locked(cluster, console):
        _empty(cluster)
        try:
            kubeconfig.remove(key, explicit_kubeconfig)
        finally:
            cluster.folder.rmdir()


def _create(cluster: Cluster, binaries: Path, request: Request, console: Console) -> None:
    attempts = 1 if request.config.api_server_port else _PORT_ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with console.step("Writing certificates and configuration"):
                layout = _prepare(cluster, binaries, request.config)
            return _start(cluster, layout, request.ready_within, console)
        except PortTakenError:
            if attempt == attempts:
                raise
            console.say("   A port was taken meanwhile: choosing others")
            _empty(cluster)
    return None


def _prepare(cluster: Cluster, binaries: Path, config: ClusterConfig) -> Layout:
    facts = _choose(cluster, config)
    layout = Layout(cluster.folder, binaries, facts.ports, config.feature_gates, config.runtime_config, facts.worker)
    make_private(layout.folder / "etcd")
    write_certificates(layout.pki, facts.worker)
    for program, user in _USERS.items():
        write_private(layout.kubeconfig(program), kubeconfig.dump(cluster.kubeconfig(user)).encode())
    for program, argv in command_lines(layout).items():
        cluster.process(program).define(Launch(argv))
    return layout


def _choose(cluster: Cluster, config: ClusterConfig) -> Facts:
    """Choose ports and addresses and store them at once: another command that chooses must see them."""
    fixed = config.api_server_port
    if fixed and not is_free(fixed):
        raise KindError(f"field networking.apiServerPort: {fixed} is in use")
    parent = clusters_folder()
    with locked(parent, lambda: make_private(parent)):
        known = [facts for other in all_clusters() if (facts := other.facts())]
        chosen = free_ports(3, set().union({fixed or 0}, *(facts.ports.numbers() for facts in known)))
        ports = Ports(apiserver=fixed or chosen[0], etcd=chosen[1], etcd_peer=chosen[2])
        facts = Facts(ports, worker=_worker(cluster, config, [other.worker for other in known if other.worker]))
        cluster.remember(facts)
    return facts


def _worker(cluster: Cluster, config: ClusterConfig, others: list[Worker]) -> Worker | None:
    if config.worker_labels is None:
        return None
    return Worker(f"{cluster.name}-worker", choose_subnet(others), config.worker_labels)


def _start(cluster: Cluster, layout: Layout, seconds: float, console: Console) -> None:
    deadline = time.monotonic() + seconds

    def left() -> float:
        return deadline - time.monotonic()

    with console.step("Starting etcd"):
        cluster.process(ETCD).start()
        cluster.wait_for(ETCD, lambda: accepts(layout.ports.etcd), left())
    with console.step("Starting kube-apiserver"):
        cluster.process(APISERVER).start()
        cluster.wait_apiserver(left())
    with console.step("Starting the controllers and the scheduler"):
        cluster.process(CONTROLLERS).start()
        cluster.process(SCHEDULER).start()
        cluster.wait_ready(left())
    if layout.worker:
        joining.join(cluster, layout, layout.worker, seconds, console)
    cluster.remember(Facts(layout.ports, ready=True, worker=layout.worker))


def _locked(cluster: Cluster, console: Console) -> AbstractContextManager[int]:
    return locked(
        cluster.folder,
        lambda: make_private(cluster.folder),
        lambda: console.say(f'Waiting for another command on cluster "{cluster.name}" ...'),
    )


def _empty(cluster: Cluster) -> None:
    """Stop everything and remove every file, but keep the folder, which is the lock that we hold."""
    node.end(cluster.folder)
    # In reverse: an API server without etcd takes its time to end.
    for program in reversed(ALL_PROGRAMS):
        cluster.process(program).stop()
    kill_orphans(cluster.folder)
    node.remove_traces(cluster.folder)
    for path in cluster.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove(cluster: Cluster) -> None:
    _empty(cluster)
    cluster.folder.rmdir()
