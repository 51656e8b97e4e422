"""Copy logs of programs and pods for ``kind export logs``, of a dead cluster too.

Must not copy keys, or fail because a pod has just gone.
"""

import shutil
from pathlib import Path

from localkube.cluster import Cluster
from localkube.worker_programs import node_folder


def export(cluster: Cluster, target: Path) -> None:
    """Copy the programs' logs into the folder, and those of pods into ``pods`` in it."""
    _copy(cluster.folder / "logs", target)
    _copy(node_folder(cluster.folder) / "var" / "log" / "pods", target / "pods")


def _copy(source: Path, target: Path) -> None:
    """Copy what is there now: pods come and go meanwhile."""
    for file in source.rglob("*.log"):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, copy)
        except FileNotFoundError:
            continue
