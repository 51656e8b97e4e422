"""Format of a node's last transitions in Redis (F2): JSON each, newest first, at most MAX_TRANSITIONS.

Pure. Redis has the only copy: a flush or the loss of Redis deletes the history, which only `hotpool why` shows.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from hotpool.core.node_history import Transition

MAX_TRANSITIONS: Final = 10
"""Must equal the constant in lua/nodes.lua."""


def encode(transition: Transition) -> str:
    """Encode one transition. No two transitions of a node are equal, because each has its time."""
    fields = {
        "at": transition.at,
        "from": transition.before,
        "to": transition.after,
        "gained": list(transition.gained),
        "lost": dict(transition.lost),
    }
    return json.dumps(fields, separators=(",", ":"))


def decode(value: str) -> Transition:
    """Decode one transition. Raises ValueError, KeyError, TypeError or AttributeError for invalid input."""
    fields = json.loads(value)
    lost = {str(type_): str(reason) for type_, reason in fields["lost"].items()}
    return Transition(fields["at"], fields["from"], fields["to"], tuple(fields["gained"]), lost)


def decode_valid(values: Iterable[str]) -> Iterator[Transition]:
    """Decode the transitions that Redis holds of one node. Skip invalid ones."""
    for value in values:
        with suppress(ValueError, LookupError, TypeError, AttributeError):
            yield decode(value)
