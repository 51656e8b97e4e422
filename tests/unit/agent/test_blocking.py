"""Calls that hang (requirement A12): they take no thread of others, and do not keep the process from ending."""

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.hangs import hanging_file

from hotpool.common import threads
from hotpool_agent.blocking import SingleFlightRunner, UnpooledExecutor, run_blocking

SCRIPT = """\
import asyncio, pathlib, sys
from hotpool_agent.blocking import UnpooledExecutor

async def main():
    asyncio.get_running_loop().set_default_executor(UnpooledExecutor())
    hung = asyncio.create_task(asyncio.to_thread(pathlib.Path(sys.argv[1]).read_text))
    await asyncio.to_thread(print, "ended")

asyncio.run(main())
"""


async def test_calls_that_hang_take_no_thread_of_others(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(UnpooledExecutor())
    fifo = tmp_path / "fifo"
    with hanging_file(fifo):
        hung = [asyncio.create_task(asyncio.to_thread(fifo.read_bytes)) for _ in range(40)]
        async with asyncio.timeout(10):
            assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
            assert await asyncio.to_thread(len, "ab") == 2
        assert not any(task.done() for task in hung)
    await asyncio.gather(*hung, return_exceptions=True)


def test_a_call_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    with hanging_file(tmp_path / "fifo"):
        words = [sys.executable, "-c", SCRIPT, str(tmp_path / "fifo")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "ended\n"


async def test_one_thread_at_a_time_runs_for_a_key(tmp_path: Path) -> None:
    runner, fifo = SingleFlightRunner(), tmp_path / "fifo"
    with hanging_file(fifo):
        first = asyncio.create_task(runner.run("key", fifo.read_bytes))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runner.run("key", lambda: b"second"), 0.1)
        assert runner.is_running("key")
        assert await runner.run("other", lambda: 1) == 1
    await asyncio.gather(first, return_exceptions=True)
    assert not runner.is_running("key")
    assert await runner.run("key", lambda: b"third") == b"third"


async def test_an_error_of_a_call_is_raised_in_its_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await SingleFlightRunner().run("key", lambda: 1 // 0)


async def test_a_machine_without_free_threads_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads._IDLE.clear()  # noqa: SLF001
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="can't start new thread"):
        await run_blocking(lambda: None)
    with pytest.raises(OSError, match="can't start new thread"):
        await SingleFlightRunner().run("key", lambda: None)
