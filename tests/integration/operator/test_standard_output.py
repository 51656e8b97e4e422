"""Both programs on any terminal, with any reader, and for a user without a home directory (requirement F5)."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from localfleet.process import wait_for

AGENT: Final = (sys.executable, "-m", "hotpool_agent")
OPERATOR: Final = (sys.executable, "-m", "hotpool")
HELP: Final = [(*AGENT, "--help"), (*OPERATOR, "top", "--help")]
PAGE: Final = os.sysconf("SC_PAGESIZE")
NAME: Final = "模型é🏆"
HOMELESS: Final = """
import os, pwd, runpy, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a module for a user that the system does not know."""


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    entry = "- {id: s%d, type: asr, model: %s, run: {command: [sh]}}\n"
    path.write_text("version: 1\nservices:\n" + "".join(entry % (n, NAME) for n in range(9)), encoding="utf-8")
    return path


def run(
    *words: str, stdout: int = subprocess.PIPE, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    variables = os.environ | dict(environment or {})
    return subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, env=variables, check=False, timeout=60)


def words_of(catalogue: Path, form: str) -> tuple[str, ...]:
    return (*AGENT, "check", str(catalogue), "-o", form)


def with_closed_reader(*words: str) -> "subprocess.CompletedProcess[bytes]":
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return run(*words, stdout=writer)
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", HELP, ids=lambda words: " ".join(words[2:]))
def test_a_reader_that_has_ended_ends_the_program_as_kubectl(words: tuple[str, ...]) -> None:
    result = with_closed_reader(*words)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_has_ended_ends_a_listing_without_a_traceback(catalogue: Path, form: str) -> None:
    result = with_closed_reader(*words_of(catalogue, form))
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_reader_that_has_ended_ends_the_output_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "n1" / "logs" / "s.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"line\n" * 100_000)
    monkeypatch.setenv("HOTPOOL_AGENT_STATE_DIR", str(tmp_path))
    result = with_closed_reader(*AGENT, "logs", "s", "--node", "n1")
    assert (result.returncode, result.stderr) == (141, b"")


def unread(reader: int) -> int:
    """Return the number of bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_ctrl_c_during_a_write_repeats_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of two pages has written the first one when the signal ends it."""
    log = tmp_path / "n1" / "logs" / "s.log"
    log.parent.mkdir(parents=True)
    lines = b"".join(b"%07d\n" % number for number in range(2 * PAGE // 8))
    log.write_bytes(lines)
    monkeypatch.setenv("HOTPOOL_AGENT_STATE_DIR", str(tmp_path))
    reader, writer = os.pipe()
    assert fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE) == PAGE
    words = (*AGENT, "logs", "s", "-f", "--node", "n1")
    with subprocess.Popen(words, stdout=writer, stderr=subprocess.PIPE) as process, os.fdopen(reader, "rb") as output:
        os.close(writer)
        wait_for("the pipe is full", lambda: unread(reader) == PAGE)
        process.send_signal(signal.SIGINT)
        printed = output.read()
        assert process.stderr
        assert (process.wait(60), printed, process.stderr.read()) == (130, lines, b"")


@pytest.mark.parametrize("words", HELP, ids=lambda words: words[2])
def test_a_full_disk_is_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = run(*words, stdout=full.fileno())
    assert (result.returncode, result.stderr) == (1, b"cannot write to standard output: No space left on device\n")


def test_a_program_without_standard_output_ends_as_usual(catalogue: Path) -> None:
    for words in (*HELP, words_of(catalogue, "table")):
        result = run("sh", "-c", 'exec "$@" >&-', "sh", *words)
        assert (result.returncode, result.stderr) == (0, b""), words


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda values: " ".join(f"{name}={value}" for name, value in values.items()),
)
def test_names_in_other_scripts_are_printed_in_any_encoding(catalogue: Path, environment: dict[str, str]) -> None:
    table = run(*words_of(catalogue, "table"), environment=environment)
    assert (table.returncode, table.stderr) == (0, b"")
    assert len(table.stdout.splitlines()) == 10
    plain = run(*words_of(catalogue, "json"), environment=environment)
    assert (plain.returncode, plain.stderr) == (0, b"")
    assert {service["model"] for service in json.loads(plain.stdout)["services"]} == {NAME}


def on_terminal(program: str, **environment: str) -> bytes:
    """Run a Python program with standard error on a terminal; return what it writes there."""
    ours, theirs = pty.openpty()
    try:
        variables = os.environ | environment
        subprocess.run([sys.executable, "-c", program], stderr=theirs, env=variables, check=True, timeout=60)
        return os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    "configure",
    [
        "from hotpool.observability.logging_setup import configure; configure('info')",
        "from hotpool_agent.logging_setup import configure; configure()",
    ],
    ids=["hotpool", "hotpool-agent"],
)
def test_logs_on_a_terminal_have_colours_unless_no_color_is_set(configure: str) -> None:
    program = f"{configure}\nimport structlog; structlog.get_logger().info('hello')"
    assert b"\x1b[" in on_terminal(program, NO_COLOR="")
    plain = on_terminal(program, NO_COLOR="1")
    assert b"hello" in plain
    assert b"\x1b[" not in plain


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["hotpool_agent", "status", "--node", "n1"], 3, "no agent responds at /.local/state/hotpool-agent/n1/agent"),
        (["hotpool_agent", "run", "--pod-namespaces", "x", "--node", "n1"], 2, "no kubeconfig: ~"),
        (["hotpool", "top"], 3, "hotpool top: no kubeconfig: ~/.kube/config does not exist"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_user_without_a_home_directory_gets_one_line(
    tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    unset = {"HOME", "KUBECONFIG", "XDG_STATE_HOME", "HOTPOOL_AGENT_STATE_DIR"}
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    if "run" in words:
        variables["HOTPOOL_AGENT_STATE_DIR"] = str(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", HOMELESS, *words], capture_output=True, text=True, env=variables, check=False, timeout=60
    )
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_state_folder_of_an_unknown_user_is_a_usage_error() -> None:
    result = run(*AGENT, "status", "--node", "n1", environment={"HOTPOOL_AGENT_STATE_DIR": "~no-such-user/x"})
    assert result.returncode == 2
    assert result.stderr.startswith(b"~no-such-user/x")
    assert len(result.stderr.splitlines()) == 1


def test_a_state_folder_that_cannot_be_made_is_one_line(catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["run", "--catalogue", str(catalogue), "--node", "n1"]
    result = run(*AGENT, *words, environment={"HOTPOOL_AGENT_STATE_DIR": str(tmp_path / "file" / "x")})
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.endswith(b"Not a directory; set HOTPOOL_AGENT_STATE_DIR to another folder\n")
