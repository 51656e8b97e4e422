"""Maximal sets of languages that a node translates in all directions (requirement D5).

Bron-Kerbosch algorithm with pivots, on bit masks. A graph can have exponentially many maximal sets; the search then
ends early and its result is marked as truncated. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from hotpool.core.language_pairs import Grid, Pairs

MAX_LANGUAGES: Final = 512
"""Bound of the languages of one node; the first by name count."""
_MAX_SETS: Final = 1000
_MAX_STEPS: Final = 30_000
"""Bound of the steps of one search: about ten milliseconds."""


@dataclass(frozen=True, slots=True)
class LanguageSets:
    """Maximal sets, each in sorted order; `truncated`: there may be more."""

    sets: tuple[tuple[str, ...], ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class LanguageGraph:
    """Languages of a node paired in both directions, as bit masks, because thousands of sets are tested at a time."""

    codes: tuple[str, ...]
    """Languages in sorted order, at most MAX_LANGUAGES."""
    index_of: Mapping[str, int]
    """Language → its index in `codes`."""
    neighbours: tuple[int, ...]
    """For each language, the mask of the others with which it is paired in both directions."""
    truncated: bool
    """True if the node has more languages."""

    def connects(self, codes: AbstractSet[str]) -> bool:
        """Return True if all ordered pairs of these languages exist, and all languages are within the bound."""
        if not self.index_of.keys() >= codes:
            return False
        mask = 0
        for code in codes:
            mask |= 1 << self.index_of[code]
        return all(mask & ~self.neighbours[index] == 1 << index for index in map(self.index_of.__getitem__, codes))


def language_graph(pairs: Pairs) -> LanguageGraph:
    """Build the graph of a node's pairs, in time linear in the size of its rules."""
    languages = sorted(pairs.sources & pairs.targets)
    codes = tuple(languages[:MAX_LANGUAGES])
    index_of = {code: index for index, code in enumerate(codes)}
    return LanguageGraph(codes, index_of, tuple(_neighbour_masks(pairs, codes)), truncated=len(languages) > len(codes))


def language_sets(graph: LanguageGraph, min_size: int) -> LanguageSets:
    """Return the maximal sets of at least `min_size` languages, all of whose ordered pairs exist."""
    search = _CliqueSearch(graph.neighbours, min_size)
    search.run()
    sets = tuple(tuple(graph.codes[index] for index in _bits(mask)) for mask in search.cliques)
    return LanguageSets(sets, truncated=search.truncated or graph.truncated)


def _neighbour_masks(pairs: Pairs, codes: Sequence[str]) -> list[int]:
    bit_of = {code: 1 << index for index, code in enumerate(codes)}
    outgoing, incoming = dict.fromkeys(codes, 0), dict.fromkeys(codes, 0)
    for grid in pairs.grids:
        _add_grid(grid, bit_of, outgoing, incoming)
    for source, target in pairs.single:
        if source in bit_of and target in bit_of:
            outgoing[source] |= bit_of[target]
            incoming[target] |= bit_of[source]
    return [outgoing[code] & incoming[code] & ~bit_of[code] for code in codes]


def _add_grid(grid: Grid, bit_of: dict[str, int], outgoing: dict[str, int], incoming: dict[str, int]) -> None:
    blocked_out: dict[str, int] = defaultdict(int)
    blocked_in: dict[str, int] = defaultdict(int)
    for source, target in grid.blocked:
        blocked_out[source] |= bit_of.get(target, 0)
        blocked_in[target] |= bit_of.get(source, 0)
    sources, targets = _mask(grid.sources, bit_of), _mask(grid.targets, bit_of)
    for source in grid.sources & bit_of.keys():
        outgoing[source] |= targets & ~blocked_out[source]
    for target in grid.targets & bit_of.keys():
        incoming[target] |= sources & ~blocked_in[target]


def _mask(codes: Iterable[str], bit_of: dict[str, int]) -> int:
    mask = 0
    for code in codes:
        mask |= bit_of.get(code, 0)
    return mask


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class _CliqueSearch:
    """One bounded search for the maximal cliques of a graph given as neighbour masks."""

    def __init__(self, neighbours: Sequence[int], min_size: int) -> None:
        self._neighbours = neighbours
        self._min_size = min_size
        self._steps = 0
        self.cliques: list[int] = []
        """Masks of the maximal cliques found."""
        self.truncated = False

    def run(self) -> None:
        """Find all maximal cliques, or as many as the bounds allow. The result for a graph is deterministic."""
        stack = [(0, (1 << len(self._neighbours)) - 1, 0)]
        while stack:
            if self._steps > _MAX_STEPS or len(self.cliques) >= _MAX_SETS:
                self.truncated = True
                return
            clique, candidates, excluded = stack.pop()
            if not candidates and not excluded and clique.bit_count() >= self._min_size:
                self.cliques.append(clique)
            elif candidates and (clique | candidates).bit_count() >= self._min_size:
                stack.extend(self._branches(clique, candidates, excluded))

    def _branches(self, clique: int, candidates: int, excluded: int) -> Iterator[tuple[int, int, int]]:
        for index in _bits(candidates & ~self._neighbours[self._pivot(candidates, excluded)]):
            bit, neighbours = 1 << index, self._neighbours[index]
            self._steps += 1
            yield clique | bit, candidates & neighbours, excluded & neighbours
            candidates &= ~bit
            excluded |= bit

    def _pivot(self, candidates: int, excluded: int) -> int:
        """Return the language that leaves the fewest branches; stop at the first that leaves only itself."""
        best, most = -1, -1
        enough = candidates.bit_count() - 1
        for index in _bits(candidates | excluded):
            self._steps += 1
            degree = (candidates & self._neighbours[index]).bit_count()
            if degree > most:
                best, most = index, degree
            if degree >= enough:
                break
        return best
