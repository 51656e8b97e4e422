"""Access to untrusted JSON. Values of the wrong type are treated as absent. Pure."""

from typing import Any

Json = dict[str, Any]


def mapping(value: Any) -> Json:
    """Return the object, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Json]:
    """Return the objects of the list; other items are left out."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """Return the text, or None for an empty one."""
    return value if isinstance(value, str) and value else None


def count(value: Any) -> int:
    """Return the positive integer, or 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
