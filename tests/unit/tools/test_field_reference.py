"""docs/reference/pools.md has every field and default of the definitions, and valid examples."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from field_reference import SAME, default, fields, page, schema_of, whole_schema
from hotpool.api.generator import NodePoolGenerator
from hotpool.api.pool import NodePool
from localfleet.kind import REPOSITORY

PAGE = (REPOSITORY / "docs/reference/pools.md").read_text(encoding="utf-8")
MODELS = {"NodePool": NodePool, "NodePoolGenerator": NodePoolGenerator}


def examples() -> list[dict[str, Any]]:
    """Return the manifests of the reference and of the how-to that is about pools."""
    text = PAGE + (REPOSITORY / "docs/how-to/roll-out.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return [body for block in blocks for body in yaml.safe_load_all(block)]


def unknown(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of an object that the schema does not have."""
    if isinstance(value, list):
        for item in value:
            yield from unknown(schema["items"], item, f"{path}[]")
    elif isinstance(value, dict):
        for name, item in value.items():
            child = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if child is None:
                yield f"{path}.{name}"
            else:
                yield from unknown(child, item, f"{path}.{name}")


def test_the_tables_are_those_of_the_definitions() -> None:
    assert page(PAGE) == PAGE, "run: make crds"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_of_a_definition_is_a_row_with_its_default(kind: str, part: str) -> None:
    section = PAGE.split(f"<!-- fields: {kind} {part} -->")[1].split("<!-- fields: end -->")[0]
    rows = [re.split(r"(?<!\\)\|", line) for line in section.splitlines() if line.startswith("| `")]
    found = {row[1].strip().strip("`"): row[3].strip() for row in rows}
    wanted = {field.path: default(field) for field in fields(kind, schema_of(kind, part))}
    assert found == wanted
    assert len(found) > 5


def test_a_template_has_the_fields_and_defaults_of_a_pool() -> None:
    ((kind, path),) = SAME
    *_, template = (field for field in fields(kind, schema_of(kind, "spec")) if field.path == path)
    pool = {field.path: default(field) for field in fields("NodePool", schema_of("NodePool", "spec"))}
    own = {field.path: default(field) for field in fields("NodePool", template.schema)}
    assert own == {name: text for name, text in pool.items() if not name.startswith("generated")}


@pytest.mark.parametrize("body", examples(), ids=lambda body: body["metadata"]["name"])
def test_each_example_is_valid(body: dict[str, Any]) -> None:
    MODELS[body["kind"]].model_validate(body)
    schema = whole_schema(body["kind"])
    schema["properties"]["metadata"] = {"properties": {"name": {"type": "string"}}}
    assert list(unknown(schema, body)) == []
