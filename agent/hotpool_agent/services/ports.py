"""Who listens on a TCP port of this machine (requirement A9). I/O, Linux; called by `supervise`."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"
_ANY: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - tried, never listened on


def is_listening(port: int) -> bool:
    """Whether any address of this machine has a listener on the port; a client's own port does not count."""
    # Binding takes microseconds, reading the kernel's tables ten milliseconds. That a port cannot be bound proves
    # nothing yet: a client may have it, or the port may be a privileged one.
    if all(_can_bind(family, address, port) for family, address in _ANY):
        return False
    wanted = f":{port:04X}"
    return any(_has_listener(table, wanted) for table in _TABLES)


def owner(port: int) -> str:
    """Who listens there, for people: pid and program, or `another process` where that may not be seen."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            if connection.status == psutil.CONN_LISTEN and connection.pid and here and here.port == port:
                # A process may call itself by bytes that are no text, which would spoil a report.
                name = psutil.Process(connection.pid).name().encode(errors="replace").decode()
                return f"process {connection.pid} ({name})"
    return "another process"


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        attempt = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return True  # Without IPv6 nobody listens on it.
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
