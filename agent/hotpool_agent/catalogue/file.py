"""Reads a catalogue file and reports every error at once, each with its line and field path (behaviour A1).

Called by the command line. Knows pydantic's errors; must not know what the agent does with a catalogue.
"""

import difflib
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hotpool_agent.catalogue import yaml_tree
from hotpool_agent.catalogue.model import Catalogue, Run, ServiceSpec, inconsistencies

_SHOWN: Final = 60
_PARTS: Final = {field.alias for field in Catalogue.model_fields.values()}

_WORDS: Final = {
    "missing": "is required",
    "string_type": "must be a string; put it in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


class CatalogueError(Exception):
    """A catalogue that cannot be used. `errors`: one `file:line: field: message` for each thing that is wrong."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue in the file. Raises CatalogueError with all that is wrong."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(yaml_tree.MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise CatalogueError([f"{path}: cannot be read: {reason}"]) from error
    return parse_catalogue(text, str(path))


def parse_catalogue(text: str, name: str) -> Catalogue:
    """The catalogue in the text; `name` stands for the file in errors. Raises CatalogueError with all that is wrong."""
    try:
        tree = yaml_tree.load(text)
    except yaml_tree.TreeError as error:
        raise CatalogueError([f"{name}:{error.line}: {error}"]) from error
    if not isinstance(tree.value, dict):
        raise CatalogueError([f"{name}:1: must be a mapping with 'version' and 'services'"])
    found = list(tree.problems)
    try:
        catalogue = Catalogue.model_validate(tree.value)
    except ValidationError as error:
        paths = [(tuple(item["loc"]), _message(item)) for item in error.errors()]
        paths += inconsistencies(_sound_parts(tree.value, {path[:2] for path, _ in paths}))
    else:
        paths = inconsistencies(catalogue)
        if not paths and not found:
            return catalogue
    found += [(_line(path, tree.lines), path, message) for path, message in paths]
    raise CatalogueError(_rendered(found, name))


def _sound_parts(plain: dict[Any, Any], broken: set[yaml_tree.Path]) -> Catalogue:
    """What of a broken catalogue is sound, so that its inconsistencies are told at once, too.

    `broken`: first two parts of the paths with errors. A broken service keeps its place, and its id where it has one.
    """
    fields = {path[0] for path in broken}
    whole = Catalogue.model_validate({"version": 1} | {key: plain[key] for key in plain if key in _PARTS - fields})
    if "services" not in fields or not isinstance(plain["services"], list):
        return whole
    services = tuple(
        _placeholder(item) if ("services", index) in broken else ServiceSpec.model_validate(item)
        for index, item in enumerate(plain["services"])
    )
    return whole.model_copy(update={"services": services})


def _placeholder(item: Any) -> ServiceSpec:
    """A service in which nothing is wrong, but with the same id."""
    given = item.get("id") if isinstance(item, dict) else None
    known = given if isinstance(given, str) else uuid4().hex
    return ServiceSpec.model_construct(id=known, type="", run=Run(command=("broken",)))


def _rendered(found: list[tuple[int, yaml_tree.Path, str]], name: str) -> list[str]:
    placed = sorted((line, _dotted(path), message) for line, path, message in found)
    return [
        f"{name}:{line}: {field}: {message}" if field else f"{name}:{line}: {message}"
        for line, field, message in placed
    ]


def _line(path: yaml_tree.Path, lines: dict[yaml_tree.Path, int]) -> int:
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


def _dotted(path: yaml_tree.Path) -> str:
    # pydantic calls a mapping's key "[key]".
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in path if part != "[key]")
    return text.removeprefix(".")


def _name(part: str) -> str:
    return part if part.isprintable() and len(part) <= _SHOWN else _shown(part)


def _message(item: ErrorDetails) -> str:
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return _unknown(tuple(item["loc"]))
    context = item.get("ctx", {})
    if kind == "literal_error":
        words = f"must be {context['expected']}"
    elif kind == "value_error":
        words = str(context["error"])
    elif kind == "string_pattern_mismatch":
        words = f"must match {context['pattern']}"
    elif kind == "string_too_long":
        words = f"must have at most {context['max_length']} characters"
    else:
        words = _WORDS.get(kind, item["msg"])
    return words if kind == "missing" else f"{words} (got {_shown(given)})"


def _shown(given: Any) -> str:
    if given is None:
        return "nothing"
    text = repr(given)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _unknown(path: yaml_tree.Path) -> str:
    known = _fields_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"unknown field; did you mean {close[0]!r}?" if close else f"unknown field; known: {', '.join(known)}"


def _fields_at(path: yaml_tree.Path) -> list[str]:
    """Names that are allowed at the path, found by walking the models' own fields."""
    model: type[BaseModel] = Catalogue
    for part in path:
        field = next((f for f in model.model_fields.values() if f.alias == part), None)
        model = _model_in(field.annotation) or model if field else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)
