"""Loader of a catalogue file, which reports every error at once with its line and field path (requirement A1).

Must not know what the agent does with a catalogue.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from pydantic import ValidationError

from hotpool_agent.catalogue import yaml_source
from hotpool_agent.catalogue.error_messages import dotted, message_of
from hotpool_agent.catalogue.model import Catalogue, Run, ServiceSpec, inconsistencies

_PARTS: Final = {field.alias for field in Catalogue.model_fields.values()}

_GRPC_PACKAGES: Final = ("grpc", "grpc_health")


class CatalogueError(Exception):
    """The catalogue is invalid or cannot be read. `errors`: one `file:line: field: message` for each error."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def empty_catalogue() -> Catalogue:
    """Return the catalogue of an agent without one. Its exit withdraws nothing: other programs run the services."""
    return Catalogue(version=1, onAgentExit="keep")


def read_catalogue(path: Path) -> Catalogue:
    """Return the catalogue in the file. Raises CatalogueError with all errors."""
    try:
        with open(path, encoding="utf-8", opener=_opener) as file:  # A Path has no opener.
            text = file.read(yaml_source.MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise CatalogueError([f"{path}: cannot be read: {reason}"]) from error
    return parse_catalogue(text, str(path))


def _opener(path: str, flags: int) -> int:
    """Open a file. A named pipe without a writer is empty, and does not block: no other file could be read later."""
    handle = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    return handle


def parse_catalogue(text: str, name: str) -> Catalogue:
    """Return the catalogue in the text. `name`: file name in messages. Raises CatalogueError with all errors."""
    try:
        tree = yaml_source.load(text)
    except yaml_source.YamlError as error:
        raise CatalogueError([f"{name}:{error.line}: {error}"]) from error
    if not isinstance(tree.value, dict):
        raise CatalogueError([f"{name}:1: must be a mapping with 'version' and 'services'"])
    errors = list(tree.problems)
    try:
        catalogue = Catalogue.model_validate(tree.value)
    except ValidationError as error:
        paths = [(tuple(item["loc"]), message_of(item)) for item in error.errors()]
        paths += inconsistencies(_valid_parts(tree.value, {path[:2] for path, _ in paths}))
    else:
        paths = inconsistencies(catalogue) + _missing_extras(catalogue)
        if not paths and not errors:
            return catalogue
    errors += [(_line(path, tree.lines), path, message) for path, message in paths]
    raise CatalogueError(_rendered(errors, name))


def _missing_extras(catalogue: Catalogue) -> list[tuple[yaml_source.Path, str]]:
    """Return (path, message) of each probe that needs a package which is not installed."""
    paths: list[yaml_source.Path] = [
        ("services", index, name, "grpc")
        for index, service in enumerate(catalogue.services)
        for name, probe in (("ready", service.ready), ("live", service.live), ("observe", service.observe))
        if probe and probe.grpc
    ]
    if not paths or all(find_spec(package) for package in _GRPC_PACKAGES):
        return []
    return [(path, "gRPC is not installed: pip install 'hotpool[agent,grpc]'") for path in paths]


def _valid_parts(plain: dict[Any, Any], broken: set[yaml_source.Path]) -> Catalogue:
    """Return the valid parts of an invalid catalogue, so that their inconsistencies are reported at once, too.

    `broken`: first two parts of the paths with errors. An invalid service keeps its index, and its id if it has one.
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
    """Return a valid service with the same id, or with a random one."""
    given = item.get("id") if isinstance(item, dict) else None
    identifier = given if isinstance(given, str) else uuid4().hex
    return ServiceSpec.model_construct(id=identifier, type="", run=Run(command=("broken",)))


def _rendered(errors: list[tuple[int, yaml_source.Path, str]], name: str) -> list[str]:
    ordered = sorted((line, dotted(path), message) for line, path, message in errors)
    return [
        f"{name}:{line}: {field}: {message}" if field else f"{name}:{line}: {message}"
        for line, field, message in ordered
    ]


def _line(path: yaml_source.Path, lines: dict[yaml_source.Path, int]) -> int:
    while path not in lines and path:
        path = path[:-1]
    return lines.get(path, 1)
