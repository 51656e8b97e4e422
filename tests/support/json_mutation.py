"""Paths of a JSON value, and copies of the value with one path changed or removed."""

from typing import Any

JsonPath = tuple[Any, ...]


def paths(value: Any, prefix: JsonPath = ()) -> list[JsonPath]:
    """Return every path of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for key, item in inner for path in paths(item, (*prefix, key)))]


def changed(value: Any, path: JsonPath, new: Any) -> Any:
    """Return the value with another one at the path, or unchanged if it has no such path."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict) and key in value:
        return {**value, key: changed(value[key], tuple(rest), new)}
    if isinstance(value, list) and isinstance(key, int):
        return [changed(item, tuple(rest), new) if number == key else item for number, item in enumerate(value)]
    return value


def without(value: Any, path: JsonPath) -> Any:
    """Return the value without the item at the path."""
    *parents, last = path
    inner = value
    for key in parents:
        inner = inner[key]
    kept = (
        {key: item for key, item in inner.items() if key != last}
        if isinstance(inner, dict)
        else [item for number, item in enumerate(inner) if number != last]
    )
    return changed(value, tuple(parents), kept)
