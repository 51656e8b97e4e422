"""A network namespace of a test's own, with addresses that no other machine and no other test has."""

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest
from tests.support.not_run import not_run

_CLONE_NEWNET: Final = 0x40000000


def run_in_own_network(
    request: pytest.FixtureRequest,
    scenario: Callable[[], Coroutine[Any, Any, None]],
    *addresses: str,
    ports: Collection[int] = (),
) -> None:
    """Run a coroutine, and the processes that it starts, where only loopback and these addresses exist.

    Addresses have prefix lengths. All of them are on the interface `lo`, where the default routes lead, too. `ports`
    of 127.0.0.1 lead to the same ports outside. Does not run where the machine does not allow network namespaces.
    """
    with _forwarder() as outside:
        _run(request, scenario, addresses, ports, outside)


def _run(
    request: pytest.FixtureRequest,
    scenario: Callable[[], Coroutine[Any, Any, None]],
    addresses: Collection[str],
    ports: Collection[int],
    outside: asyncio.AbstractEventLoop,
) -> None:
    outcome: Future[None] = Future()
    servers: list[asyncio.Server] = []

    def run() -> None:
        try:
            _unshare()
            ip("link", "set", "lo", "up")
            for address in addresses:
                add(address)
            for family in ("-4", "-6"):
                ip(family, "route", "add", "default", "dev", "lo")
            for port in ports:
                listener = socket.create_server(("127.0.0.1", port))
                servers.append(asyncio.run_coroutine_threadsafe(_forward(listener, port), outside).result())
            outcome.set_result(asyncio.run(scenario()))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            outcome.set_exception(error)
        finally:
            for server in servers:
                outside.call_soon_threadsafe(server.close)

    # Only a thread enters the namespace: that of the process stays.
    thread = threading.Thread(target=run, name="own network")
    thread.start()
    thread.join()
    try:
        outcome.result()
    except PermissionError:
        not_run(request, "needs the right to create a network namespace")


@contextmanager
def _forwarder() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of the process's own network namespace."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="forwarder")
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _forward(listener: socket.socket, port: int) -> asyncio.Server:
    """Forward connections of a listener, whatever its network namespace, to a port of this one."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):  # cancelled at the end of the test
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))

    return await asyncio.start_server(accept, sock=listener)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def ip(*words: str) -> None:
    """Run `ip` in the network namespace of this thread."""
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S607 - as people do


def add(address: str, *more: str) -> None:
    """Add an address. `more`: further words, such as preferred_lft 0, which makes it deprecated."""
    family = ("-6",) if ":" in address else ("-4",)
    ip(*family, "address", "add", address, "dev", "lo", *(("nodad",) if ":" in address else ()), *more)


def remove(address: str) -> None:
    """Remove an address."""
    ip("address", "del", address, "dev", "lo")


def _unshare() -> None:
    """Put this thread into a network namespace of its own. Raises PermissionError."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise PermissionError(number, os.strerror(number))
