"""Standard error that never raises and never blocks (requirement A12), on real descriptors."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.support.agent_run import eventually

from hotpool.common import lossy_stream
from hotpool.common.lossy_stream import QUEUED_TEXTS, LossyStream

LINES = "".join(f"{number:09}\n" for number in range(1500))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int, LossyStream]]:
    """Provide the two ends of a pipe, and a stream that writes to it."""
    reader, writer = os.pipe()
    stream = LossyStream(writer)
    yield reader, writer, stream
    os.close(reader)
    stream.drain(10)
    os.close(writer)


def test_text_is_written_in_order_whatever_its_characters(pipe: tuple[int, int, LossyStream]) -> None:
    reader, _, stream = pipe
    print("one", file=stream, flush=True)
    print("two 🏆 \ud83c", file=stream)
    stream.drain(10)
    assert os.read(reader, 100).decode() == "one\ntwo 🏆 \\ud83c\n"
    assert stream.lost == 0


def test_error_messages_of_commands_are_written(
    pipe: tuple[int, int, LossyStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, _, stream = pipe
    monkeypatch.setattr(sys, "stderr", stream)
    click.echo("one", err=True)
    stream.drain(10)
    assert os.read(reader, 100) == b"one\n"


def test_lines_for_a_full_disk_are_lost_and_counted() -> None:
    with Path("/dev/full").open("wb", buffering=0) as disk:
        stream = LossyStream(disk.fileno())
        stream.write("one\ntwo\n")
        stream.write("three\n")
        stream.drain(10)
    assert stream.lost == 3


async def test_a_pipe_that_is_not_read_delays_no_writer_and_the_oldest_lines_are_kept(
    pipe: tuple[int, int, LossyStream],
) -> None:
    reader, _, stream = pipe
    while stream.lost == 0:
        stream.write(LINES)
    stream.drain(0)  # Returns although nothing can be written.
    assert os.read(reader, len(LINES)).decode() == LINES


async def test_lines_for_a_broken_pipe_are_lost_and_counted(pipe: tuple[int, int, LossyStream]) -> None:
    reader, _, stream = pipe
    beyond = os.open(os.devnull, os.O_RDONLY)
    os.dup2(beyond, reader)  # Closes the only reader.
    os.close(beyond)
    for _ in range(QUEUED_TEXTS):
        stream.write("a line\n")
    await eventually(lambda: stream.lost == QUEUED_TEXTS)


def test_a_pipe_that_another_program_made_non_blocking_loses_nothing(pipe: tuple[int, int, LossyStream]) -> None:
    reader, writer, stream = pipe
    os.set_blocking(writer, False)
    for _ in range(10):  # More than a pipe holds.
        stream.write(LINES)
    found = b""
    while len(found) < 10 * len(LINES):
        found += os.read(reader, 65536)
    assert (found.decode(), stream.lost) == (10 * LINES, 0)


def test_a_program_without_standard_error_loses_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr("atexit.register", lambda _: None)
    stream = lossy_stream.protect_stderr()
    assert lossy_stream.protect_stderr() is stream
    sys.stderr.write("one\n")
    stream.drain(10)
    assert lossy_stream.lost_lines() == 1
