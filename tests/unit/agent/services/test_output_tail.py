"""Last output lines of a service, bounded and readable."""

import os
import threading
from pathlib import Path

import pytest
from tests.support.agent_run import eventually

from hotpool_agent.services.output_tail import last_lines, with_output


async def test_the_last_ten_lines_of_this_start_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("an earlier run\n" + "".join(f"line {number}\n" for number in range(12)), encoding="ascii")
    assert await last_lines(log, len("an earlier run\n")) == tuple(f"line {number}" for number in range(2, 12))
    assert (await last_lines(log, 0))[0] == "line 2"


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (b"\x1b[31mfailed\x1b[0m\x00\n", "failed"),
        (b" 10 %\r 20 %\r100 % done\r\n", "100 % done"),
        (b"\xff\xfe broken\n", "\ufffd\ufffd broken"),
        ("\u8a9e\u97f3".encode() + b"\xed\xa0\xbd", "\u8a9e\u97f3\ufffd\ufffd\ufffd"),
        (b"no newline", "no newline"),
        (b"\n\n  \n", None),
    ],
)
async def test_lines_are_text_without_escape_sequences(tmp_path: Path, written: bytes, line: str | None) -> None:
    log = tmp_path / "log"
    log.write_bytes(written)
    assert await last_lines(log, 0) == (() if line is None else (line,))


async def test_a_long_line_is_cut_to_its_end_and_to_1_kib(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("é" * 5000 + "end\n", encoding="utf-8")
    (line,) = await last_lines(log, 0)
    assert line.endswith("éend")
    assert len(line.encode()) <= 1024


async def test_a_rotated_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("new\n", encoding="ascii")
    assert await last_lines(log, 1000) == ("new",)
    assert await last_lines(log, len("new\n")) == ()


async def test_nothing_but_a_file_is_read(tmp_path: Path) -> None:
    assert await last_lines(tmp_path / "none", 0) == ()
    assert await last_lines(Path("/dev/urandom"), 0) == ()
    os.mkfifo(tmp_path / "pipe")
    assert await last_lines(tmp_path / "pipe", 0) == ()
    await eventually(lambda: "blocking call" not in {thread.name for thread in threading.enumerate()}, 5)


def test_an_error_with_output_fits_into_a_report_and_keeps_the_last_lines() -> None:
    assert with_output("exited with code 1", ("a", "b")) == "exited with code 1; last output: a | b"
    assert with_output(None, ("a",)) is None
    assert with_output("exited", ()) == "exited"
    long = with_output("e" * 900, ("x" * 500, "the last"))
    assert long is not None
    assert len(long) == 1024
    assert long.endswith("x | the last")
