"""Parser of the reply about the ledger of reservations (requirement C5)."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from hotpool.api.meta import timestamp
from hotpool.core.drain import Ledger
from hotpool.projection.connection.config import to_text

NODES_PER_CALL: Final = 500
LEDGER_WINDOW: Final = 1000
"""Number of entries that one call looks at, from each of two ranks (lua/drain.lua)."""
_ROUNDING: Final = 1e-6
"""Error that may remain of a sum of doubles."""


def parse_ledger(reply: Sequence[Any], nodes: Sequence[str]) -> Ledger:
    """Return the ledger, with the use of these nodes."""
    age, longest, total, reserved, uses = reply
    weights, expiries = uses[::2], uses[1::2]
    return Ledger(
        age=int(age) / 1000,
        longest=int(longest) / 1000,
        total=int(total),
        reserved=frozenset(map(to_text, reserved)),
        in_use={
            node: max(0, math.ceil(float(weight) - _ROUNDING)) for node, weight in zip(nodes, weights, strict=True)
        },
        last_expiry={
            node: timestamp(datetime.fromtimestamp(int(expiry) / 1000, UTC))
            for node, expiry in zip(nodes, expiries, strict=True)
            if int(expiry)
        },
    )


def merge_ledgers(parts: Sequence[Ledger]) -> Ledger:
    """Return the ledger of several calls: the least age, and the uses of all nodes."""
    return Ledger(
        age=min(part.age for part in parts),
        longest=max(part.longest for part in parts),
        total=max(part.total for part in parts),
        reserved=frozenset[str]().union(*(part.reserved for part in parts)),
        in_use={node: use for part in parts for node, use in part.in_use.items()},
        last_expiry={node: expiry for part in parts for node, expiry in part.last_expiry.items()},
    )
