"""Normal form of a directed language pair. Pure."""

import re
from typing import Final

from hotpool.api.languages import normalise_language

_LANGUAGE: Final = re.compile(r"[a-z][a-z0-9]{0,14}")


def normalise_pair(text: str) -> str | None:
    """Return `src-tgt` with both sides in normal form (`zh-CN-en` → `zh-en`), or None for an invalid pair."""
    parts = text.strip().replace("_", "-").split("-")
    for cut in range(1, len(parts)):
        sides = [normalise_language("-".join(side)) for side in (parts[:cut], parts[cut:])]
        if all(side and _LANGUAGE.fullmatch(side) for side in sides):
            return f"{sides[0]}-{sides[1]}"
    return None
