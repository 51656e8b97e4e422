"""Rights on the keys of waiting picks (lua/wakeups.lua), as arguments of `denied_commands`, and the numbers of waiters.

Pure: must not do I/O. A dispatcher imports it, too.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hotpool.projection.connection.config import to_text
from hotpool.projection.keys import FleetKeys


def wait_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of a client whose picks wait."""
    wakeups, waiters = keys.waiting
    of_stream = (f"XREAD STREAMS {wakeups} 0", f"PEXPIRE {wakeups} 1", f"UNLINK {wakeups}")
    return (*wake_commands(keys), *of_stream, f"HSET {waiters} 1 1", f"PEXPIRE {waiters} 1", f"UNLINK {waiters}")


def wake_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the command of a release that wakes waiting picks."""
    return (f"XADD {keys.waiting[0]} * 1 1",)


def operator_wait_commands(keys: FleetKeys) -> tuple[str, ...]:
    """Return the commands of the operator, which wakes waiting picks and counts them."""
    waiters = keys.waiting[1]
    return (*wake_commands(keys), f"HGETALL {waiters}", f"HDEL {waiters} 1")


def parse_waiters(reply: Sequence[Any]) -> dict[str, int]:
    """Return the number of waiting picks by pool, from pool and number of each client in turn."""
    counts: Counter[str] = Counter()
    for pool, number in zip(reply[::2], reply[1::2], strict=False):
        counts[to_text(pool)] += int(number)
    return dict(counts)
