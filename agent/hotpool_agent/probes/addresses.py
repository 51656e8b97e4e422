"""Addresses that a probe tries, and their results together as one (requirements A5, B13).

A service may listen on one loopback address only: `localhost` is ::1 for some programs, and 127.0.0.1 for others.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from hotpool_agent.probes.http_tcp import ProbeResult

LOOPBACKS: Final[tuple[str, ...]] = ("127.0.0.1", "::1")
_MAX_ADDRESSES: Final = 4


class TimeLimit:
    """Time limit of one probe, from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = asyncio.get_running_loop().time() + seconds
        """Time of the event loop."""

    def exceeded(self, what: str) -> ProbeResult:
        """Return the result of a probe that reached the limit."""
        return ProbeResult(ok=False, detail=f"{what} in {self.seconds:g} s")


def resolve(host: str) -> tuple[str, ...]:
    """Return the first addresses of a host name. Blocking: DNS may not answer. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))[:_MAX_ADDRESSES]


async def first_success(
    addresses: Sequence[str],
    attempt: Callable[[str], Awaitable[ProbeResult]],
    name: Callable[[str], str],
    limit: TimeLimit,
) -> ProbeResult:
    """Try the addresses in their order, and return the first success, or the failures of all as one.

    The next address is tried when one has failed, or has not answered in its share of the time: a port whose program
    hangs must not hide another program. `name`: address → its text in messages.
    """
    loop = asyncio.get_running_loop()
    share = (limit.deadline - loop.time()) / len(addresses)
    tasks: dict[str, asyncio.Task[ProbeResult]] = {}
    try:
        for index, address in enumerate(addresses):
            tasks[address] = asyncio.ensure_future(attempt(address))
            last = index == len(addresses) - 1
            until = limit.deadline if last else loop.time() + share
            if (success := await _success_until(tasks, until, at_each_end=not last)) is not None:
                return success
        return _failures({address: _result(task, name(address), limit) for address, task in tasks.items()})
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _success_until(
    tasks: Mapping[str, asyncio.Task[ProbeResult]], until: float, *, at_each_end: bool
) -> ProbeResult | None:
    """Return the first success. None: at the time `until`, when all have failed, or `at_each_end` of an attempt."""
    loop = asyncio.get_running_loop()
    ended_before = sum(task.done() for task in tasks.values())
    while True:
        running = [task for task in tasks.values() if not task.done()]
        ended = [task.result() for task in tasks.values() if task.done()]
        if success := next((result for result in ended if result.ok), None):
            return success
        if not running or loop.time() >= until or (at_each_end and len(ended) > ended_before):
            return None
        await asyncio.wait(running, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)


def _result(task: asyncio.Task[ProbeResult], name: str, limit: TimeLimit) -> ProbeResult:
    return task.result() if task.done() else limit.exceeded(f"{name}: no answer")


def _failures(results: dict[str, ProbeResult]) -> ProbeResult:
    return ProbeResult(
        ok=False,
        absent=all(result.absent for result in results.values()),
        detail="; ".join(result.detail for result in results.values()),
        volatile="; ".join(dict.fromkeys(result.volatile for result in results.values() if result.volatile)),
    )
