"""Implement the verbs of the command line, from parsed arguments to output.

Must not parse, or hold logic that belongs to a cluster.
"""

import argparse
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path

from localkube import build, config, exporting, joining, kubeconfig, lifecycle, requirements
from localkube.cluster import READY_WITHIN, Cluster, all_clusters
from localkube.console import Console
from localkube.errors import KindError
from localkube.paths import DEFAULT_NAME

Arguments = argparse.Namespace


def create_cluster(arguments: Arguments, console: Console) -> None:
    """Create a cluster and make its kubeconfig context the current one."""
    wanted = (
        config.load(config.read_text(arguments.config), arguments.config)
        if arguments.config
        else config.ClusterConfig()
    )
    for image in [arguments.image] if arguments.image else wanted.images:
        config.check_image(image, build.kubernetes_version())
    if wanted.worker_labels is not None:
        requirements.check()
    cluster = Cluster(_name(arguments, wanted.name))
    if cluster.alive:
        raise KindError(f'failed to create cluster: node(s) already exist for a cluster with the name "{cluster.name}"')
    console.say(f'Creating cluster "{cluster.name}" ...')
    # As in kind, --wait buys patience; it never makes a create fail that would have succeeded.
    request = lifecycle.Request(wanted, arguments.kubeconfig, max(arguments.wait, READY_WITHIN))
    try:
        lifecycle.create(cluster, request, console)
    except KindError as error:
        raise KindError(f"failed to create cluster: {error}") from error
    _tell_usage(kubeconfig.key_of(cluster.name), arguments.kubeconfig, console)


def delete_cluster(arguments: Arguments, console: Console) -> None:
    """Delete a cluster; a success also when there is none."""
    cluster = Cluster(_name(arguments))
    console.say(f'Deleting cluster "{cluster.name}" ...')
    lifecycle.delete(cluster, arguments.kubeconfig, console)


def delete_clusters(arguments: Arguments, console: Console) -> None:
    """Delete the named clusters, or all, dead ones included."""
    names = [cluster.name for cluster in all_clusters()] if arguments.all else arguments.names
    if not names and not arguments.all:
        raise KindError("no cluster names provided")
    failed = [name for name in names if not _deleted(name, arguments.kubeconfig, console)]
    done = " ".join(f'"{name}"' for name in names if name not in failed)
    console.say(f"Deleted clusters: [{done}]")
    if failed:
        raise KindError(f"failed to delete clusters: {', '.join(failed)}")


def get_clusters(_arguments: Arguments, console: Console) -> None:
    """List the clusters that are alive."""
    clusters = all_clusters()
    living = [cluster.name for cluster in clusters if cluster.alive]
    for cluster in clusters:
        if (dead := cluster.dead_programs()) and (facts := cluster.facts()) and facts.ready:
            console.say(f'Cluster "{cluster.name}" is dead (gone: {", ".join(dead)}), so it is not listed.')
    if not living:
        console.say("No kind clusters found.")
    for name in living:
        print(name)


def get_kubeconfig(arguments: Arguments, _console: Console) -> None:
    """Print the kubeconfig of a cluster."""
    print(kubeconfig.dump(Cluster(_name(arguments)).kubeconfig()), end="")


def get_nodes(arguments: Arguments, console: Console) -> None:
    """List nodes: workers only, since the control plane is no node here."""
    clusters = all_clusters() if arguments.all_clusters else [Cluster(_name(arguments))]
    nodes = [worker.name for cluster in clusters if cluster.alive and (worker := cluster.worker())]
    for node in nodes:
        print(node)
    if not nodes and arguments.all_clusters:
        console.say("No kind nodes for any cluster.")
    elif not nodes:
        console.say(f'No kind nodes found for cluster "{clusters[0].name}".')


def load_image_archive(arguments: Arguments, console: Console) -> None:
    """Load an archive of images (OCI, or of docker save) onto the worker of a cluster."""
    cluster = Cluster(_name(arguments))
    if not cluster.alive or not cluster.worker():
        raise KindError(f'no nodes found for cluster "{cluster.name}": create it with a worker to load images')
    joining.load(cluster, build.programs(console, build.WORKER), Path(arguments.archive))


def export_logs(arguments: Arguments, console: Console) -> None:
    """Copy the logs of a cluster's programs and pods into a folder, and print its name."""
    cluster = Cluster(_name(arguments))
    if not cluster.exists:
        raise KindError(f'unknown cluster "{cluster.name}"')
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="kind-logs-"))
    console.say(f'Exporting logs for cluster "{cluster.name}" to:')
    exporting.export(cluster, folder)
    print(folder)


def version(_arguments: Arguments, _console: Console) -> None:
    """Print the version."""
    machine = f"{sys.platform}/{platform.machine()}"
    print(
        f"kind (hotpool localkube: processes instead of containers) kubernetes {build.kubernetes_version()} {machine}"
    )


def build_node_image(arguments: Arguments, console: Console) -> None:
    """Build the programs (kubectl and helm too), and print the folder that holds them."""
    groups = [build.CONTROL_PLANE, build.CHARTS, *([build.WORKER] if arguments.worker else [])]
    print(build.programs(console, *groups))


def refuse(arguments: Arguments, _console: Console) -> None:
    """Refuse a verb of kind that has no meaning here yet."""
    raise KindError(f'"kind {arguments.verb}" is not supported by this local cluster: {arguments.reason}')


def _name(arguments: Arguments, configured: str | None = None) -> str:
    """The flag, the environment, the config file, the default: kind's order."""
    return str(arguments.name or os.environ.get("KIND_CLUSTER_NAME") or configured or DEFAULT_NAME)


def _deleted(name: str, explicit_kubeconfig: str | None, console: Console) -> bool:
    try:
        lifecycle.delete(Cluster(name), explicit_kubeconfig, console)
    except (KindError, OSError) as error:
        console.say(f'failed to delete cluster "{name}": {error}')
        return False
    return True


def _tell_usage(context: str, explicit_kubeconfig: str | None, console: Console) -> None:
    sample = f"kubectl cluster-info --context {context}"
    if explicit_kubeconfig:
        sample += f" --kubeconfig {shlex.quote(explicit_kubeconfig)}"
    console.say(f'Set kubectl context to "{context}"\nYou can now use your cluster with:\n\n{sample}')
