"""Log files of services stay bounded (real processes that write while their file is rotated), and can be read.

Requirements A11, F5.
"""

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from tests.support.agent_process import Command, finish, spawn
from tests.support.agent_run import eventually

from hotpool_agent.cli import logs
from hotpool_agent.cli.logs import Follower
from hotpool_agent.paths import log_file, log_folder, previous_log
from hotpool_agent.services import log_rotation
from hotpool_agent.services.log_rotation import rotate, rotate_forever

LIMIT: Final = 64 * 1024
ENDLESS: Final = """
import os, itertools
for number in itertools.count():
    os.write(1, b"%09d\\n" % number)
"""
ON_REQUEST: Final = """
import os, sys
number = 0
for count in sys.stdin:
    for _ in range(int(count)):
        os.write(1, b"%09d\\n" % number)
        number += 1
    os.write(2, b"done\\n")
"""


@contextmanager
def writer(path: Path, program: str, flags: int = os.O_APPEND) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process whose standard output is the file, as that of a service."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=handle, stderr=pipe) as process:
        os.close(handle)
        try:
            yield process
        finally:
            process.kill()


async def write(process: "subprocess.Popen[bytes]", lines: int) -> None:
    """Request lines from an ON_REQUEST process; return when it has written them."""
    assert process.stdin
    assert process.stderr
    process.stdin.write(b"%d\n" % lines)
    process.stdin.flush()
    assert await asyncio.to_thread(process.stderr.readline) == b"done\n"


def numbers(path: Path) -> list[int]:
    """Return the numbers in the file's complete lines."""
    return [int(line) for line in path.read_bytes().split(b"\n") if len(line) == 9]


def contiguous(found: list[int]) -> bool:
    return found == list(range(found[0], found[0] + len(found)))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def disk(folder: Path) -> int:
    """Return the bytes on disk of the folder's files."""
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())


async def test_a_rotation_under_a_writing_process_loses_at_most_what_came_between_copy_and_truncation(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.log"
    with writer(path, ENDLESS) as process:
        await eventually(lambda: path.stat().st_size > LIMIT, seconds=60)
        assert await asyncio.to_thread(rotate, path) is None
        await eventually(lambda: path.stat().st_size > LIMIT, seconds=60)
        process.kill()
        process.wait()
    kept, now = numbers(previous_log(path)), numbers(path)
    assert kept[0] == 0
    assert len(kept) > LIMIT // 20
    assert contiguous(kept)
    assert contiguous(now)
    assert now[0] > kept[-1]
    assert b"\0" not in path.read_bytes()


async def test_of_a_flood_only_the_end_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rotation, "_KEPT_BYTES", 200)
    path = tmp_path / "s.log"
    path.write_bytes(b"".join(b"%09d\n" % number for number in range(100)))
    assert rotate(path) is None
    assert numbers(previous_log(path)) == list(range(80, 100))
    assert path.stat().st_size == 0


async def test_a_file_without_a_writer_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    path.write_bytes(b"a\nb")
    assert rotate(path) is None
    assert (path.read_bytes(), previous_log(path).read_bytes()) == (b"", b"a\nb")
    assert names(tmp_path) == ["s.log", "s.log.1"]


