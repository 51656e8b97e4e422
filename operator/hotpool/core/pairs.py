"""The directed language pairs of a node as one small value: rules, not a product of sources and targets.

Made by `core.languages`, asked by the judge, the state and generators. 512 languages are some sets of 512 codes and
never 261,632 strings. Equal values are one object, so that equal nodes share it. Pure.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

Pair = tuple[str, str]
"""Source and target."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Every source with every target, but the blocked pairs and those of one language."""

    sources: frozenset[str]
    targets: frozenset[str]
    blocked: frozenset[Pair] = frozenset()
    """Only pairs that the grid would have: more would make equal grids unequal."""

    def reachable_targets(self) -> frozenset[str]:
        """The targets that have a source."""
        blocked = Counter(target for _, target in self.blocked)
        total = len(self.sources)
        return frozenset(t for t in self.targets if total - (t in self.sources) > blocked[t])


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Pairs:
    """What a node translates. Equal where rules and languages are equal; false where there is no pair."""

    grids: frozenset[Grid] = frozenset()
    single: frozenset[Pair] = frozenset()
    targets: frozenset[str] = field(default=frozenset(), compare=False)
    """The targets with at least one source."""

    def __contains__(self, pair: object) -> bool:
        source, _, target = pair.partition("-") if isinstance(pair, str) else ("", "", "")
        return source != target and self._has(source, target)

    def __bool__(self) -> bool:
        return bool(self.targets)

    def __iter__(self) -> Iterator[str]:
        """All pairs `src-tgt` in sorted order, one source at a time."""
        rows = [(grid, _by_source(grid.blocked)) for grid in self.grids]
        single = _by_source(self.single)
        for source in sorted(self.sources):
            found = set(single.get(source, ()))
            for grid, blocked in rows:
                if source in grid.sources:
                    found |= grid.targets - blocked.get(source, frozenset()) - {source}
            yield from (sys.intern(f"{source}-{target}") for target in sorted(found))

    @property
    def sources(self) -> set[str]:
        """The languages that may have a target."""
        return {source for grid in self.grids for source in grid.sources} | {source for source, _ in self.single}

    def _has(self, source: str, target: str) -> bool:
        return (source, target) in self.single or any(
            source in grid.sources and target in grid.targets and (source, target) not in grid.blocked
            for grid in self.grids
        )


_CACHE: WeakValueDictionary[tuple[frozenset[Grid], frozenset[Pair]], Pairs] = WeakValueDictionary()
"""One object for equal values, for as long as somebody holds it."""


def pairs_of(grids: Iterable[Grid], single: Iterable[Pair]) -> Pairs:
    """The pairs of grids and of single pairs; what gives no pair makes no difference."""
    reached = {grid: targets for grid in grids if (targets := grid.reachable_targets())}
    inputs = frozenset(reached), frozenset(pair for pair in single if pair[0] != pair[1])
    known = _CACHE.get(inputs)
    if known is None:
        targets = frozenset().union(*reached.values(), (target for _, target in inputs[1]))
        known = _CACHE[inputs] = Pairs(*inputs, targets)
    return known


def _by_source(pairs: Iterable[Pair]) -> dict[str, set[str]]:
    """Source → targets."""
    rows: dict[str, set[str]] = defaultdict(set)
    for source, target in pairs:
        rows[source].add(target)
    return rows


NO_PAIRS = pairs_of((), ())
