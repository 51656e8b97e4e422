"""Loader of a catalogue file, which reports every error at once with its line and field path (requirement A1).

Must not know what the agent does with a catalogue.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from hotpool_agent.catalogue import yaml_source
from hotpool_agent.catalogue.error_messages import dotted, message_of
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.catalogue.problems import Problem, inconsistencies, warnings
from hotpool_agent.catalogue.programs import missing_programs
from hotpool_agent.catalogue.valid_part import valid_part

_GRPC_PACKAGES: Final = ("grpc", "grpc_health")


class CatalogueError(Exception):
    """The catalogue is invalid or cannot be read. `errors`: one `file:line: field: message` for each error."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class CheckedCatalogue:
    """Catalogue and its problems. `problems`: errors and warnings, one line each; `invalid`: there is an error."""

    catalogue: Catalogue
    problems: list[str]
    invalid: bool


def empty_catalogue() -> Catalogue:
    """Return the catalogue of an agent without one. Its exit withdraws nothing: other programs run the services."""
    return Catalogue(version=1, onAgentExit="keep")


def read_catalogue(path: Path) -> Catalogue:
    """Return the catalogue in the file. Raises CatalogueError with all errors."""
    return parse_catalogue(_read(path), str(path))


def check_catalogue(path: Path) -> CheckedCatalogue:
    """Return the valid part of the catalogue in the file, with errors and warnings in the order of the lines.

    Raises CatalogueError if the file is no mapping in YAML.
    """
    text = _read(path)
    found = _parse(text, str(path))
    programs = missing_programs(found.catalogue, path.parent)
    remarks = found.affected([*warnings(found.catalogue), *programs])
    marked = [(line, place, f"warning: {message}") for line, place, message in remarks]
    return CheckedCatalogue(found.catalogue, _rendered([*found.errors, *marked], str(path)), bool(found.errors))


def _read(path: Path) -> str:
    """Return the text of a file. Raises CatalogueError."""
    try:
        with open(path, encoding="utf-8", opener=_opener) as file:  # A Path has no opener.
            return file.read(yaml_source.MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise CatalogueError([f"{path}: cannot be read: {reason}"]) from error


def _opener(path: str, flags: int) -> int:
    """Open a file. A named pipe without a writer is empty, and does not block: no other file could be read later."""
    handle = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    return handle


def parse_catalogue(text: str, name: str) -> Catalogue:
    """Return the catalogue in the text. `name`: file name in messages. Raises CatalogueError with all errors."""
    found = _parse(text, name)
    if found.errors:
        raise CatalogueError(_rendered(found.errors, name))
    return found.catalogue


_Error = tuple[int, yaml_source.Path, str]
"""Line, path and message."""


@dataclass(frozen=True, slots=True)
class _Parsed:
    """Valid part of a catalogue, and the errors. `removed`: paths of invalid fields."""

    catalogue: Catalogue
    errors: list[_Error]
    removed: frozenset[yaml_source.Path]
    lines: dict[yaml_source.Path, int]

    def affected(self, problems: Iterable[Problem]) -> list[_Error]:
        """Return the problems that do not follow from an invalid field."""
        return [
            (_line(item.path, self.lines), item.path, item.message)
            for item in problems
            if not any(path[:length] in self.removed for path in (item.path, *item.reads) for length in _lengths(path))
        ]


def _lengths(path: yaml_source.Path) -> range:
    return range(1, len(path) + 1)


def _parse(text: str, name: str) -> _Parsed:
    """Return the valid part of a catalogue and all errors. Raises CatalogueError if the text is no mapping in YAML."""
    try:
        tree = yaml_source.load(text)
    except yaml_source.YamlError as error:
        raise CatalogueError([f"{name}:{error.line}: {error}"]) from error
    if not isinstance(tree.value, dict):
        raise CatalogueError([f"{name}:1: must be a mapping with 'version' and 'services'"])
    errors = list(tree.problems)
    try:
        catalogue, removed = Catalogue.model_validate(tree.value), frozenset[yaml_source.Path]()
    except ValidationError as error:
        invalid = [(tuple(item["loc"]), message_of(item)) for item in error.errors()]
        errors += ((_line(path, tree.lines), path, message) for path, message in invalid)
        catalogue, removed = valid_part(tree.value)
    parsed = _Parsed(catalogue, errors, removed, tree.lines)
    errors += parsed.affected([*inconsistencies(catalogue), *_missing_extras(catalogue)])
    return parsed


def _missing_extras(catalogue: Catalogue) -> list[Problem]:
    """Return each probe that needs a package which is not installed."""
    paths: list[yaml_source.Path] = [
        ("services", index, name, "grpc")
        for index, service in enumerate(catalogue.services)
        for name, probe in (("ready", service.ready), ("live", service.live), ("observe", service.observe))
        if probe and probe.grpc
    ]
    if not paths or all(find_spec(package) for package in _GRPC_PACKAGES):
        return []
    return [Problem(path, "gRPC is not installed: pip install 'hotpool[agent,grpc]'") for path in paths]


def _rendered(errors: Iterable[_Error], name: str) -> list[str]:
    ordered = sorted((line, dotted(path), message) for line, path, message in errors)
    return [
        f"{name}:{line}: {field}: {message}" if field else f"{name}:{line}: {message}"
        for line, field, message in ordered
    ]


def _line(path: yaml_source.Path, lines: dict[yaml_source.Path, int]) -> int:
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)
