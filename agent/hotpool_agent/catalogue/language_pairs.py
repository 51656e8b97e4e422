"""The normal form of a directed language pair. Pure; called by `catalogue` (to refuse) and `bounds` (to report)."""

import re
from typing import Final

from hotpool.api.languages import normalise_language

_LANGUAGE: Final = re.compile(r"[a-z][a-z0-9]{0,14}")


def normalise_pair(text: str) -> str | None:
    """`src-tgt` with both sides in normal form (`zh-CN-en` → `zh-en`); None if it is no directed pair."""
    parts = text.strip().replace("_", "-").split("-")
    for cut in range(1, len(parts)):
        sides = [normalise_language("-".join(side)) for side in (parts[:cut], parts[cut:])]
        if all(side and _LANGUAGE.fullmatch(side) for side in sides):
            return f"{sides[0]}-{sides[1]}"
    return None
