"""The start of the demo: what is missing is said at once in one line, and one file makes its commands short."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.preflight import describe, only_demo, require_redis
from demo.shell import write_environment
from localfleet.kind import REPOSITORY
from localfleet.ports import free_port


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HOTPOOL_KIND", "no-such-kind", "no-such-kind: no such program; choose another with HOTPOOL_KIND"),
        ("HOTPOOL_HELM", "/no-such-helm", "/no-such-helm: no such program; build it with tools/kind build"),
        ("HOTPOOL_TEST_REDIS_URL", "redis://127.0.0.1:PORT", "$HOTPOOL_TEST_REDIS_URL leads to no Redis ("),
    ],
)
def test_what_is_missing_is_one_line_before_anything_starts(
    tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    for name in ("kind", "kubectl", "helm"):
        (tmp_path / name).touch(mode=0o755)
    found = {"HOTPOOL_KIND": str(tmp_path / "kind"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tools"), **found}
    environment[variable] = value.replace("PORT", str(free_port()))
    command = [sys.executable, "-m", "demo", "--once"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    failed, *rest = done.stdout.splitlines()
    assert failed.startswith(f"the demo failed: {expected}")
    assert rest == ["  removing everything ..."]


def test_a_second_demo_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    with only_demo(tmp_path), pytest.raises(RuntimeError, match="another demo of this user runs"), only_demo(tmp_path):
        pass
    with only_demo(tmp_path):
        pass


def test_a_redis_that_the_demo_starts_itself_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOTPOOL_TEST_REDIS_URL", raising=False)
    require_redis()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("kind create cluster: • Building\nERROR: Go is missing\nPut Go"), "Go is missing; Put Go"),
        (subprocess.CalledProcessError(2, ["/x/kubectl", "apply"]), "kubectl apply failed with exit code 2"),
        (OSError(28, "No space left on device", "/x"), "[Errno 28] No space left on device: '/x'"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_failure_is_one_line(error: Exception, line: str) -> None:
    assert describe(error).startswith(line)
    assert "\n" not in describe(error)


def test_a_sourced_file_sets_variables_and_puts_programs_first_on_path(tmp_path: Path) -> None:
    folder = tmp_path / "it's one folder"
    folder.mkdir()
    path = write_environment(folder, [folder, Path("/second")], {"HOTPOOL_REDIS_URL": "redis://h?a=$b"})
    script = f'source "{path}" && printf "%s\\n" "$DEMO" "$HOTPOOL_REDIS_URL" "$PATH"'
    bash = shutil.which("bash") or "bash"
    done = subprocess.run([bash, "-c", script], env={"PATH": "/last"}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(folder), "redis://h?a=$b", f"{folder}:/second:/last"]
