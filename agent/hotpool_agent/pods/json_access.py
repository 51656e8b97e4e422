"""Reads JSON of which nothing is certain: what is of another shape is as if it were not there. Pure."""

from typing import Any

Json = dict[str, Any]


def mapping(value: Any) -> Json:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Json]:
    """The objects of the list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """The text, or None where there is none, or an empty one."""
    return value if isinstance(value, str) and value else None


def count(value: Any) -> int:
    """The number, or 0 where there is none that counts."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
