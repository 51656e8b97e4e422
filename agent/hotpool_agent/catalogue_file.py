"""Reads a catalogue file and reports every error at once, each with its line and field path (behaviour A1).

Called by the command line. Knows YAML and pydantic's errors; must not know what the agent does with a catalogue.
"""

import difflib
from io import StringIO
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from hotpool_agent.catalogue import Catalogue, inconsistencies

_Path = tuple[str | int, ...]
_Lines = dict[_Path, int]
_SHOWN: Final = 60

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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise CatalogueError([f"{path}: cannot be read: {reason}"]) from error
    return parse_catalogue(text, str(path))


def parse_catalogue(text: str, name: str) -> Catalogue:
    """The catalogue in the text; `name` stands for the file in errors. Raises CatalogueError with all that is wrong."""
    tree = _load(text, name)
    lines: _Lines = {}
    plain = _plain(tree, (), lines)
    if not isinstance(plain, dict):
        raise CatalogueError([f"{name}:1: must be a mapping with 'version' and 'services'"])
    try:
        catalogue = Catalogue.model_validate(plain)
    except ValidationError as error:
        found = [(tuple(item["loc"]), _message(item)) for item in error.errors()]
        raise CatalogueError(_rendered(found, lines, name)) from error
    if found := inconsistencies(catalogue):
        raise CatalogueError(_rendered(found, lines, name))
    return catalogue


def _load(text: str, name: str) -> Any:
    try:
        return YAML(typ="rt", pure=True).load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = (error.problem or error.context or "cannot be parsed").splitlines()[0]
        raise CatalogueError([f"{name}:{line}: not valid YAML: {problem}"]) from error
    except YAMLError as error:
        raise CatalogueError([f"{name}:1: not valid YAML: {str(error).splitlines()[0]}"]) from error


def _plain(node: Any, path: _Path, lines: _Lines) -> Any:
    """The node without ruamel's types; fills `lines` with the line of each path."""
    if isinstance(node, CommentedMap):
        lines.setdefault(path, node.lc.line + 1)
        for key in node:
            lines[(*path, key)] = node.lc.key(key)[0] + 1
        return {key: _plain(value, (*path, key), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        lines.setdefault(path, node.lc.line + 1)
        for index in range(len(node)):
            lines[(*path, index)] = node.lc.item(index)[0] + 1
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    # ruamel marks quoted and folded strings and odd numbers by subclasses.
    for base in (bool, int, float, str):
        if isinstance(node, base):
            return base(node)
    return node


def _rendered(found: list[tuple[_Path, str]], lines: _Lines, name: str) -> list[str]:
    placed = sorted((_line(path, lines), _dotted(path), message) for path, message in found)
    return [
        f"{name}:{line}: {field}: {message}" if field else f"{name}:{line}: {message}"
        for line, field, message in placed
    ]


def _line(path: _Path, lines: _Lines) -> int:
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)


def _dotted(path: _Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part != "[key]")
    return text.removeprefix(".")


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


def _unknown(path: _Path) -> str:
    known = _fields_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"unknown field; did you mean {close[0]!r}?" if close else f"unknown field; known: {', '.join(known)}"


def _fields_at(path: _Path) -> list[str]:
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
