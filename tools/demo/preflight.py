"""Checks before the demo starts anything, and the text of what fails: one line that says what to do.

Must not start a process that outlives it.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from localfleet.chart import helm_program
from localfleet.kind import kind_program, kubectl_program

_REDIS_URL: Final = "HOTPOOL_TEST_REDIS_URL"
_REDIS_SECONDS: Final = 2.0
_LOCK: Final = "demo.lock"


def require_programs() -> tuple[Path, Path]:
    """Return kind and kubectl, built if they are missing. Raises OSError or CalledProcessError, also without helm."""
    kind = kind_program()
    kubectl = kubectl_program(kind)
    helm_program()
    return kind, kubectl


def require_redis() -> None:
    """Raise RuntimeError if $HOTPOOL_TEST_REDIS_URL is set and no Redis answers there."""
    url = os.environ.get(_REDIS_URL)
    if not url:
        return
    try:
        timeouts = {"socket_connect_timeout": _REDIS_SECONDS, "socket_timeout": _REDIS_SECONDS}
        with redis.Redis.from_url(url, **timeouts) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise RuntimeError(f"${_REDIS_URL} leads to no Redis ({error}): start it, or unset the variable") from None


@contextmanager
def only_demo(folder: Path) -> Iterator[None]:
    """Hold the lock of the demo, whose cluster has a fixed name. Raises RuntimeError if another demo holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another demo of this user runs: end it first (Ctrl-C in its terminal)") from None
        yield


def describe(error: BaseException) -> str:
    """Return one line for what failed."""
    if isinstance(error, subprocess.CalledProcessError):
        words = [error.cmd] if isinstance(error.cmd, str) else [str(word) for word in error.cmd]
        command = " ".join([Path(words[0]).name, *words[1:]])
        return f"{command} failed with exit code {error.returncode}; its message is above"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{error.cmd} did not end within {error.timeout:g} s"
    # A message of kind has its own reason after this word, below its progress.
    text = str(error).rpartition("ERROR: ")[2]
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__
