"""Text from JSON of the API. Pure."""

from typing import Any


def string(value: Any) -> str:
    """Return text that is safe to write back, or an empty string for another type; lone surrogates become marks."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
