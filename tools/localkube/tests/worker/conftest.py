"""Fixtures of clusters with a node that runs pods, and an image for it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_kind import KindCluster

from localkube.tests.support.kind import KIND, WITH_WORKER
from localkube.tests.support.pods import write_image


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of built programs, those of a worker too."""
    return Path(subprocess.check_output([KIND, "build", "node-image", "--worker"], text=True).strip())


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Path:
    """The image of `support.pods`."""
    archive = tmp_path_factory.mktemp("image") / "kubectl.tar"
    write_image(archive, programs / "kubectl")
    return archive


@pytest.fixture(scope="session")
def kind_cluster(programs: Path) -> Iterator[KindCluster]:
    """pytest-kind's own fixture, but with a config file."""
    cluster = KindCluster("localkube-tests", kind_path=KIND, kubectl_path=programs / "kubectl")
    cluster.create(WITH_WORKER)
    yield cluster
    cluster.delete()
