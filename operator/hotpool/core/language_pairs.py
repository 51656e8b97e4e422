"""Directed language pairs of a node as a compact value: rules instead of the product of sources and targets.

512 languages take a few sets of 512 codes and never 261,632 strings. Equal values are one object, so that equal nodes
share it. Pure.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

Pair = tuple[str, str]
"""Source and target language."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Product of sources and targets, without blocked pairs and pairs of one language."""

    sources: frozenset[str]
    targets: frozenset[str]
    blocked: frozenset[Pair] = frozenset()
    """Only pairs that the grid would contain: with others, equal grids would compare unequal."""

    def reachable_targets(self) -> frozenset[str]:
        """Return the targets with at least one source."""
        blocked = Counter(target for _, target in self.blocked)
        total = len(self.sources)
        return frozenset(t for t in self.targets if total - (t in self.sources) > blocked[t])


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Pairs:
    """Pairs that a node translates. Equal if rules and languages are equal; false without any pair."""

    grids: frozenset[Grid] = frozenset()
    single: frozenset[Pair] = frozenset()
    targets: frozenset[str] = field(default=frozenset(), compare=False)
    """Targets with at least one source."""

    def __contains__(self, pair: object) -> bool:
        source, _, target = pair.partition("-") if isinstance(pair, str) else ("", "", "")
        return source != target and self._has(source, target)

    def __bool__(self) -> bool:
        return bool(self.targets)

    def __iter__(self) -> Iterator[str]:
        """Yield all pairs `src-tgt` in sorted order, one source at a time."""
        rows = [(grid, _by_source(grid.blocked)) for grid in self.grids]
        single = _by_source(self.single)
        for source in sorted(self.sources):
            targets = set(single.get(source, ()))
            for grid, blocked in rows:
                if source in grid.sources:
                    targets |= grid.targets - blocked.get(source, frozenset()) - {source}
            yield from (sys.intern(f"{source}-{target}") for target in sorted(targets))

    @property
    def sources(self) -> set[str]:
        """Languages that may have a target."""
        return {source for grid in self.grids for source in grid.sources} | {source for source, _ in self.single}

    def _has(self, source: str, target: str) -> bool:
        return (source, target) in self.single or any(
            source in grid.sources and target in grid.targets and (source, target) not in grid.blocked
            for grid in self.grids
        )


_CACHE: WeakValueDictionary[tuple[frozenset[Grid], frozenset[Pair]], Pairs] = WeakValueDictionary()
"""The only object of each value, while it is referenced."""


def pairs_of(grids: Iterable[Grid], single: Iterable[Pair]) -> Pairs:
    """Return the pairs of grids and single pairs. A grid or pair without effect does not change the result."""
    reachable = {grid: targets for grid in grids if (targets := grid.reachable_targets())}
    inputs = frozenset(reachable), frozenset(pair for pair in single if pair[0] != pair[1])
    known = _CACHE.get(inputs)
    if known is None:
        targets = frozenset().union(*reachable.values(), (target for _, target in inputs[1]))
        known = _CACHE[inputs] = Pairs(*inputs, targets)
    return known


def _by_source(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """Return source → targets."""
    rows: dict[str, set[str]] = defaultdict(set)
    for source, target in pairs:
        rows[source].add(target)
    return rows


NO_PAIRS = pairs_of((), ())
