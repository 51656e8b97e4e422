"""A node's last transitions as Redis holds them (requirement F2): each one JSON, newest first, at most KEPT.

Written by the writer's server-side functions, read by the look-up client. Pure. They are kept nowhere else: a flush or
the loss of Redis loses them, and nothing else than `why` misses them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hotpool.core.node_history import Transition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEPT: Final = 10
"""As in lua/nodes.lua."""


def encoded(transition: Transition) -> str:
    """Return one transition as it is stored: no two of a node are equal, since each says when it was."""
    told = {
        "at": transition.at,
        "from": transition.before,
        "to": transition.after,
        "gained": list(transition.gained),
        "lost": dict(transition.lost),
    }
    return json.dumps(told, separators=(",", ":"))


def decoded(value: str) -> Transition:
    """Return one stored transition. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    told = json.loads(value)
    lost = {str(type_): str(reason) for type_, reason in told["lost"].items()}
    return Transition(told["at"], told["from"], told["to"], tuple(told["gained"]), lost)


def readable(values: Iterable[str]) -> Iterator[Transition]:
    """Yield the stored transitions, without what nobody of ours wrote."""
    for value in values:
        with suppress(ValueError, LookupError, TypeError, AttributeError):
            yield decoded(value)
