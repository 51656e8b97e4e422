"""The oracle of Services: what clients of each pool's Service must see (requirement D12).

Naive and pure, over wire objects. It shares no code with `hotpool.core`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.model.endpoints import IN_RANGE, Outcome
from tests.model.membership import counted_services, meets

Json = dict[str, Any]
Place = tuple[str, int, str]
"""Type, port and address."""
Seen = dict[Place, tuple[bool, bool, bool]]
"""Place → ready, serving, terminating."""

_BEST_FIRST = ("Ready", "Suspect", "Draining")


def wanted_name(pool: Json) -> str | None:
    """Return the name of the Service that a pool asks for, or None."""
    service = pool["spec"].get("service")
    return (service.get("name") or str(pool["metadata"]["name"])) if service else None


def holders(pools: Mapping[str, Json]) -> dict[str, str]:
    """Return the pool that has each name: the oldest, then the first by name."""
    found: dict[str, str] = {}
    for name, body in sorted(
        pools.items(), key=lambda item: (item[1]["metadata"].get("creationTimestamp", ""), item[0])
    ):
        if (service := wanted_name(body)) is not None:
            found.setdefault(service, name)
    return found


def expected(
    pool: Json, members: Mapping[str, str], nodes: Mapping[str, Json], outcomes: Mapping[str, Outcome]
) -> Seen:
    """Return the endpoints of a pool's Service. `members`: node → state."""
    states: dict[Place, str] = {}
    for node, state in members.items():
        for place in _places(pool, nodes[node], outcomes[node]):
            states[place] = min(state, states.get(place, state), key=_BEST_FIRST.index)
    ready = {type_ for (type_, _, _), state in states.items() if state == "Ready"}
    return {place: _conditions(state, is_last=place[0] not in ready) for place, state in states.items()}


def _conditions(state: str, *, is_last: bool) -> tuple[bool, bool, bool]:
    used = state == "Ready" or (state == "Suspect" and is_last)
    return used, used, state == "Draining"


def _places(pool: Json, node: Json, outcome: Outcome) -> Iterator[Place]:
    ports = {port["type"] for port in pool["spec"]["service"]["ports"]}
    report = (node.get("status") or {}).get("report") or {"services": [], "capabilities": []}
    for need in (pool["spec"].get("requires") or {}).get("types") or ():
        for service in counted_services(report):
            if need["type"] in ports and meets(service, need) and service["id"] in outcome.usable:
                port, _, vouched = outcome.usable[service["id"]]
                allowed = [address for address in vouched if address in IN_RANGE]
                for family in (False, True):
                    yield from ((need["type"], port, a) for a in [a for a in allowed if (":" in a) == family][:1])
