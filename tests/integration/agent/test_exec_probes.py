"""Exec probes (requirements A5, A12): exit codes, time limit, what is left of them. Real processes that really hang."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.support.agent_run import eventually
from tests.support.probing import observe_spec, running_prober, until_result

from hotpool_agent.catalogue.model import Observe
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober, Workplace

OK = ProbeResult(ok=True)


@pytest.fixture
async def prober(tmp_path: Path) -> AsyncIterator[Prober]:
    async with running_prober(tmp_path) as prober:
        yield prober


def shell(script: str, seconds: float = 20) -> Observe:
    """Return a probe that runs the script."""
    return observe_spec({"exec": {"command": ["sh", "-c", script]}}, seconds)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("script", "detail", "output"),
    [
        ("exit 0", "", ""),
        ("echo model; echo missing >&2; exit 3", "sh: exit code 3", "model missing"),
        ("kill -TERM $$", "sh: killed by SIGTERM", ""),
        ("exec >&- 2>&-; sleep 0.1; exit 4", "sh: exit code 4", ""),
        ("head -c 3000000 /dev/zero | tr '\\0' x; exit 5", "sh: exit code 5", "x" * 200 + "…"),
    ],
    ids=["success", "code", "signal", "closed output", "much output"],
)
async def test_only_exit_code_0_is_a_success(prober: Prober, script: str, detail: str, output: str) -> None:
    expected = ProbeResult(ok=not detail, detail=detail, volatile=output)
    assert await prober.probe(shell(script), None) == expected


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        (["./missing"], "./missing: cannot run: No such file or directory"),
        (["./text"], "./text: cannot run: Permission denied"),
        (["sh", "a\0b"], "sh: cannot run: embedded null byte"),
    ],
)
async def test_a_command_that_cannot_run_is_a_failure(
    prober: Prober, tmp_path: Path, command: list[str], detail: str
) -> None:
    (tmp_path / "text").touch(0o600)
    assert await prober.probe(observe_spec({"exec": {"command": command}}), None) == ProbeResult(
        ok=False, detail=detail
    )


async def test_a_command_runs_in_the_folder_and_with_the_variables_of_its_service(
    prober: Prober, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    script = tmp_path / "check"
    script.write_text('#!/bin/sh\ntest "$MODEL" = large && pwd > where\n')
    script.chmod(0o700)
    check = observe_spec({"exec": {"command": ["../check"]}})
    assert await prober.probe(check, None, Workplace("own", {"MODEL": "large"})) == OK
    assert (tmp_path / "own" / "where").read_text().strip() == str(tmp_path / "own")
    assert not (await prober.probe(check, None)).ok


async def test_a_command_that_hangs_is_killed_with_its_process_group(prober: Prober, tmp_path: Path) -> None:
    check = shell("sleep 600 & echo $! > child; echo $$ > leader; kill -STOP $$", 0.3)
    assert await prober.probe(check, None) == ProbeResult(ok=False, detail="sh: no end in 0.3 s")
    pids = [int((tmp_path / name).read_text()) for name in ("child", "leader")]
    await eventually(lambda: not any(map(alive, pids)))


async def test_nothing_of_a_command_remains_after_its_end(prober: Prober, tmp_path: Path) -> None:
    assert await prober.probe(shell("sleep 600 & echo $! > child"), None) == OK
    await eventually(lambda: not alive(int((tmp_path / "child").read_text())))


async def test_a_cancelled_probe_and_the_end_of_the_agent_kill_the_command(tmp_path: Path) -> None:
    leader = tmp_path / "leader"
    for cancelled in (True, False):
        async with running_prober(tmp_path) as prober:
            probing = asyncio.ensure_future(prober.probe(shell("echo $$ > new; mv new leader; exec sleep 600"), None))
            await eventually(leader.exists)
            if cancelled:
                probing.cancel()
            else:
                await prober.close()
            pid = int(leader.read_text())
            await eventually(lambda pid=pid: not alive(pid))  # type: ignore[misc]
            await asyncio.gather(probing, return_exceptions=True)
        leader.unlink()


async def test_a_command_that_cannot_be_killed_is_not_started_again_and_delays_no_other(
    prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = shell("echo $$ >> started; kill -STOP $$; exit 7", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda *_: None)  # Like a process in uninterruptible sleep.
        for _ in range(3):
            assert await prober.probe(check, None) == ProbeResult(ok=False, detail="sh: no end in 0.2 s")
            assert await prober.probe(shell("exit 0"), None) == OK
    (pid,) = map(int, (tmp_path / "started").read_text().split())
    os.kill(pid, signal.SIGKILL)
    await until_result(prober, check, lambda _: len((tmp_path / "started").read_text().split()) > 1)


async def test_many_commands_that_hang_delay_no_other_probe(prober: Prober, tmp_path: Path) -> None:
    (tmp_path / "beat").touch()
    hanging = [asyncio.ensure_future(prober.probe(shell(f"# {n}\nkill -STOP $$", 1), None)) for n in range(20)]
    await asyncio.sleep(0)
    assert await prober.probe(observe_spec({"file": {"path": "beat"}}), None) == OK
    assert await prober.probe(observe_spec({"process": {"name": Path(sys.executable).name}}), None)
    assert {result.detail for result in await asyncio.gather(*hanging)} == {"sh: no end in 1 s"}


async def test_a_child_that_another_part_reaped_is_no_success(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.waitid

    def waitid(kind: int, pid: int, options: int) -> os.waitid_result | None:
        status = original(kind, pid, options)
        if status is not None:
            os.waitpid(pid, 0)
            raise ChildProcessError
        return status

    monkeypatch.setattr(os, "waitid", waitid)
    assert await prober.probe(shell("exit 0"), None) == ProbeResult(ok=False, detail="sh: unknown exit code")
