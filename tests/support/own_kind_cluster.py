"""A cluster for one test module, in place of pytest-kind's: tests may change its definitions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_kind.cluster import KindCluster

from localfleet.clusters import cluster, own_name
from localfleet.kind import OURS, kubectl_program


@contextmanager
def own_kind_cluster(label: str, folder: Path) -> Iterator[KindCluster]:
    """Create a local cluster. `label`: part of its name; `folder`: an empty one for its kubeconfig."""
    name, kubeconfig = own_name(label), folder / "kubeconfig"
    with cluster(name, kubeconfig, OURS):
        made = KindCluster(name, kubeconfig, kind_path=OURS, kubectl_path=kubectl_program(OURS))
        yield made
        made.path.rmdir()
