"""Ports on 127.0.0.1 for the programs of clusters.

They lie below the ephemeral range: no outgoing connection (not even a client that retries while the API server is
down, which may connect to itself) can take one while its program is stopped. Must not bind a port for longer than the
check.
"""

import random
import socket
from collections.abc import Collection
from pathlib import Path

from localkube.errors import KindError

LOOPBACK = "127.0.0.1"
_FIRST = 24_000  # Lower ports are left to the servers that tests start beside a cluster.
_LAST = 60_000
_ENOUGH = 4_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int, taken: Collection[int]) -> list[int]:
    """Choose ports that no program listens on and that no other cluster has been given."""
    candidates = list(_candidates())
    random.SystemRandom().shuffle(candidates)
    chosen: list[int] = []
    for port in candidates:
        if port not in taken and is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise KindError(f"no {count} free ports on {LOOPBACK}")


def is_free(port: int) -> bool:
    """Return True if a program could listen on the port now."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Return True if a program listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _candidates() -> range:
    try:
        ephemeral = int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        ephemeral = _LAST
    return range(_FIRST, ephemeral if ephemeral > _FIRST + _ENOUGH else _LAST)
