"""An interrupted test run leaves no cluster, no server, no process and no temporary folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from localfleet.kind import REPOSITORY, kind_program
from localfleet.process import wait_for
from localfleet.sweep import RUN, marked

SAMPLE = REPOSITORY / "tests" / "support" / "samples" / "endless.py"
WORKERS = 2


class SampleReport(NamedTuple):
    """A report of a test of the sample."""

    worker: int
    folder: str
    redis: str


def interrupt_group(run: subprocess.Popen[bytes], _worker: int) -> None:
    """End the run as Ctrl-C on a terminal does."""
    os.killpg(run.pid, signal.SIGINT)


def terminate_after_a_crash(run: subprocess.Popen[bytes], worker: int) -> None:
    """Kill one worker, as a crash does, then end the run as a supervisor does."""
    os.kill(worker, signal.SIGKILL)
    run.send_signal(signal.SIGTERM)


def report(ready: Path, number: int) -> SampleReport | None:
    """Return the report of test `number` of the sample, if any."""
    path = ready / str(number)
    if not path.exists():
        return None
    worker, *rest = path.read_text().splitlines()
    return SampleReport(int(worker), *rest)


@pytest.mark.parametrize(
    ("test", "more", "end"),
    [
        ("test_endless", ["-p", "no:shared-cluster-cluster"], interrupt_group),
        ("test_endless_on_a_cluster", [], terminate_after_a_crash),
    ],
)
def test_an_interrupted_run_leaves_nothing(
    test: str, more: list[str], end: Callable[[subprocess.Popen[bytes], int], None], tmp_path: Path
) -> None:
    words = ["-m", "pytest", "-p", "tests.cluster.conftest", *more, "-n", str(WORKERS), "--dist", "worksteal"]
    words.append(f"{SAMPLE}::{test}")
    environment = os.environ | {"READY": str(tmp_path), "HOTPOOL_TEST_REDIS_URL": "", "PYTEST_ADDOPTS": ""}
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, *words],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for("both tests run", lambda: all(report(tmp_path, n) for n in (1, 2)) or run.poll() is not None, 120)
        reports = [found for n in (1, 2) if (found := report(tmp_path, n))]
        assert len(reports) == WORKERS, (tmp_path / "log").read_text()
        name = psutil.Process(reports[0].worker).environ()[RUN]
        assert len([*marked(RUN, name)]) >= 2 * WORKERS
        end(run, reports[0].worker)
        assert run.wait(90) != 0
        clusters = subprocess.check_output([str(kind_program()), "get", "clusters"], text=True).split()
        assert [one for one in clusters if one.startswith(name)] == []
        assert [*marked(RUN, name)] == []
        assert [found.folder for found in reports if Path(found.folder).exists()] == []
    finally:
        run.kill()
        run.wait()