@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["appends", "does not append"])
async def test_files_stay_bounded_while_a_service_writes_on_and_on(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "s.log"
    task = asyncio.create_task(rotate_forever(tmp_path, size=LIMIT, period=0.01))
    with writer(path, ON_REQUEST, flags) as process:
        for _ in range(20):
            before = _inode(previous_log(path))
            await write(process, LIMIT // 10 + 1)
            await eventually(lambda before=before: _inode(previous_log(path)) != before, seconds=60)  # type: ignore[misc]
            await eventually(lambda: path.stat().st_blocks * 512 < LIMIT, seconds=60)
    task.cancel()
    assert disk(tmp_path) < 3 * LIMIT
    assert contiguous(numbers(previous_log(path)))
    # A rotation may begin while the last lines are being written.
    written = previous_log(path).read_bytes() + path.read_bytes().lstrip(b"\0")
    assert int(written.split()[-1]) == 20 * (LIMIT // 10 + 1) - 1


async def test_a_small_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "small.log").write_bytes(b"x" * (LIMIT - 1))
    (tmp_path / "large.log").write_bytes(b"x" * LIMIT)
    task = asyncio.create_task(rotate_forever(tmp_path, size=LIMIT, period=0.01))
    await eventually(lambda: (tmp_path / "large.log").stat().st_size == 0)
    task.cancel()
    assert names(tmp_path) == ["large.log", "large.log.1", "small.log"]


async def test_on_a_full_disk_the_file_is_emptied_and_the_agent_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    previous_log(path).write_bytes(b"older\n")
    # Every write to this device fails as on a full disk.
    (tmp_path / "s.log.1.new").symlink_to("/dev/full")
    path.write_bytes(b"x" * LIMIT)
    task = asyncio.create_task(rotate_forever(tmp_path, size=LIMIT, period=0.01))
    await eventually(lambda: path.stat().st_size == 0)
    assert names(tmp_path) == ["s.log", "s.log.1"]
    assert previous_log(path).read_bytes() == b"older\n"
    # With free space the rotation keeps a copy again.
    path.write_bytes(b"y" * LIMIT)
    await eventually(lambda: previous_log(path).read_bytes() == b"y" * LIMIT)
    await eventually(lambda: path.stat().st_size == 0)
    assert not task.done()
    task.cancel()


async def test_an_error_with_one_file_or_the_folder_does_not_affect_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    task = asyncio.create_task(rotate_forever(folder, size=LIMIT, period=0.01))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.log").mkdir()
    (tmp_path / "new" / "b.log").symlink_to("nowhere")
    (tmp_path / "new" / "c.log").write_bytes(b"x" * LIMIT)
    previous_log(tmp_path / "new" / "c.log").mkdir()
    (tmp_path / "new" / "d.log").write_bytes(b"x" * LIMIT)
    (tmp_path / "new").rename(folder)
    await eventually(lambda: (folder / "d.log").stat().st_size == 0)
    assert previous_log(folder / "d.log").stat().st_size == LIMIT
    # Without a possible copy the content is dropped, so the file stays bounded.
    await eventually(lambda: (folder / "c.log").stat().st_size == 0)
    assert not task.done()
    task.cancel()


async def test_logs_prints_the_last_lines_or_the_previous_file_without_any_agent(
    tmp_path: Path, hotpool_agent: Command
) -> None:
    path = log_file(tmp_path / "state" / "n1", "s")
    path.parent.mkdir(parents=True)
    lines = [f"line {number} {'x' * 97}\n" for number in range(3000)]
    path.write_text("".join(lines) + "no end", encoding="utf-8")
    previous_log(path).write_text("older\n", encoding="utf-8")
    for options, expected in (
        ((), "".join(lines) + "no end"),
        (("-n", "2000"), "".join(lines[-1999:]) + "no end"),
        (("-n", "1"), "no end"),
        (("-n", "9999"), "".join(lines) + "no end"),
        (("-n", "0"), ""),
        (("--previous",), "older\n"),
        (("-p", "-n", "1"), "older\n"),
    ):
        result = await hotpool_agent("logs", "s", "--node", "n1", *options)
        assert (result.code, result.out == expected, result.err) == (0, True, ""), options


async def test_logs_of_a_missing_service_lists_the_existing_logs(tmp_path: Path, hotpool_agent: Command) -> None:
    nothing = await hotpool_agent("logs", "s", "--node", "n1")
    assert (nothing.code, nothing.out) == (1, "")
    assert "--node" in nothing.err
    folder = log_folder(tmp_path / "state" / "n1")
    folder.mkdir(parents=True)
    (folder / "other.log").touch()
    unknown = await hotpool_agent("logs", "s", "--node", "n1")
    assert unknown.code == 1
    assert unknown.err.endswith("there are logs of: other\n")
    assert (await hotpool_agent("logs", "other", "-p", "--node", "n1")).code == 1
    for words in (("../../etc/x",), ("other", "-f", "-p"), ("other", "-n", "-1")):
        assert (await hotpool_agent("logs", *words, "--node", "n1")).code == 2


async def test_logs_follows_a_file_across_its_rotation_and_misses_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = log_file(tmp_path / "state" / "n1", "s")
    with writer(path, ON_REQUEST) as service:
        await write(service, 5)
        process = await spawn(environment, "logs", "s", "-f", "-n", "2", "--node", "n1")
        assert process.stdout
        seen = [int(await asyncio.wait_for(process.stdout.readline(), 60)) for _ in range(2)]
        for round_ in range(1, 4):
            last = 5 + 100 * round_ - 1
            await write(service, 50)
            assert await asyncio.to_thread(rotate, path) is None
            await write(service, 50)
            await _read_up_to(process.stdout, seen, last)
        process.send_signal(signal.SIGINT)
        result = await finish(process)
    assert seen == list(range(3, 305))
    assert (result.code, result.out, result.err) == (130, "", "")


async def test_logs_follow_waits_for_a_slow_rotation_but_not_for_one_that_never_ends(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Between copy and truncation, the rotating agent first pauses for a second, and later dies."""
    path = log_file(tmp_path / "state" / "n1", "s")
    with writer(path, ON_REQUEST) as service:
        await write(service, 5)
        process = await spawn(environment, "logs", "s", "-f", "--node", "n1")
        assert process.stdout
        seen = [int(await asyncio.wait_for(process.stdout.readline(), 60)) for _ in range(5)]
        _copied(path)
        await asyncio.sleep(1)
        os.truncate(path, 0)
        await write(service, 50)
        await _read_up_to(process.stdout, seen, 54)
        _copied(path)
        await write(service, 50)
        await _read_up_to(process.stdout, seen, 104)
        process.send_signal(signal.SIGINT)
        await finish(process)
    assert seen == list(range(105))


async def test_logs_follow_repeats_nothing_when_the_previous_log_is_linked_and_its_mode_changes(
    tmp_path: Path,
) -> None:
    """As a backup does, or people who let others read it."""
    path, out = tmp_path / "s.log", io.BytesIO()
    path.write_bytes(b"1\n2\n")
    assert rotate(path) is None
    path.write_bytes(b"3\n")
    follower = Follower(path, None, out)
    follower.step()
    previous_log(path).chmod(0o640)
    follower.step()
    (tmp_path / "backup").hardlink_to(previous_log(path))
    follower.step()
    assert out.getvalue() == b"3\n"


async def test_logs_follow_starts_with_the_last_lines_of_a_file_that_is_rotated_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "s.log", io.BytesIO()
    path.write_bytes(b"1\n2\n")
    look, rotations = logs.last_lines, iter([rotate])

    def last_lines(file: Path, count: int) -> int:
        offset = look(file, count)
        for rotate_once in rotations:
            rotate_once(file)
            file.write_bytes(b"3\n4\n5\n")
        return offset

    monkeypatch.setattr(logs, "last_lines", last_lines)
    Follower(path, 2, out).step()
    assert out.getvalue() == b"4\n5\n"


async def _read_up_to(stdout: asyncio.StreamReader, seen: list[int], last: int) -> None:
    """Add the printed numbers up to `last`."""
    async with asyncio.timeout(60):
        while seen[-1] < last:
            seen.append(int(await stdout.readline()))


def _copied(path: Path) -> None:
    """Do the first half of a rotation."""
    fresh = path.with_name("fresh")
    shutil.copyfile(path, fresh)
    fresh.replace(previous_log(path))


def _inode(path: Path) -> int | None:
    with suppress(FileNotFoundError):
        return path.stat().st_ino
    return None
