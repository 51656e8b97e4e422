"""Portions of the contents that a drift check compares, in rotation.

Pure: must not import redis or do I/O.
"""

from collections.abc import Iterator, Mapping

from hotpool.projection.documents import NodeDocument, PoolDocument

NODES_PER_ROUND = 200
MEMBERS_PER_ROUND = 5_000
"""Members compared by name in each check. At 5 s per check, 1.3 million members take 22 minutes."""
POOLS_PER_CALL = 50
RANKS_PER_CALL = 500
"""Limit for all member sets of a call together, or for each set of a larger pool. Each call blocks the server."""


def batches(pools: Mapping[str, PoolDocument]) -> Iterator[list[str]]:
    """Yield lists of pools that have together at most RANKS_PER_CALL members. A larger pool is a list of its own."""
    names: list[str] = []
    members = 0
    for name, document in pools.items():
        members += sum(map(len, document.members))
        if names and (members > RANKS_PER_CALL or len(names) == POOLS_PER_CALL):
            yield names
            names, members = [], sum(map(len, document.members))
        names.append(name)
    if names:
        yield names


class Rotation:
    """Order in which the contents of pools and nodes are compared."""

    def __init__(self) -> None:
        self._pools: list[str] = []
        self._nodes: list[str] = []

    def next_pools(self, desired: Mapping[str, PoolDocument]) -> list[str]:
        """Return the next pools with together at most MEMBERS_PER_ROUND members, at least one pool."""
        self._pools = self._pools or list(desired)
        chosen: list[str] = []
        members = 0
        while self._pools:
            document = desired.get(self._pools[-1])
            members += sum(map(len, document.members)) if document else 0
            if chosen and members > MEMBERS_PER_ROUND:
                break
            name = self._pools.pop()
            chosen += [name] if document else []
        return chosen

    def next_nodes(self, desired: Mapping[str, NodeDocument]) -> list[str]:
        """Return the next nodes, at most NODES_PER_ROUND."""
        self._nodes = self._nodes or list(desired)
        chosen, self._nodes = self._nodes[-NODES_PER_ROUND:], self._nodes[:-NODES_PER_ROUND]
        return [name for name in chosen if name in desired]
