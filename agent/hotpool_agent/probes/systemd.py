"""State of a systemd unit, read over D-Bus (requirement A3). I/O, any error is a failure.

It only reads, so it needs no privilege. The only module that knows D-Bus.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from dbus_fast import BusType, DBusError, DBusFastError, Message, MessageFlag, MessageType
from dbus_fast.aio import MessageBus

from hotpool_agent.probes.http_tcp import ProbeResult

_NAME: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_NO_SUCH_UNIT: Final = f"{_NAME}.NoSuchUnit"
_NO_SYSTEMD: Final = {"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"}
_RUNNING: Final = {"active", "reloading", "refreshing"}
"""States that `systemctl is-active` counts as active: a unit that reloads its configuration keeps running."""


@dataclass(eq=False)
class _Connection:
    """Open connection and the number of pending calls on it."""

    bus: MessageBus
    closed: asyncio.Task[None]
    """Task that ends with the connection."""
    pending: int = 0


class Systemd:
    """Client of the system's systemd, or of that of the agent's own user. One connection, opened when first needed."""

    def __init__(self, *, user: bool) -> None:
        self._user = user
        self._connection: _Connection | None = None
        self._open: set[_Connection] = set()
        self._opening = asyncio.Lock()

    async def probe(self, unit: str) -> ProbeResult:
        """Return the unit's state and its main process. Raises nothing but cancellation."""
        try:
            async with self._bus() as bus:
                return await _state(bus, unit)
        except (DBusFastError, OSError, EOFError) as error:
            return ProbeResult(ok=False, detail=f"{'user' if self._user else 'system'} bus: {_reason(error)}")

    async def close(self) -> None:
        """Close the connections."""
        self._connection = None
        connections = list(self._open)
        for connection in connections:
            connection.bus.disconnect()
        await asyncio.gather(*(connection.closed for connection in connections))

    @asynccontextmanager
    async def _bus(self) -> AsyncIterator[MessageBus]:
        """Provide the connection for one probe. If the probe fails or is cancelled, the next one gets a new connection.

        The old connection may have other pending probes, and is closed after the last of them.
        """
        connection = await self._connected()
        connection.pending += 1
        try:
            yield connection.bus
        except BaseException:
            if self._connection is connection:
                self._connection = None
            raise
        finally:
            connection.pending -= 1
            if self._connection is not connection and connection.pending == 0:
                connection.bus.disconnect()

    async def _connected(self) -> _Connection:
        async with self._opening:
            if self._connection is None or not self._connection.bus.connected:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        bus = MessageBus(_user_bus()) if self._user else MessageBus(bus_type=BusType.SYSTEM)
        await bus.connect()
        connection = _Connection(bus, asyncio.create_task(_wait_closed(bus)))
        self._open.add(connection)
        connection.closed.add_done_callback(lambda _: self._open.discard(connection))
        return connection


async def _state(bus: MessageBus, unit: str) -> ProbeResult:
    try:
        path = await _call(bus, _PATH, f"{_NAME}.Manager", "GetUnit", unit)
        state = await _property(bus, path, "Unit", "ActiveState")
        if state in _RUNNING:
            pid = await _property(bus, path, "Service", "MainPID") if unit.endswith(".service") else 0
            return ProbeResult(ok=True, pid=pid or None)
    except DBusError as error:
        if error.type in _NO_SYSTEMD:
            return ProbeResult(ok=False, detail="systemd is not on the bus")
        # systemd may not have loaded an inactive unit, even if its file exists.
        return ProbeResult(ok=False, absent=error.type == _NO_SUCH_UNIT, detail=f"{unit}: {error.text}")
    return ProbeResult(ok=False, absent=state == "inactive", conclusive=state == "failed", detail=f"{unit}: {state}")


async def _property(bus: MessageBus, path: str, interface: str, name: str) -> Any:
    value = await _call(bus, path, "org.freedesktop.DBus.Properties", "Get", f"{_NAME}.{interface}", name)
    return value.value


async def _call(bus: MessageBus, path: str, interface: str, member: str, *words: str) -> Any:
    """Call a method and return the first value of the reply. Raises DBusError for an error reply."""
    call = Message(
        destination=_NAME,
        path=path,
        interface=interface,
        member=member,
        flags=MessageFlag.NO_AUTOSTART,
        signature="s" * len(words),
        body=list(words),
    )
    reply = await bus.call(call)
    if reply.message_type is MessageType.ERROR:
        raise DBusError(reply.error_name or "", str(reply.body[0]) if reply.body else "", reply)
    return reply.body[0]


async def _wait_closed(bus: MessageBus) -> None:
    # Pending calls raise the reason of the end. Without pending calls it does not matter.
    with suppress(Exception):
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # has no annotations


def _user_bus() -> str:
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={quote(folder)}/bus"


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the connection was closed"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
