"""Lists of words in texts for people. Pure."""

from collections.abc import Iterable


def listed(words: Iterable[str], limit: int) -> str:
    """Join the first words, and the number of the others."""
    items = list(words)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
