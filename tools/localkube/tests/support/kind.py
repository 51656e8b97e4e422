"""`tools/kind` with a home of its own, for tests that count what it leaves.

A person's clusters are never touched; only the cache of built programs is the person's own, because building takes
minutes.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localkube.process import MARKER

TOOL = Path(__file__).parents[2]
KIND = TOOL.with_name("kind")
WITH_WORKER = TOOL / "worker.yaml"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FOREVER = 3600  # The first build takes ten minutes where Go's cache is empty.


class Kind:
    """`tools/kind` with a home of its own."""

    def __init__(self, home: Path, programs: Path) -> None:
        self.home = home
        self.kubectl = programs / "kubectl"
        self.state = home / ".local" / "state" / "hotpool"
        self._started: list[subprocess.Popen[str]] = []
        own = {"HOME": str(home), "XDG_CACHE_HOME": str(CACHE), "XDG_STATE_HOME": "", "KUBECONFIG": ""}
        self.environment = {**os.environ, **own, "KIND_CLUSTER_NAME": ""}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run without waiting. SIGINT works although a job in the background, such as the tests, ignores it."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            ["/usr/bin/env", "--default-signal=INT", KIND, *words],
            env=self.environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *words: str) -> str:
        """Run to success; return stdout."""
        status, out, err = self.result(*words)
        assert status == 0, err
        return out

    def result(self, *words: str) -> tuple[int, str, str]:
        """Run; return exit code, stdout and stderr."""
        process = self.start(*words)
        out, err = process.communicate(timeout=FOREVER)
        return process.returncode, out, err

    def ask(self, *words: str, context: str) -> str:
        """Run kubectl to success; return stdout."""
        command = [str(self.kubectl), f"--context=kind-{context}", *words]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def processes(self) -> list[psutil.Process]:
        """The programs that run for any cluster of this home."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARKER, "").startswith(str(self.home))
        except psutil.Error:
            return False

    def close(self) -> None:
        """End what was interrupted, and delete every cluster."""
        for process in self._started:
            process.kill()
            process.wait()
        self.run("delete", "clusters", "--all")

    def left(self) -> tuple[list[psutil.Process], list[Path]]:
        """Processes and folders of clusters; both lists are empty after delete."""
        return self.processes(), list((self.state / "clusters").iterdir())


def own_kind(home: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """One of the test's own, in this process's environment too; every cluster of it is deleted in the end."""
    kind = Kind(home, programs)
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    yield kind
    kind.close()
