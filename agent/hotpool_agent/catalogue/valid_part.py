"""Valid part of an invalid catalogue, so that its other errors are reported at once, too (requirement A1): pure."""

from copy import deepcopy
from difflib import get_close_matches
from typing import Any, Final
from uuid import uuid4

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hotpool_agent.catalogue.error_messages import known_fields
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.catalogue.problems import Path

_PARTS: Final = {field.alias or name for name, field in Catalogue.model_fields.items()}
_ROUNDS: Final = 10
"""A removal may expose the next error: a command without words, then a `run` without a command."""
_FIELD: Final = 2
"""Parts of the path before the field of a service."""


def valid_part(plain: dict[Any, Any]) -> tuple[Catalogue, frozenset[Path]]:
    """Return the catalogue without its invalid fields, and the paths that were removed or are probably misspelt.

    A service keeps its index.
    """
    content = deepcopy({key: plain[key] for key in plain if key in _PARTS})
    removed: set[Path] = set()
    for _ in range(_ROUNDS):
        try:
            catalogue = Catalogue.model_validate({**content, "version": 1})
        except ValidationError as error:
            for item in error.errors():
                removed.update(_remove(content, item))
        else:
            return catalogue, frozenset(removed)
    return Catalogue(version=1), frozenset(removed)


def _remove(content: dict[str, Any], item: ErrorDetails) -> list[Path]:
    """Remove the invalid field from the content. Return its path, and those of fields that it may stand for."""
    path = tuple(part for part in item["loc"] if part != "[key]")
    if path[0] != "services" or len(path) == 1:
        content.pop(str(path[0]), None)
        return [path[:1]]
    index = int(path[1])
    service = content["services"][index]
    if len(path) == _FIELD or not isinstance(service, dict):
        content["services"][index] = {"id": uuid4().hex, "type": "unknown", "run": {"command": ["unknown"]}}
        return [path[:_FIELD]]
    if path[_FIELD:] in {("id",), ("type",)}:
        service[path[_FIELD]] = uuid4().hex if path[_FIELD] == "id" else "unknown"
        return [path]
    if item["type"] == "extra_forbidden":
        near = get_close_matches(str(path[-1]), known_fields(path[:-1]))
        return [_delete(service, path), *((*path[:-1], name) for name in near)]
    return [_delete(service, path)]


def _delete(service: dict[str, Any], path: Path) -> Path:
    """Delete the field, or the last one on its path that exists. An item of a list takes the list along."""
    names = [str(path[_FIELD])]
    holder = service
    for part in path[_FIELD + 1 :]:
        inner = holder.get(names[-1])
        if not isinstance(part, str) or not isinstance(inner, dict) or part not in inner:
            break
        holder = inner
        names.append(part)
    holder.pop(names[-1], None)
    return (*path[:_FIELD], *names)
