"""The normal form of language codes (requirement B3).

Pure.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_ALIASES: Final = {
    "zh-cn": "zh",
    "zh-tw": "zh",
    "zh-hans": "zh",
    "zh-hant": "zh",
    "pt-br": "pt",
    "pt-pt": "pt",
    "en-us": "en",
    "en-gb": "en",
    "in": "id",
    "iw": "he",
}


@lru_cache(maxsize=4096)
def normalise_language(code: str) -> str | None:
    """The normal form of one code, or None for `auto`, which is no language."""
    lowered = code.strip().lower().replace("_", "-")
    return None if lowered in {"auto", ""} else _ALIASES.get(lowered, lowered)


def normalise_languages(codes: Iterable[str]) -> tuple[str, ...]:
    """The distinct normal forms, in the order of their first appearance."""
    return tuple(dict.fromkeys(code for raw in codes if (code := normalise_language(raw))))
