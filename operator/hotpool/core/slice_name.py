"""Names of slices: pool, dash, index. Pure."""

from typing import Final

_MAX_INDEX_DIGITS: Final = 9


def stem_and_index(name: str) -> tuple[str, int | None]:
    """Split a slice name: `zh-en-0` → `zh-en`, 0. The index is None if no pool names a slice like this."""
    stem, _, suffix = name.rpartition("-")
    canonical = stem and suffix.isdecimal() and len(suffix) <= _MAX_INDEX_DIGITS and str(int(suffix)) == suffix
    return stem, int(suffix) if canonical else None
