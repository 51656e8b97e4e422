"""The generated definitions: equal to the committed ones, with descriptions and bounds for all fields (B11, F1)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.support.builders import generator_object, node_object, pool_object, slice_object, speech

from crdgen import KINDS, Kind, definition, render, structural
from localfleet.kind import REPOSITORY

ROOT = REPOSITORY
_REFERENCE = re.compile(r"\b(?:[A-H]\d{1,2}|KEP-\d+|requirements? [A-H]\d|docs/design)\b")
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def schema_of(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every node of a schema with its path, without `metadata`, which the API server defines."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        if path or name not in {"metadata", "apiVersion", "kind"}:
            yield from fields(child, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("name", sorted(render()))
def test_committed_definitions_are_the_generated_ones(name: str) -> None:
    assert (ROOT / "crds" / name).read_text(encoding="utf-8") == render()[name], "run: make crds"


def test_no_other_definition_is_committed() -> None:
    assert {path.name for path in (ROOT / "crds").glob("*.yaml")} == set(render())


@EACH_KIND
def test_the_rendered_yaml_equals_the_definition(kind: Kind) -> None:
    assert yaml.safe_load(render()[f"{kind.plural}.yaml"]) == definition(kind)


@EACH_KIND
def test_every_field_and_the_root_have_a_description(kind: Kind) -> None:
    assert schema_of(kind)["description"]
    bare = [p for p, s in fields(schema_of(kind)) if not p.endswith(("[]", "{}")) and not s.get("description")]
    assert bare == []


@EACH_KIND
def test_no_description_or_message_cites_an_internal_document(kind: Kind) -> None:
    """`kubectl explain` is for people who know neither the requirements nor our decisions."""
    shown = [(path, schema["description"]) for path, schema in fields(schema_of(kind)) if "description" in schema]
    shown += [(path, rule["message"]) for path, rule in _rules(schema_of(kind))]
    assert [(path, text) for path, text in shown if _REFERENCE.search(text)] == []


@EACH_KIND
def test_a_word_of_the_wrong_form_is_refused_with_an_example(kind: Kind) -> None:
    """Of a pattern, the API server prints the regular expression. Only the operator writes slices."""
    patterns = [path for path, schema in fields(schema_of(kind)) if "pattern" in schema]
    assert patterns == ([".members[].node"] if kind.kind == "NodePoolSlice" else [])
    for path, rule in _rules(schema_of(kind)):
        if found := re.fullmatch(r"self\.matches\('(.*)'\)", rule["rule"]):
            (examples,) = re.findall(r": for example (.*)$", rule["message"])
            words = re.findall(r"[^\s,]+", re.sub(" for .*", "", examples).replace(" or ", " "))
            pattern = found[1].replace("\\\\", "\\")
            assert words, path
            assert [word for word in words if word != "or" and not re.search(pattern, word)] == [], path


def _rules(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    for path, node in fields(schema):
        yield from ((path, rule) for rule in node.get("x-kubernetes-validations", ()))


def _unbounded(schema: dict[str, Any]) -> bool:
    match schema.get("type"):
        case "string":
            return not {"maxLength", "enum"} & schema.keys()
        case "array":
            return "maxItems" not in schema
        case "object":
            return "additionalProperties" in schema and "maxProperties" not in schema
        case "integer":
            return not {"minimum", "maximum"} & schema.keys()
        case _:
            return schema.get("type") != "boolean"


@EACH_KIND
def test_every_string_list_and_map_has_a_bound(kind: Kind) -> None:
    assert [path for path, schema in fields(schema_of(kind)) if _unbounded(schema)] == []


@EACH_KIND
def test_every_node_is_structural(kind: Kind) -> None:
    """Each node has one type, and no keyword that Kubernetes refuses in a structural schema."""
    refused = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "const", "propertyNames", "patternProperties"}
    assert [path for path, schema in fields(schema_of(kind)) if refused & schema.keys() or "type" not in schema] == []


@EACH_KIND
def test_a_map_list_has_its_keys_required(kind: Kind) -> None:
    for path, schema in fields(schema_of(kind)):
        if schema.get("x-kubernetes-list-type") == "map":
            assert set(schema["x-kubernetes-list-map-keys"]) <= set(schema["items"]["required"]), path


def test_a_report_has_types_and_size_bounds_only() -> None:
    """A report has no enumeration, so that a newer agent is not refused for an unknown word."""
    node = next(kind for kind in KINDS if kind.kind == "NodeCapability")
    inside = [(path, s) for path, s in fields(schema_of(node)) if path.startswith(".status.report.")]
    assert inside
    assert [path for path, schema in inside if {"enum", "pattern"} & schema.keys()] == []
    assert {s["x-kubernetes-list-type"] for _, s in inside if s["type"] == "array"} == {"atomic"}


def test_members_of_a_slice_are_one_atomic_list() -> None:
    """One writer, as for endpoints of an EndpointSlice; managedFields for each member would double the size."""
    kind = next(kind for kind in KINDS if kind.kind == "NodePoolSlice")
    assert schema_of(kind)["properties"]["members"]["x-kubernetes-list-type"] == "atomic"


@EACH_KIND
def test_columns_and_selectable_fields_name_existing_fields(kind: Kind) -> None:
    known = {path.split("[")[0] for path, _ in fields(schema_of(kind))}
    shown = [path for _, _, path, _ in kind.columns if not path.startswith(".metadata")]
    assert {path.split("[")[0] for path in [*shown, *kind.selectable]} <= known


@EACH_KIND
def test_no_column_prints_one_of_many(kind: Kind) -> None:
    """Kubectl prints the first of several results: a filter on the key of a map list has one."""
    lists = {path.removesuffix("[]") for path, _ in fields(schema_of(kind)) if path.endswith("[]")}
    chosen = '[?(@.type=="Ready")]', '[?(@.type=="Draining")]'
    for _, _, path, _ in kind.columns:
        whole = path
        for one in chosen:
            whole = whole.replace(f".status.conditions{one}", "")
        assert not [found for found in lists if whole == found or whole.startswith((f"{found}[", f"{found}."))], path


@EACH_KIND
def test_kubectl_has_short_names_and_all_but_slices_the_category(kind: Kind) -> None:
    names = definition(kind)["spec"]["names"]
    assert names["plural"] == kind.plural
    assert names["shortNames"] == [kind.short]
    assert names.get("categories", []) == ([] if kind.kind == "NodePoolSlice" else ["hotpool"])
    assert not set(names["shortNames"]) & {"np", "no", "po"}


def conforms(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Return the paths of a value that the schema does not have, or that have another type."""
    if value is None:
        return [] if schema.get("nullable") else [path]
    if schema["type"] == "object" and isinstance(value, dict):
        inner = schema.get("additionalProperties")
        known = schema.get("properties", {})
        if not inner and not known:
            return []
        missing = [f"{path}.{name}" for name in schema.get("required", []) if name not in value]
        unknown = [f"{path}.{name}" for name in value if not inner and name not in known]
        found = [
            bad
            for k, v in value.items()
            if inner or k in known
            for bad in conforms(v, known.get(k, inner), f"{path}.{k}")
        ]
        return missing + unknown + found
    if schema["type"] == "array" and isinstance(value, list):
        return [bad for item in value for bad in conforms(item, schema["items"], f"{path}[]")]
    kinds: dict[str, type] = {"string": str, "integer": int, "boolean": bool}
    return [] if isinstance(value, kinds[schema["type"]]) else [path]


@pytest.mark.parametrize(
    "body",
    [
        node_object("n", speech("zh", "en")),
        pool_object("p", requires={"nodeSelector": {"matchLabels": {"a": "b"}}}),
        slice_object("p", 0, "n"),
        generator_object("g"),
    ],
    ids=lambda body: body["kind"],
)
def test_the_objects_of_the_builders_conform_to_the_definitions(body: dict[str, Any]) -> None:
    kind = next(kind for kind in KINDS if kind.kind == body["kind"])
    assert conforms(body, schema_of(kind)) == []


def test_every_sample_conforms_to_the_definitions() -> None:
    found = [
        item for path in (ROOT / "crds" / "samples").glob("*.yaml") for item in yaml.safe_load_all(path.read_text())
    ]
    assert found
    for body in found:
        kind = next(kind for kind in KINDS if kind.kind == body["kind"])
        assert conforms(body, schema_of(kind)) == []


def test_a_model_without_a_structural_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="one type or null"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})
