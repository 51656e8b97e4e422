"""A network namespace of a test's own, with addresses that no other machine and no other test has."""

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final

import pytest
from tests.support.not_run import not_run

_CLONE_NEWNET: Final = 0x40000000


def run_in_own_network(
    request: pytest.FixtureRequest, scenario: Callable[[], Coroutine[Any, Any, None]], *addresses: str
) -> None:
    """Run a coroutine, and the processes that it starts, where only loopback and these addresses exist.

    Addresses have prefix lengths. All of them are on the interface `lo`, where the default routes lead, too. Does not
    run where the machine does not allow network namespaces.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            _unshare()
            ip("link", "set", "lo", "up")
            for address in addresses:
                add(address)
            for family in ("-4", "-6"):
                ip(family, "route", "add", "default", "dev", "lo")
            outcome.set_result(asyncio.run(scenario()))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            outcome.set_exception(error)

    # Only a thread enters the namespace: that of the process stays.
    thread = threading.Thread(target=run, name="own network")
    thread.start()
    thread.join()
    try:
        outcome.result()
    except PermissionError:
        not_run(request, "needs the right to create a network namespace")


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
