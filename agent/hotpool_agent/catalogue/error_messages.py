"""Messages for validation errors of pydantic, in terms of the catalogue: pure.

Must not decide what an invalid item leads to.
"""

import difflib
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from hotpool_agent.catalogue import yaml_source
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.untrusted_text import quoted

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


def dotted(path: yaml_source.Path) -> str:
    """Return the path in dotted form: services[0].attributes.rules."""
    # pydantic calls a mapping's key "[key]".
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in path if part != "[key]")
    return text.removeprefix(".")


def _name(part: str) -> str:
    return part if part.isprintable() and len(part) <= _SHOWN else quoted(part)


def message_of(item: ErrorDetails, prefix: yaml_source.Path = ()) -> str:
    """Return the message for one error. `prefix`: path in a catalogue of the value that was validated."""
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return _unknown_field((*prefix, *item["loc"]))
    context = item.get("ctx", {})
    if kind == "literal_error":
        words = f"must be {context['expected']}"
    elif kind == "value_error":
        words = str(context["error"])
    elif kind == "string_pattern_mismatch":
        words = f"must match {context['pattern']}"
    elif kind == "string_too_long":
        words = f"must have at most {context['max_length']} characters"
    elif kind == "too_long":
        words = f"must have at most {context['max_length']} items"
    else:
        words = _WORDS.get(kind, item["msg"])
    return words if kind == "missing" else f"{words} (got {'nothing' if given is None else quoted(given)})"


def _unknown_field(path: yaml_source.Path) -> str:
    known = known_fields(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"unknown field; did you mean {close[0]!r}?" if close else f"unknown field; known: {', '.join(known)}"


def known_fields(path: yaml_source.Path) -> list[str]:
    """Return the field names that are allowed at the path, from the models' own fields."""
    model: type[BaseModel] = Catalogue
    for part in path:
        field = next((f for f in model.model_fields.values() if f.alias == part), None)
        model = _model_in(field.annotation) or model if field else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in getattr(annotation, "__args__", ()) if (model := _model_in(part))), None)
