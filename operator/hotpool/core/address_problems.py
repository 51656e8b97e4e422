"""Claimed addresses that are not used, as values and as text of conditions (requirement B13).

The text can be read back, because `hotpool why` has no other source for what only the leader can decide. Pure.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

ADDRESS_NOT_ALLOWED: Final = "AddressNotAllowed"
ADDRESS_CONFLICT: Final = "AddressConflict"
MAX_TEXT_LENGTH: Final = 4000
"""Bound of the text of all problems of one kind; less than a condition may have."""
_SEPARATOR: Final = "; "
SEVERAL_NODES: Final = "several other nodes"
"""Rival of a node in a conflict with more than one, in place of a name. No node has a blank in its name."""
_CONFLICT: Final = re.compile(rf"is claimed by ({SEVERAL_NODES}|\S+), too(?:, with (?:an equal|a better) right)?")
_ITEM: Final = re.compile(r"(?P<service>\S+) at \[?(?P<address>[0-9a-f:.]+)\]?:(?P<port>[0-9]+) (?P<reason>.+)")


class AddressProblem(NamedTuple):
    """Address and port that a service of a node claims, and that is not used for it."""

    service: str
    address: str
    port: int
    reason: str
    """Predicate of the address, such as "is link-local"."""
    rival: str | None = None
    """Node that claims the same address and port with a better or an equal right, or SEVERAL_NODES; None: it is not
    allowed.
    """


def conflict(service: str, address: str, port: int, rival: str, *, equal: bool | None) -> AddressProblem:
    """Return the problem of an address that another node claims with an equal right, or with a better one.

    `equal`: None if that is not said of several nodes.
    """
    right = "" if equal is None else ", with an equal right" if equal else ", with a better right"
    return AddressProblem(service, address, port, f"is claimed by {rival}, too{right}", rival)


def host_and_port(address: str, port: int) -> str:
    """Return `10.0.0.5:80` or `[2001:db8::5]:80`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def describe(problems: Iterable[AddressProblem]) -> str:
    """Return the problems in one line; the number of those for which it has no room is at its end."""
    texts = [f"{item.service} at {host_and_port(item.address, item.port)} {item.reason}" for item in problems]
    length = 0
    for index, text in enumerate(texts):
        length += len(text) + len(_SEPARATOR)
        if length > MAX_TEXT_LENGTH:
            return _SEPARATOR.join([*texts[:index], f"and {len(texts) - index} more"])
    return _SEPARATOR.join(texts)


def parse(text: str) -> Iterator[AddressProblem]:
    """Yield the problems of a text of `describe`. Skip all else: others may have written it."""
    for item in text.split(_SEPARATOR):
        if (found := _ITEM.fullmatch(item)) and len(found["port"]) <= len("65535"):
            service, address, port, reason = found.groups()
            rival = _CONFLICT.fullmatch(reason)
            yield AddressProblem(service, address, int(port), reason, rival[1] if rival else None)
