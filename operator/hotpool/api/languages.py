"""Normal form of language codes (requirement B3): pure."""

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
    """Return the normal form of a code, or None for `auto`, which is not a language."""
    lowered = code.strip().lower().replace("_", "-")
    return None if lowered in {"auto", ""} else _ALIASES.get(lowered, lowered)


def normalise_languages(codes: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct normal forms, in the order of their first appearance."""
    return tuple(dict.fromkeys(code for raw in codes if (code := normalise_language(raw))))
