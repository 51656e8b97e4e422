"""Start a worker node, once the control plane is ready.

Runs the steps in order and waits for each. Must not clean up after a failure: lifecycle does.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from localkube import images, kubeconfig, relay, requirements
from localkube.certs import DNS_USER, KUBELET_USER
from localkube.cluster import Cluster
from localkube.components import Layout
from localkube.console import Console
from localkube.errors import KindError
from localkube.health import answers
from localkube.node import Node
from localkube.paths import make_private, write_private
from localkube.process import Launch, environment
from localkube.worker import Worker
from localkube.worker_programs import (
    CONTAINERD,
    DNS,
    DNS_READY_PORT,
    KUBE_PROXY,
    KUBELET,
    PAUSE_IMAGE,
    PROXY_READY_PORT,
    RELAY,
    SOCKET,
    config_files,
    inner_command_lines,
    node_folder,
    permissions,
)

_CLIENTS = (KUBELET, KUBE_PROXY, DNS)


def join(cluster: Cluster, layout: Layout, worker: Worker, seconds: float, console: Console) -> None:
    """Start the node and everything on it; return when it is ready for pods."""
    node, deadline = Node(cluster.folder), time.monotonic() + seconds
    with console.step("Making the worker node"):
        _write_files(cluster, layout, worker)
        _permit(cluster, layout)
        node.create(worker, layout.binaries / "pause")
        _start_relay(cluster, layout, worker, node)
        for program, argv in inner_command_lines(layout).items():
            cluster.process(program).define(node.launch(argv))
    with console.step("Starting containerd"):
        cluster.process(CONTAINERD).start()
        cluster.wait_for(CONTAINERD, lambda: _containerd_answers(node, layout), _left(deadline))
        _load_pause(node, layout)
    with console.step("Starting kubelet, kube-proxy and DNS"):
        for program in (KUBELET, KUBE_PROXY, DNS):
            cluster.process(program).start()
        wait_ready(cluster, worker, _left(deadline))


def wait_ready(cluster: Cluster, worker: Worker, seconds: float) -> None:
    """Wait until the node can run pods, and services and names work."""
    deadline = time.monotonic() + seconds
    address = str(worker.address)
    cluster.wait_for(KUBELET, lambda: cluster.node_is_ready(worker.name), _left(deadline))
    cluster.wait_for(KUBE_PROXY, lambda: answers(address, PROXY_READY_PORT, "/healthz"), _left(deadline))
    cluster.wait_for(DNS, lambda: answers(address, DNS_READY_PORT, "/ready"), _left(deadline))


def load(cluster: Cluster, binaries: Path, archive: Path) -> None:
    """Put the images of an archive (OCI or ``docker save``) onto the cluster's worker."""
    _import(Node(cluster.folder), binaries, archive)


def _write_files(cluster: Cluster, layout: Layout, worker: Worker) -> None:
    etc = make_private(node_folder(layout.folder) / "etc")
    for name, text in config_files(layout, requirements.runc()).items():
        make_private((etc / name).parent)
        write_private(etc / name, text.encode())
    for program in _CLIENTS:
        config = cluster.kubeconfig(program, str(worker.address))
        write_private(layout.kubeconfig(program), kubeconfig.dump(config).encode())


def _permit(cluster: Cluster, layout: Layout) -> None:
    objects = {"apiVersion": "v1", "kind": "List", "items": permissions(DNS_USER, KUBELET_USER)}
    with tempfile.NamedTemporaryFile(dir=cluster.folder, mode="w") as admin:  # Private: mode 0600.
        admin.write(kubeconfig.dump(cluster.kubeconfig()))
        admin.flush()
        command = [str(layout.binaries / "kubectl"), f"--kubeconfig={admin.name}", "create", "-f", "-"]
        done = subprocess.run(
            command,
            input=json.dumps(objects),
            capture_output=True,
            text=True,
            check=False,
            env=environment(cluster.folder),
        )
    if done.returncode:
        raise KindError(f"kubectl create failed:\n{done.stderr.strip()}")


def _start_relay(cluster: Cluster, layout: Layout, worker: Worker, node: Node) -> None:
    script = str(Path(relay.__file__).resolve())
    words = [str(node.pid), str(worker.address), str(layout.ports.apiserver)]
    cluster.process(RELAY).define(Launch([sys.executable, "-I", script, *words]))
    cluster.process(RELAY).start()


def _containerd_answers(node: Node, layout: Layout) -> bool:
    try:
        node.run([*_ctr(layout.binaries), "version"])
    except KindError:
        return False
    return True


def _load_pause(node: Node, layout: Layout) -> None:
    with tempfile.TemporaryDirectory(dir=layout.folder) as folder:
        layer, archive = Path(folder) / "layer.tar", Path(folder) / "image.tar"
        images.write_layer(layer, {"pause": layout.binaries / "pause"})
        images.write_archive(archive, images.Image(PAUSE_IMAGE, ["/pause"]), [layer])
        _import(node, layout.binaries, archive)


def _import(node: Node, binaries: Path, archive: Path) -> None:
    # By standard input: the node sees another /var and /run than the caller.
    node.run([*_ctr(binaries), "--namespace=k8s.io", "images", "import", "-"], stdin=archive)


def _ctr(binaries: Path) -> list[str]:
    return [str(binaries / "ctr"), f"--address={SOCKET}"]


def _left(deadline: float) -> float:
    return deadline - time.monotonic()
