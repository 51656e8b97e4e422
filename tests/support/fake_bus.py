"""A fake D-Bus daemon with systemd: real messages over a real unix socket, and units that a test sets.

It implements the calls that read a unit: SASL EXTERNAL, Hello, GetUnit, Properties.Get.
"""

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from dbus_fast import Message, MessageType, Variant

# The library has no public way to read a message that is not its own connection's.
from dbus_fast._private.unmarshaller import Unmarshaller

_FIXED_HEADER: Final = 16
_SYSTEMD: Final = "org.freedesktop.systemd1"
_ERROR: Final = "org.freedesktop.DBus.Error"


@dataclass
class Unit:
    """A unit that systemd has loaded."""

    state: str = "active"
    pid: int = 0


@dataclass
class FakeBus:
    """The daemon. Tests set `units` and faults, and read `calls`."""

    socket: Path
    units: dict[str, Unit] = field(default_factory=dict)
    systemd: bool = True
    """True if systemd is on the bus."""
    silent: set[str] = field(default_factory=set)
    """Messages without a reply: members of messages, `AUTH`, or units."""
    errors: dict[str, str] = field(default_factory=dict)
    """Member → the name of the error that it is answered with."""
    refused: bool = False
    """True if all clients are refused."""
    connections: int = 0
    """Number of connections so far."""
    calls: list[str] = field(default_factory=list)
    """Members of all messages, in order."""
    _server: asyncio.Server | None = None
    _clients: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Return the address, as in $DBUS_SYSTEM_BUS_ADDRESS."""
        return f"unix:path={self.socket}"

    @property
    def open(self) -> int:
        """Return the number of open connections."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen, for the first time or again."""
        self._server = await asyncio.start_unix_server(self._connected, self.socket)

    async def die(self) -> None:
        """Close the socket and every connection, as a daemon that is killed."""
        if self._server:
            self._server.close()
        self.socket.unlink(missing_ok=True)
        for writer in self._clients.values():
            writer.transport.abort()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.connections += 1
        self._clients[task] = writer
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._authenticate(reader, writer)
                await self._serve(reader, writer)
        finally:
            del self._clients[task]
            writer.close()

    async def _authenticate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(1) == b"\0"
        line = await reader.readuntil(b"\r\n")
        if "AUTH" in self.silent:
            await reader.read()
        user = str(os.getuid()).encode().hex().encode()
        if self.refused or line != b"AUTH EXTERNAL " + user + b"\r\n":
            writer.write(b"REJECTED EXTERNAL\r\n")
            raise ConnectionError
        writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        assert await reader.readuntil(b"\r\n") == b"BEGIN\r\n"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serial = 0
        while True:
            message = await _read(reader)
            self.calls.append(message.member or "")
            if self.silent & {message.member, *message.body}:
                continue
            serial += 1
            reply = self._reply(message)
            reply.serial = serial
            # The client has not negotiated unix file descriptors.
            writer.write(reply._marshall(False))  # noqa: SLF001 - as the import above

    def _reply(self, message: Message) -> Message:
        if message.member == "Hello":
            return Message.new_method_return(message, "s", [":1.1"])
        if error := self.errors.get(message.member or ""):
            return Message.new_error(message, error, "No.")
        if not self.systemd or message.destination != _SYSTEMD:
            return Message.new_error(message, f"{_ERROR}.NameHasNoOwner", "Could not get owner of name: no such name")
        if message.member == "GetUnit" and message.interface == f"{_SYSTEMD}.Manager":
            return self._unit(message, message.body[0])
        if message.member == "Get" and message.interface == "org.freedesktop.DBus.Properties":
            return self._property(message, *message.body)
        return Message.new_error(message, f"{_ERROR}.UnknownMethod", f"Unknown method {message.member}.")

    def _unit(self, message: Message, name: str) -> Message:
        if name not in self.units:
            return Message.new_error(message, f"{_SYSTEMD}.NoSuchUnit", f"Unit {name} not loaded.")
        return Message.new_method_return(message, "o", [_path(name)])

    def _property(self, message: Message, interface: str, name: str) -> Message:
        found = next((item for item in self.units.items() if _path(item[0]) == message.path), None)
        known: dict[tuple[str, str], Variant] = {}
        if found:
            known["Unit", "ActiveState"] = Variant("s", found[1].state)
            if found[0].endswith(".service"):
                known["Service", "MainPID"] = Variant("u", found[1].pid)
        value = known.get((interface.removeprefix(f"{_SYSTEMD}."), name))
        if value is None:
            return Message.new_error(message, f"{_ERROR}.UnknownProperty", f"Unknown interface {interface} or property")
        return Message.new_method_return(message, "v", [value])


@asynccontextmanager
async def fake_bus(folder: Path) -> AsyncIterator[FakeBus]:
    """Run a bus that listens in the folder."""
    bus = FakeBus(folder / "bus")
    await bus.start()
    try:
        yield bus
    finally:
        await bus.die()


async def _read(reader: asyncio.StreamReader) -> Message:
    head = await reader.readexactly(_FIXED_HEADER)
    body, fields = (struct.unpack_from("<I", head, offset)[0] for offset in (4, 12))
    rest = await reader.readexactly(-(-fields // 8) * 8 + body)
    stream: Any = BytesIO(head + rest)
    message = Unmarshaller(stream).unmarshall()
    assert message is not None
    assert message.message_type is MessageType.METHOD_CALL
    return message


def _path(unit: str) -> str:
    """Return the object path of a unit, escaped as by systemd."""
    escaped = "".join(letter if letter.isalnum() else f"_{ord(letter):02x}" for letter in unit)
    return f"/org/freedesktop/systemd1/unit/{escaped}"
