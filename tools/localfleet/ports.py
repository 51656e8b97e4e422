"""Ports for programs of this machine: no port is allocated twice, in this process or in two that run at a time.

A process leases a block of ports by binding its first one, for as long as it lives. Such a lease holds across users and
temporary folders, leaves no file behind, and ends with the process. The range is below the ports that the kernel uses
for outgoing connections, and below those of the local clusters.
"""

import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Final

RANGE: Final = range(10_240, 24_000)
_BLOCK: Final = 256
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class PortsExhaustedError(RuntimeError):
    """Every block is leased to others, or every port of this process's blocks is in use."""


class Ports:
    """Allocator of the ports of its blocks, each once; when all are used up, the least recently allocated first.

    `blocks`: in the order in which they are leased; the first port of each is the lease.
    """

    def __init__(self, blocks: Sequence[range]) -> None:
        self._leases: list[socket.socket] = []
        self._own: deque[int] = deque()
        """Ports of this process's blocks that were tried, the oldest first."""
        self._fresh = self._lease(blocks)
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return a port on which no program listens, at any address. Raises PortsExhaustedError."""
        with self._lock:
            for port in self._fresh:
                self._own.append(port)
                if _is_free(port):
                    return port
            for _ in range(len(self._own)):
                self._own.rotate(-1)
                if _is_free(self._own[-1]):
                    return self._own[-1]
        raise PortsExhaustedError(f"no free port in {RANGE.start}..{RANGE.stop - 1}")

    def close(self) -> None:
        """End the leases."""
        for lease in self._leases:
            lease.close()

    def _lease(self, blocks: Sequence[range]) -> Iterator[int]:
        for block in blocks:
            lease = socket.socket()
            try:
                lease.bind(("", block[0]))
            except OSError:
                lease.close()
                continue
            self._leases.append(lease)
            yield from block[1:]


def blocks(ephemeral: int) -> list[range]:
    """Return the blocks of the range, shuffled; those above the kernel's first ephemeral port come last."""
    found = [range(first, first + _BLOCK) for first in range(RANGE.start, RANGE.stop - _BLOCK + 1, _BLOCK)]
    # A former process may have left a client that still connects to one of its ports.
    SystemRandom().shuffle(found)
    return sorted(found, key=lambda block: block.stop > ephemeral)


def _first_ephemeral() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        return RANGE.stop


def _is_free(port: int) -> bool:
    """Return True if the port can be bound at every address of IPv4 and IPv6."""
    both = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if both else socket.AF_INET) as probe:
        if both:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


_PORTS: Final = Ports(blocks(_first_ephemeral()))


def free_port() -> int:
    """Return a port that no program listens on, and that no other process of this machine can allocate."""
    return _PORTS.take()
