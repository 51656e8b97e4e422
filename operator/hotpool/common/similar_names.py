"""Names that a person may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_MAX_NAMES: Final = 3


def similar_hint(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return `; similar: a, b` with the known names that are most similar to a word, empty if none is.

    `cutoff`: least similarity, 0 to 1.
    """
    similar = get_close_matches(word, list(known), _MAX_NAMES, cutoff)
    return f"; similar: {', '.join(similar)}" if similar else ""
