"""Every place in a JSON value, and the value with one of them changed: what tests need to spoil an object."""

from typing import Any

Place = tuple[Any, ...]


def paths(value: Any, here: Place = ()) -> list[Place]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inner for path in paths(item, (*here, key)))]


def changed(value: Any, place: Place, new: Any) -> Any:
    """The value with something else in one place; the same value where it has no such place."""
    if not place:
        return new
    key, *rest = place
    if isinstance(value, dict) and key in value:
        return {**value, key: changed(value[key], tuple(rest), new)}
    if isinstance(value, list) and isinstance(key, int):
        return [changed(item, tuple(rest), new) if number == key else item for number, item in enumerate(value)]
    return value


def without(value: Any, place: Place) -> Any:
    """The value without one place."""
    *way, last = place
    inner = value
    for key in way:
        inner = inner[key]
    kept = (
        {key: item for key, item in inner.items() if key != last}
        if isinstance(inner, dict)
        else [item for number, item in enumerate(inner) if number != last]
    )
    return changed(value, tuple(way), kept)
