"""Attributes of a service in a pod's annotation, by the rules of a catalogue entry (requirements A1, B3): pure.

The text is untrusted: any user who may annotate a pod writes it. Therefore its length is bounded, and nothing raises.
"""

from functools import lru_cache
from typing import Final

from pydantic import ValidationError

from hotpool_agent.catalogue import yaml_source
from hotpool_agent.catalogue.error_messages import dotted, message_of
from hotpool_agent.catalogue.model import Attributes

MAX_CHARACTERS: Final = 16 * 1024
"""Limit of an annotation, a quarter of the limit of a report."""
_PLACE: Final = ("services", 0, "attributes")
_NONE: Final = Attributes()


# The status of a pod changes often, and its annotations hardly ever.
@lru_cache(maxsize=256)
def read_attributes(text: str) -> tuple[Attributes, str | None]:
    """Parse attributes, YAML or JSON. Return them, or empty ones and an error.

    One invalid field discards all: without a field, the rest may offer too much.
    """
    if len(text) > MAX_CHARACTERS:
        return _invalid(f"longer than {MAX_CHARACTERS} characters")
    try:
        tree = yaml_source.load(text)
    except yaml_source.YamlError as error:
        return _invalid(f"line {error.line}: {error}")
    if tree.value is None and not tree.problems:
        return _NONE, None
    if not isinstance(tree.value, dict):
        return _invalid("must be a mapping")
    if tree.problems:
        line, path, message = tree.problems[0]
        return _invalid(f"line {line}: {_field_prefix(path)}{message}")
    try:
        return Attributes.model_validate(tree.value), None
    except ValidationError as error:
        first = error.errors()[0]
        return _invalid(_field_prefix(first["loc"]) + message_of(first, _PLACE))


def _invalid(error: str) -> tuple[Attributes, str]:
    return _NONE, error


def _field_prefix(path: yaml_source.Path) -> str:
    return f"{dotted(path)}: " if path else ""
