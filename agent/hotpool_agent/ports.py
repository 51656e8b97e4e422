"""Who listens on a TCP port of this machine (behaviour A9). I/O, Linux; called by `supervise`."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"


def listening(port: int) -> bool:
    """Whether any address of this machine has a listener on the port; a client's own port does not count."""
    wanted = f":{port:04X}"
    return any(_has_listener(table, wanted) for table in _TABLES)


def owner(port: int) -> str:
    """Who listens there, for people: pid and program, or `another process` where that may not be seen."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            if connection.status == psutil.CONN_LISTEN and connection.pid and here and here.port == port:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def _has_listener(table: Path, wanted: str) -> bool:
    try:
        with table.open(encoding="ascii") as lines:
            return any((fields := line.split())[3] == _LISTEN and fields[1].endswith(wanted) for line in lines)
    except FileNotFoundError:
        return False
