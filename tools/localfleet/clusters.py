"""Clusters that live as long as a block, and the removal of those that an interrupted test run left."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from localfleet.kind import OURS, kind_program
from localfleet.sweep import RUN
from localkube.cluster import all_clusters
from localkube.process import MARKER


class ClusterError(RuntimeError):
    """A command of kind failed; the text ends with its message."""


def own_name(purpose: str) -> str:
    """Return a new name for a cluster, which begins with the test run's where $HOTPOOL_TEST_RUN gives one."""
    return "-".join(filter(None, (os.environ.get(RUN), purpose, uuid.uuid4().hex[:6])))


@contextmanager
def cluster(name: str, kubeconfig: Path, kind: Path | None = None) -> Iterator[None]:
    """Create a cluster, in place of one of this name, and delete it, however the block ends. Raises ClusterError."""
    kind = kind or kind_program()
    words = ("cluster", "--name", name, "--kubeconfig", str(kubeconfig))
    _run(kind, "delete", *words)
    try:
        _run(kind, "create", *words)
        yield
    finally:
        _run(kind, "delete", *words)


def delete_clusters(run: str) -> None:
    """Delete every cluster whose name, or a folder above whose state, begins with the name of a test run."""
    if not run:
        raise ValueError("the name of a run is needed: every cluster's begins with an empty one")
    for folder in _folders(run):
        state = {"XDG_STATE_HOME": str(folder.parents[2])}
        _run(OURS, "delete", "cluster", "--name", folder.name, environment=state)
    kind = kind_program()
    if kind != OURS:
        listed = subprocess.run([str(kind), "get", "clusters"], stdout=subprocess.PIPE, text=True, check=True)
        for name in listed.stdout.split():
            if name.startswith(run):
                _run(kind, "delete", "cluster", "--name", name)


def _folders(run: str) -> set[Path]:
    """Return the states of our own clusters: of this user's home, and of others by the programs that run there."""
    found = {one.folder for one in all_clusters()}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if folder := process.environ().get(MARKER):
                found.add(Path(folder))
    return {folder for folder in found if any(part.startswith(run) for part in folder.parts)}


def _run(kind: Path, verb: str, *words: str, environment: dict[str, str] | None = None) -> None:
    """Run a command of kind, in a session of its own, where Ctrl-C does not reach it.

    When we are interrupted, a creation is ended in order, and everything else goes on to its end.
    """
    process = subprocess.Popen(
        [str(kind), verb, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        message = process.communicate()[1]
    except BaseException:
        if verb == "create":
            process.terminate()
        process.communicate()
        raise
    if process.returncode:
        raise ClusterError(f"{kind.name} {verb} {' '.join(words)}: {message.strip()}")
