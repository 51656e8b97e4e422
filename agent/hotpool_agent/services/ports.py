"""Listeners on TCP ports of this machine (requirement A9). I/O, Linux."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"
_ANY: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - bound as a test, never listened on


def is_listening(port: int) -> bool:
    """Return True if any address of this machine has a listener on the port. A client's local port does not count."""
    # Binding takes microseconds, reading the kernel's tables ten milliseconds. A failed bind alone proves nothing: a
    # client may use the port, or the port may be privileged.
    if all(_can_bind(family, address, port) for family, address in _ANY):
        return False
    wanted = f":{port:04X}"
    return any(_has_listener(table, wanted) for table in _TABLES)


def owner(port: int) -> str:
    """Return the listener as text: pid and program, or `another process` without permission to see it."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            if connection.status == psutil.CONN_LISTEN and connection.pid and here and here.port == port:
                # A process name may be invalid UTF-8, which a report must not contain.
                name = psutil.Process(connection.pid).name().encode(errors="replace").decode()
                return f"process {connection.pid} ({name})"
    return "another process"


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        attempt = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return True  # Without IPv6 there is no listener on it.
    with attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            attempt.bind((address, port))
        except OSError:
            return False
    return True


def _has_listener(table: Path, wanted: str) -> bool:
    try:
        with table.open(encoding="ascii") as lines:
            return any((fields := line.split())[3] == _LISTEN and fields[1].endswith(wanted) for line in lines)
    except FileNotFoundError:
        return False
