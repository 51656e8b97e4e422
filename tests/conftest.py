"""The test run: clean-up at its end, number of workers, and what all agents and logs under test have in common."""

import os
import socket
import sys
from typing import Any, Final

import psutil
import pytest
import structlog
from tests.support.not_run import pytest_terminal_summary
from tests.support.run import Run, end_on_signals

__all__ = ["pytest_terminal_summary"]


ADVERTISED: Final = "203.0.113.1"
"""Address of the agents under test: one for documentation, so that they connect to none of this machine's own."""


def refuse_documentation_addresses(event: str, args: tuple[Any, ...]) -> None:
    """Keep this process from connecting to the network of `ADVERTISED`, which a router may send anywhere.

    A datagram socket may: it only asks for the route, and sends nothing.
    """
    if event != "socket.connect" or args[0].type is not socket.SOCK_STREAM:
        return
    if isinstance(args[1], tuple) and str(args[1][0]).startswith("203.0.113."):
        raise ConnectionRefusedError(f"{args[1][0]} is for advertising alone: tests connect to loopback")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the run. Tracebacks are plain: the default prints every local variable, which takes seconds for a cache."""
    end_on_signals()
    sys.addaudithook(refuse_documentation_addresses)
    machine = {item.address for items in psutil.net_if_addrs().values() for item in items}
    assert ADVERTISED not in machine, "agents under test would connect to this machine's own address"
    os.environ["HOTPOOL_AGENT_ADVERTISE"] = ADVERTISED
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Run(config), "test-run")
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers: more than cores, because most tests wait for other processes."""
    return 2 * len(os.sched_getaffinity(0)) + 1
