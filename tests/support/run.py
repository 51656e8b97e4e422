"""One test run on this machine: its id, temporary folder, clusters and clean-up.

A run is one pytest command: with pytest-xdist its controller, otherwise the process itself. Workers inherit the id and
the temporary folder by the environment.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import pytest
from pytest_kind import KindCluster

from localfleet.clusters import delete_clusters
from localfleet.kind import kind_program, kubectl_program
from localfleet.signals import ignore_signals
from localfleet.sweep import RUN, sweep

CLUSTERS: Final = pytest.StashKey[dict[str, dict[str, str]]]()
"""Stash of a worker: tier → name and kubeconfig of the run's cluster."""


class Run:
    """The plugin of a run, which removes at its end everything that the tests left."""

    def __init__(self, config: pytest.Config) -> None:
        self.id = f"t{secrets.token_hex(3)}"
        self._keep = bool(config.option.keep_cluster)
        parent = tempfile.gettempdir()
        self._folder = Path(tempfile.mkdtemp(prefix="hp-"))
        self._folder.chmod(0o711)  # Some tests act as another user, in folders that they open.
        # pytest's own folders are kept, so that failed tests can be analysed.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", parent)
        os.environ |= {RUN: self.id, "TMPDIR": str(self._folder)}
        tempfile.tempdir = None

    def pytest_unconfigure(self) -> None:
        """Delete processes, clusters and folders of this run, which an interrupted test leaves."""
        ignore_signals()
        sweep(self.id)
        if not self._keep:
            delete_clusters(self.id)
            shutil.rmtree(self._folder, ignore_errors=True)


class SharedCluster:
    """The cluster of a run with several workers: created before they start, deleted after they have ended.

    Without it each worker would create and delete the cluster of the session-scoped fixture. `tier`: its key in the
    workers' input; `file`: kind's configuration.
    """

    def __init__(self, config: pytest.Config, tier: str, file: Path | None = None) -> None:
        option = config.option
        self._tier, self._file, self._keep = tier, file, bool(option.keep_cluster)
        kind = kind_program(option.kind_bin)
        name = f"{option.cluster_name if self._keep else os.environ[RUN]}-{tier}"
        # A cluster that is kept needs its kubeconfig in the next run: by default pytest-kind's own folder.
        kubeconfig = None if self._keep else Path(tempfile.gettempdir()) / f"{name}.kubeconfig"
        if option.kubeconfig:
            kubeconfig = Path(option.kubeconfig)
        kubectl = option.kind_kubectl_bin or kubectl_program(kind)
        self._cluster = KindCluster(name, kubeconfig, option.kind_image, kind, Path(kubectl))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Create the cluster, or find the one that an earlier run kept. Exit the run if that fails."""
        try:
            self._cluster.create(self._file)
        except subprocess.CalledProcessError as error:
            pytest.exit(f"no cluster for the tests: {error}", returncode=1)

    def pytest_configure_node(self, node: Any) -> None:
        """Pass the cluster to a worker."""
        cluster = {"name": self._cluster.name, "kubeconfig": str(self._cluster.kubeconfig_path)}
        node.workerinput.setdefault("clusters", {})[self._tier] = cluster

    def pytest_unconfigure(self) -> None:
        """Delete the cluster."""
        ignore_signals()
        if not self._keep:
            self._cluster.delete()
            shutil.rmtree(self._cluster.path, ignore_errors=True)


def share_cluster(config: pytest.Config, tier: str, file: Path | None = None) -> None:
    """Give all workers of a run one cluster: the controller creates it, a worker stores it in its stash."""
    if worker := getattr(config, "workerinput", None):
        config.stash[CLUSTERS] = worker.get("clusters", {})
    elif config.option.numprocesses:
        config.pluginmanager.register(SharedCluster(config, tier, file), f"shared-cluster-{tier}")


def end_on_signals() -> None:
    """Make SIGTERM and SIGHUP end this process as Ctrl-C does: with the clean-up of fixtures.

    Restore the handler of SIGINT, which a background job of a shell, and each program that it starts, ignores.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP.
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
