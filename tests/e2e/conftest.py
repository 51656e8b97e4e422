"""Fixtures of the end-to-end tier: pytest-kind's cluster with a node that runs pods, and images for it.

If root or a program is missing, `tools/kind` names it, and how to install it, in the error of the fixture.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_kind import KindCluster
from tests.e2e.release import Release

from localfleet.kind import REPOSITORY, kind_program, kubectl_program
from localimages import images
from localkube.console import Console


@pytest.fixture(scope="session")
def kind_cluster(request: pytest.FixtureRequest) -> Iterator[KindCluster]:
    """pytest-kind's fixture, with a config file and another name than the cluster without pods."""
    option = request.config.option
    kind = kind_program(option.kind_bin)
    kubectl = Path(option.kind_kubectl_bin or kubectl_program(kind))
    kubeconfig = Path(option.kubeconfig) if option.kubeconfig else None
    cluster = KindCluster(f"{option.cluster_name}-e2e", kubeconfig, option.kind_image, kind, kubectl)
    cluster.create(REPOSITORY / "tools" / "localkube" / "worker.yaml")
    yield cluster
    if not option.keep_cluster:
        cluster.delete()


@pytest.fixture(scope="session")
def load(kind_cluster: KindCluster) -> Callable[[Path], None]:
    """A function that loads an image archive onto the node; pods then need `imagePullPolicy: Never`."""

    def run(archive: Path) -> None:
        command = [str(kind_cluster.kind_path), "load", "image-archive", str(archive), "--name", kind_cluster.name]
        subprocess.run(command, check=True)

    return run


@pytest.fixture(scope="session")
def bare(kind_cluster: KindCluster, load: Callable[[Path], None]) -> Release:
    """A cluster with the chart's images, and no release."""
    for image in (images.hotpool(), images.valkey()):
        load(images.ensure(image, Console()))
    return Release(kind_cluster.kubeconfig_path, Path(kind_cluster.kubectl_path), "default")
