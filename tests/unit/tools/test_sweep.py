"""Clean-up of a test run: processes with its mark in their environment."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from localfleet.redis_server import RedisServer
from localfleet.sweep import RUN, sweep

RUN_OF_OURS, OTHER_RUN = f"sweep-{os.getpid()}", f"sweep-{os.getpid()}-2"
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
time.sleep(600)
"""
SWEEPER = """
import sys
from localfleet.sweep import sweep
sweep(sys.argv[1])
print("lives")
"""


@pytest.fixture
def start() -> Iterator[Callable[[str], tuple[int, int]]]:
    """A function that starts a process of a run, which ignores SIGTERM, and its child in a session of its own."""
    with ExitStack() as stack:

        def start_process(run: str) -> tuple[int, int]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", STUBBORN], env={**os.environ, RUN: run}, stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            assert process.stdout
            return process.pid, int(process.stdout.readline())

        yield start_process
        sweep(OTHER_RUN)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_every_process_of_the_run_is_ended_and_no_other(start: Callable[[str], tuple[int, int]]) -> None:
    ours, others = start(RUN_OF_OURS), start(OTHER_RUN)
    sweep(RUN_OF_OURS)
    assert [lives(pid) for pid in (*ours, *others)] == [False, False, True, True]


def test_a_redis_is_ended_although_a_server_may_overwrite_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN, RUN_OF_OURS)
    with RedisServer() as server:
        sweep(RUN_OF_OURS)
        assert not server.running


def test_the_sweeping_process_itself_is_not_ended() -> None:
    environment = {**os.environ, RUN: RUN_OF_OURS, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SWEEPER, RUN_OF_OURS]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "lives\n"
