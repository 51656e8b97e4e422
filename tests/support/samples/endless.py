"""Tests that do not end: each writes a report to the folder $READY, then waits for the end of its run.

pytest does not collect this file by its name. The tests of interrupted runs name it.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest


def hang(number: int, redis: str) -> None:
    """Create a process and a folder, report them, and wait."""
    folder = tempfile.mkdtemp()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    part = Path(os.environ["READY"]) / f"{number}.part"
    part.write_text("\n".join([str(os.getpid()), folder, redis]))
    part.rename(part.with_suffix(""))
    signal.pause()


@pytest.mark.parametrize("number", [1, 2])
def test_endless(redis_address: str, number: int) -> None:
    hang(number, redis_address)


@pytest.mark.parametrize("number", [1, 2])
def test_endless_on_a_cluster(kind_cluster: Any, redis_address: str, number: int) -> None:
    assert kind_cluster.name
    hang(number, redis_address)
