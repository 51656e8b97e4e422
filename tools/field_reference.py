"""Generate the tables of fields in docs/reference/pools.md from the definitions (`make crds`).

`python -m field_reference PAGE` writes the page between its marks. With `--check` it writes nothing, and exits with 1
if the page differs.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from crdgen import KINDS, definition

Json = dict[str, Any]

SAME: Final = {("NodePoolGenerator", "template.spec"): "the fields of a NodePool's spec, without `generated`"}
"""Kind and object whose fields are in the table of another kind, with the text that says where."""
_MARK: Final = re.compile(r"(<!-- fields: (\w+) (spec|status) -->\n).*?(<!-- fields: end -->\n)", re.DOTALL)
_HEAD: Final = ("| field | type and constraints | default | meaning |", "|---|---|---|---|")


class Field(NamedTuple):
    """One field of a definition: path with dots and `[]` for items, JSON schema, and whether its object needs it."""

    path: str
    schema: Json
    required: bool


def schema_of(kind: str, part: str) -> Json:
    """Return the schema of `spec` or `status` of a kind."""
    schema: Json = whole_schema(kind)["properties"][part]
    return schema


def whole_schema(kind: str) -> Json:
    """Return the schema of a kind."""
    (found,) = (item for item in KINDS if item.kind == kind)
    schema: Json = definition(found)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def fields(kind: str, schema: Json, prefix: str = "") -> Iterator[Field]:
    """Yield all fields of an object, each before its own fields."""
    for name, child in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield Field(path, child, name in schema.get("required", ()))
        if (kind, path) in SAME:
            continue
        items = child.get("items", {})
        yield from fields(kind, child, f"{path}.")
        yield from fields(kind, items, f"{path}[].")


def constraints(schema: Json) -> str:
    """Return type and constraints as text."""
    items = schema.get("items")
    if items:
        keys = ", ".join(schema.get("x-kubernetes-list-map-keys", ()))
        unique = {"set": ", no duplicates", "map": f", one for each {keys}"}.get(schema["x-kubernetes-list-type"], "")
        words = [f"list of{_range(schema, 'minItems', 'maxItems')}{unique}: {constraints(items)}"]
    elif values := schema.get("additionalProperties"):
        words = [f"map of{_range(schema, 'minProperties', 'maxProperties')}: {constraints(values)}"]
    elif "enum" in schema:
        words = [", ".join(f"`{value}`" for value in schema["enum"])]
    else:
        length = _range(schema, "minLength", "maxLength")
        words = [schema["type"] + (f" of{length} characters" if length else "") + _range(schema, "minimum", "maximum")]
    if pattern := schema.get("pattern"):
        words.append(f"`{pattern}`")
    words += [f"refused: {message}" for message in rules(schema)]
    return "; ".join(words)


def rules(schema: Json) -> list[str]:
    """Return the messages of the API server's refusals by the rules of one object."""
    return [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]


def _range(schema: Json, low: str, high: str) -> str:
    if low in schema and high in schema:
        return f" {schema[low]} to {schema[high]}"
    return f" at most {schema[high]}" if high in schema else f" at least {schema[low]}" if low in schema else ""


def default(field: Field) -> str:
    """Return the default as text."""
    if field.required:
        return "required"
    value = field.schema.get("default")
    return "none" if value is None else "its fields'" if value == {} else f"`{json.dumps(value)}`"


def table(kind: str, part: str) -> str:
    """Return the rules of the whole object, and the table of the fields of `spec` or `status`."""
    refused = [*rules(whole_schema(kind)), *rules(schema_of(kind, part))] if part == "spec" else []
    lines = [*(f"- Refused: {message}." for message in refused), *([""] if refused else []), *_HEAD]
    for field in fields(kind, schema_of(kind, part)):
        same = f": {SAME[kind, field.path]}" if (kind, field.path) in SAME else ""
        meaning = field.schema.get("description", "").removesuffix(".") + same
        cells = (f"`{field.path}`", constraints(field.schema), default(field), meaning)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with generated tables."""
    return _MARK.sub(lambda found: f"{found[1]}\n{table(found[2], found[3])}\n\n{found[4]}", text)


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    path = Path(arguments[-1])
    found = path.read_text(encoding="utf-8")
    wanted = page(found)
    if "--check" not in arguments:
        path.write_text(wanted, encoding="utf-8")
        return 0
    if found != wanted:
        print(f"{path} is not what the definitions say: make crds", file=sys.stderr)
    return int(found != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
