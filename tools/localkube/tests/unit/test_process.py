"""Programs that are started, stopped and recognised, shown with /bin/sleep."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localkube.process import Launch, Process, State, identity, kill_orphans, wait_until


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    running = Process(tmp_path / "cluster", "sleeper")
    running.define(Launch(["/bin/sleep", "60"]))
    running.start()
    yield running
    running.stop(grace=0)


def _state(running: Process) -> State:
    return running.state


def _forge(running: Process, change: Callable[[str], str]) -> None:
    record = running._record_file  # noqa: SLF001 - as if another process now had the id.
    record.write_text(change(record.read_text()))


def test_a_stranger_with_the_same_id_is_not_ours_and_is_not_signalled(sleeper: Process) -> None:
    pid = sleeper.pid
    assert pid
    original = sleeper._record_file.read_text()  # noqa: SLF001 - as above.
    _forge(sleeper, lambda text: text.replace(str(identity(pid)), "another-boot/1"))
    assert _state(sleeper) is State.DEAD
    sleeper.stop(grace=0)
    assert identity(pid)
    _forge(sleeper, lambda _: original)
    assert _state(sleeper) is State.RUNNING


def test_stopped_on_purpose_is_not_dead_and_starts_again(sleeper: Process) -> None:
    sleeper.stop()
    assert _state(sleeper) is State.STOPPED
    sleeper.start()
    assert _state(sleeper) is State.RUNNING


@pytest.mark.parametrize("grace", [0, 5])
def test_a_process_that_ends_before_it_is_signalled_is_stopped(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    kill = os.kill

    def end_first(pid: int, number: int) -> None:
        kill(pid, signal.SIGKILL)
        assert wait_until(lambda: identity(pid) is None, 10)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", end_first)
    sleeper.stop(grace=grace)
    assert _state(sleeper) is State.STOPPED


def test_a_process_that_was_started_but_not_recorded_is_found(sleeper: Process, tmp_path: Path) -> None:
    pid = sleeper.pid
    assert pid
    kill_orphans(tmp_path / "other")
    assert identity(pid)
    kill_orphans(tmp_path / "cluster")
    assert identity(pid) is None
