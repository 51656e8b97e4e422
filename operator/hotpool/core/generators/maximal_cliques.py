"""The largest sets of languages that a node translates in all directions (requirement D5).

Bron-Kerbosch with pivots over bit masks; a graph made to have exponentially many such sets ends the search early, which
is said and never hangs. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from hotpool.core.pairs import Grid, Pairs

MAX_LANGUAGES: Final = 512
"""Languages of one node that are looked at: the first by name."""
_MAX_SETS: Final = 1000
_MAX_WORK: Final = 30_000
"""Steps of one search: about ten milliseconds."""


@dataclass(frozen=True, slots=True)
class LanguageSets:
    """Maximal sets, each in sorted order; `cut`: there may be more."""

    sets: tuple[tuple[str, ...], ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class LanguageGraph:
    """Which languages of a node are paired in both directions, as bit masks: asked for thousands of sets at a time."""

    codes: tuple[str, ...]
    """The languages that are looked at, in sorted order."""
    bits: Mapping[str, int]
    """Language → its place in `codes`."""
    neighbours: tuple[int, ...]
    """For each language, as a mask, the others with which it is paired in both directions."""
    truncated: bool
    """True where the node has more languages than are looked at."""

    def connects(self, codes: AbstractSet[str]) -> bool:
        """Whether all ordered pairs of these languages are among the pairs, as far as they are looked at."""
        if not self.bits.keys() >= codes:
            return False
        wanted = 0
        for code in codes:
            wanted |= 1 << self.bits[code]
        return all(wanted & ~self.neighbours[bit] == 1 << bit for bit in map(self.bits.__getitem__, codes))


def language_graph(pairs: Pairs) -> LanguageGraph:
    """Time in proportion to the rules that the pairs are made of."""
    every = sorted(pairs.sources & pairs.targets)
    codes = tuple(every[:MAX_LANGUAGES])
    bits = {code: number for number, code in enumerate(codes)}
    return LanguageGraph(codes, bits, tuple(_neighbour_masks(pairs, codes)), truncated=len(every) > len(codes))


def language_sets(of: LanguageGraph, smallest: int) -> LanguageSets:
    """The maximal sets of at least `smallest` languages whose ordered pairs are all among the pairs."""
    search = _CliqueSearch(of.neighbours, smallest)
    search.run()
    found = tuple(tuple(of.codes[bit] for bit in _bits(mask)) for mask in search.found)
    return LanguageSets(found, truncated=search.truncated or of.truncated)


def _neighbour_masks(pairs: Pairs, codes: Sequence[str]) -> list[int]:
    bit = {code: 1 << number for number, code in enumerate(codes)}
    out, back = dict.fromkeys(codes, 0), dict.fromkeys(codes, 0)
    for grid in pairs.grids:
        _add_grid(grid, bit, out, back)
    for source, target in pairs.single:
        if source in bit and target in bit:
            out[source] |= bit[target]
            back[target] |= bit[source]
    return [out[code] & back[code] & ~bit[code] for code in codes]


def _add_grid(grid: Grid, bit: dict[str, int], out: dict[str, int], back: dict[str, int]) -> None:
    not_out: dict[str, int] = defaultdict(int)
    not_back: dict[str, int] = defaultdict(int)
    for source, target in grid.blocked:
        not_out[source] |= bit.get(target, 0)
        not_back[target] |= bit.get(source, 0)
    sources, targets = _mask(grid.sources, bit), _mask(grid.targets, bit)
    for source in grid.sources & bit.keys():
        out[source] |= targets & ~not_out[source]
    for target in grid.targets & bit.keys():
        back[target] |= sources & ~not_back[target]


def _mask(codes: Iterable[str], bit: dict[str, int]) -> int:
    mask = 0
    for code in codes:
        mask |= bit.get(code, 0)
    return mask


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class _CliqueSearch:
    def __init__(self, neighbours: Sequence[int], smallest: int) -> None:
        self._neighbours = neighbours
        self._smallest = smallest
        self._work = 0
        self.found: list[int] = []
        self.truncated = False

    def run(self) -> None:
        """Find all, or as many as the bounds allow; always the same ones for the same graph."""
        stack = [(0, (1 << len(self._neighbours)) - 1, 0)]
        while stack:
            if self._work > _MAX_WORK or len(self.found) >= _MAX_SETS:
                self.truncated = True
                return
            chosen, open_, closed = stack.pop()
            if not open_ and not closed and chosen.bit_count() >= self._smallest:
                self.found.append(chosen)
            elif open_ and (chosen | open_).bit_count() >= self._smallest:
                stack.extend(self._branches(chosen, open_, closed))

    def _branches(self, chosen: int, open_: int, closed: int) -> Iterator[tuple[int, int, int]]:
        for number in _bits(open_ & ~self._neighbours[self._pivot(open_, closed)]):
            bit, near = 1 << number, self._neighbours[number]
            self._work += 1
            yield chosen | bit, open_ & near, closed & near
            open_ &= ~bit
            closed |= bit

    def _pivot(self, open_: int, closed: int) -> int:
        """The language that leaves the fewest branches; the first that leaves none but itself is good enough."""
        best, most = -1, -1
        enough = open_.bit_count() - 1
        for number in _bits(open_ | closed):
            self._work += 1
            near = (open_ & self._neighbours[number]).bit_count()
            if near > most:
                best, most = number, near
            if near >= enough:
                break
        return best
