"""Pid files of observed services (requirement A3)."""

import os
from pathlib import Path

import pytest

from hotpool_agent.probes.processes import by_pid_file


@pytest.mark.parametrize("more", ["", "\n", "\n/var/lib/postgresql\n1700000000\n5432\n", "\r\nsecond line", " \n"])
def test_the_first_line_of_a_pid_file_counts(tmp_path: Path, more: str) -> None:
    """As PostgreSQL's postmaster.pid, which has eight lines."""
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}{more}", encoding="ascii")
    assert by_pid_file(path, None).pid == os.getpid()


@pytest.mark.parametrize("text", ["", "\n12", "pid 12", "9" * 5000, "12 13"])
def test_a_pid_file_without_a_pid_in_its_first_line_is_a_failure(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text, encoding="ascii")
    result = by_pid_file(path, None)
    assert (result.ok, result.absent) == (False, len(text) > 64)
