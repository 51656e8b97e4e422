"""Create clusters for the duration of a block, and delete those that an interrupted test run left."""

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
    """Return a new name for a cluster, prefixed with the name of the test run in $HOTPOOL_TEST_RUN, if set."""
    return "-".join(filter(None, (os.environ.get(RUN), purpose, uuid.uuid4().hex[:6])))


@contextmanager
def cluster(name: str, kubeconfig: Path, kind: Path | None = None) -> Iterator[None]:
    """Create a cluster, replacing one of the same name, and delete it at the end of the block. Raises ClusterError."""
    kind = kind or kind_program()
    words = ("cluster", "--name", name, "--kubeconfig", str(kubeconfig))
    _run(kind, "delete", *words)
    try:
        _run(kind, "create", *words)
        yield
    finally:
        _run(kind, "delete", *words)


def delete_clusters(run: str) -> None:
    """Delete every cluster of a test run: its name, or a parent folder of its state, begins with the run's name."""
    if not run:
        raise ValueError("the name of a run must not be empty: every name of a cluster begins with an empty one")
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
    """Return the state folders of localkube clusters: those of this user, and others found by running programs."""
    found = {one.folder for one in all_clusters()}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if folder := process.environ().get(MARKER):
                found.add(Path(folder))
    return {folder for folder in found if any(part.startswith(run) for part in folder.parts)}


def _run(kind: Path, verb: str, *words: str, environment: dict[str, str] | None = None) -> None:
    """Run a command of kind, in a session of its own, which Ctrl-C does not reach.

    At an interrupt, a creation is terminated in order; any other command continues to its end.
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
