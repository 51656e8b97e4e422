"""An interrupted demo or test run leaves no process, no cluster and no file behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localfleet.clusters import delete_clusters
from localfleet.kind import REPOSITORY, kubectl_program
from localfleet.sweep import RUN, marked
from localkube.process import wait_until
from localkube.tests.support.kind import KIND, Kind, own_kind

TEST_RUN = f"{os.environ.get(RUN, 'run')}-interrupts"
MARK = "HOTPOOL_INTERRUPTED_DEMO"
"""Environment variable of every process of a demo: its temporary folder."""
END_SECONDS = 60


def home(folder: Path) -> Path:
    """Create a home folder by whose path the clean-up of this test run finds clusters."""
    path = folder / os.environ.get(RUN, "run")
    path.mkdir()
    return path


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    yield from own_kind(home(tmp_path), kubectl_program(KIND).parent, monkeypatch)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder whose name is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="hp-") as name:
        yield Path(name)


@contextmanager
def demo(kind: Kind, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run `make demo ARGS=--once` in a session, a home and a temporary folder of its own."""
    own = {MARK: str(folder), "TMPDIR": str(folder), "PYTHONPATH": "tools", "HOTPOOL_KIND": str(KIND)}
    command = ["/usr/bin/env", "--default-signal=INT,TERM,HUP", sys.executable, "-u", "-m", "demo", "--once"]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**kind.environment, **own},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def until(running: "subprocess.Popen[str]", text: str) -> None:
    """Read lines until one begins with the text."""
    assert running.stdout
    seen = []
    for line in running.stdout:
        seen.append(line)
        if line.strip().startswith(text):
            return
    raise AssertionError("".join(seen))


@pytest.mark.parametrize(
    ("moment", "number"),
    [("cluster ...", signal.SIGTERM), ("stop piper on edge-1", signal.SIGINT)],
    ids=["creation", "script"],
)
def test_an_interrupted_demo_leaves_nothing(kind: Kind, folder: Path, moment: str, number: signal.Signals) -> None:
    with demo(kind, folder) as running:
        until(running, moment)
        assert wait_until(lambda: bool(kind.processes()), END_SECONDS)
        # As Ctrl-C on a terminal, which reaches the children too; and again during the clean-up.
        os.killpg(running.pid, number)
        until(running, "removing everything")
        os.killpg(running.pid, number)
        running.communicate(timeout=END_SECONDS)
        assert running.returncode == 128 + number
    assert list(marked(MARK, str(folder))) == []
    assert list(folder.iterdir()) == []
    assert kind.left() == ([], [])


def test_the_clusters_of_a_run_are_found_by_its_name_in_any_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN, TEST_RUN)
    kind = next(own_kind(home(tmp_path), Path(), monkeypatch))
    kind.run("create", "cluster", "--name", "one")
    monkeypatch.setenv("HOME", str(tmp_path))
    delete_clusters(f"{TEST_RUN}-other")
    assert kind.processes()
    delete_clusters(TEST_RUN)
    assert kind.left() == ([], [])
    monkeypatch.undo()


def test_an_empty_name_of_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        delete_clusters("")
