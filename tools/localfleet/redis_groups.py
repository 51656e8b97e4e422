"""Groups of real servers on loopback: a Redis Cluster with replicas, and a master with a replica under a sentinel.

Their time-outs are short, for tests of failovers. Must not leave a process or a file behind.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from localfleet.redis_server import HOST, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

SERVICE: Final = "MyMaster"
_NODE_TIMEOUT_MS: Final = 1000
_DOWN_MS: Final = 500
_SLOTS: Final = 16_384
_FORM_SECONDS: Final = 60.0
_REPLICATION: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class GroupFailed(RuntimeError):  # noqa: N818 - what happened.
    """The group did not form in time."""


def _until(what: str, holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + _FORM_SECONDS
    while not holds():
        if time.monotonic() > ends:
            raise GroupFailed(f"no {what} within {_FORM_SECONDS:g} s")
        time.sleep(0.05)


class _Group:
    """Servers that live as long as its block."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class ClusterGroup(_Group):
    """Masters, each with a third of the slots and one replica. A lost shard does not stop the others."""

    def __init__(self, masters: int = 3) -> None:
        super().__init__()
        options: tuple[str, ...] = (
            "--cluster-node-timeout",
            str(_NODE_TIMEOUT_MS),
            "--cluster-replica-validity-factor",
            "0",
        )
        options += ("--cluster-require-full-coverage", "no", *_REPLICATION)
        self.masters = [RedisServer(cluster=True, joins=True, options=options) for _ in range(masters)]
        self.replicas = [RedisServer(cluster=True, joins=True, options=options) for _ in range(masters)]

    @property
    def servers(self) -> list[RedisServer]:
        """All servers, masters first."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """URL of one node."""
        return self.masters[0].url

    def shard_of(self, key: str) -> tuple[RedisServer, RedisServer]:
        """Return the present master and the replica that hold a key. Both must run."""
        slot = int(self.masters[0].ask("CLUSTER", "KEYSLOT", key)[1:])
        place = next(number for number, last in enumerate(self._ends()) if slot <= last)
        shard = self.masters[place], self.replicas[place]
        return shard if is_master(shard[0]) else (shard[1], shard[0])

    def __enter__(self) -> Self:
        for server in self.servers:
            self._stack.enter_context(server)
        first = 0
        for master, last in zip(self.masters, self._ends(), strict=True):
            master.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            first = last + 1
        for number, server in enumerate(self.servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            self.masters[0].ask("CLUSTER", "MEET", HOST, str(server.port), str(server.bus_port))
        known = f"cluster_known_nodes:{len(self.servers)}".encode()
        _until("meeting", lambda: all(known in server.ask("CLUSTER", "INFO") for server in self.servers))
        for master, replica in zip(self.masters, self.replicas, strict=True):
            own = master.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode()
            _until("replica", lambda own=own, replica=replica: replica.ask("CLUSTER", "REPLICATE", own)[:1] == b"+")  # type: ignore[misc]
            _until("replication", lambda replica=replica: _replicates(replica))  # type: ignore[misc]
        ok = b"cluster_state:ok"
        _until("whole cluster", lambda: all(ok in server.ask("CLUSTER", "INFO") for server in self.servers))
        return self

    def _ends(self) -> list[int]:
        """Return the last slot of each master."""
        return [_SLOTS * (number + 1) // len(self.masters) - 1 for number in range(len(self.masters))]


class SentinelGroup(_Group):
    """A master and a replica, monitored by one sentinel as the service SERVICE."""

    def __init__(self) -> None:
        super().__init__()
        self.master = RedisServer(options=_REPLICATION)
        self.replica = RedisServer(options=_REPLICATION)
        self.sentinel = _Sentinel(self.master)

    def __enter__(self) -> Self:
        for server in (self.master, self.replica):
            self._stack.enter_context(server)
        self.replica.ask("REPLICAOF", HOST, str(self.master.port))
        _until("replication", lambda: _replicates(self.replica))
        self._stack.enter_context(self.sentinel)
        _until("known replica", lambda: b"slaves=1" in self.sentinel.ask("INFO", "sentinel"))
        return self

    def watch_through(self, master_port: int, replica_port: int) -> None:
        """Make the sentinel, and so its clients, reach the servers by other ports."""
        self.master.ask("CONFIG", "SET", "replica-announce-port", str(master_port))
        self.replica.ask("CONFIG", "SET", "replica-announce-port", str(replica_port))
        self.replica.ask("REPLICAOF", HOST, str(master_port))
        _until("replication", lambda: _replicates(self.replica))
        self.sentinel.ask("SENTINEL", "REMOVE", SERVICE)
        self.sentinel.ask("SENTINEL", "MONITOR", SERVICE, HOST, str(master_port), "1")
        self.sentinel.ask("SENTINEL", "SET", SERVICE, "down-after-milliseconds", str(_DOWN_MS))
        _until("known replica", lambda: b"slaves=1" in self.sentinel.ask("INFO", "sentinel"))


class _Sentinel(RedisServer):
    """The sentinel's own process: the same program."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self._master = master

    def _command(self) -> list[str]:
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self._directory}",
            f"sentinel monitor {SERVICE} {HOST} {self._master.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_MS}",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        words = super()._command()
        file = Path(words[words.index("--dir") + 1]) / "sentinel.conf"
        file.write_text("\n".join(lines) + "\n")
        return [*words[: words.index("--port")], str(file), "--sentinel", "--set-proc-title", "no"]


def is_master(server: RedisServer) -> bool:
    """Return True if a server is a master. A server that changes its role closes connections, and is none yet."""
    with suppress(ConnectionError):
        return b"role:master" in server.ask("INFO", "replication")
    return False


def _replicates(server: RedisServer) -> bool:
    return b"master_link_status:up" in server.ask("INFO", "replication")
