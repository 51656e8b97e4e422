"""Generate `crds/*.yaml` from the models of `hotpool.api` (`make crds`).

Converts pydantic's JSON schema into the structural OpenAPI that Kubernetes requires. Must not know more of a kind than
its entry in `KINDS`.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hotpool.api import capability, generator, meta, names, pool
from hotpool.api import slice as slices

Json = dict[str, Any]

_DROPPED: Final = {"title", "$defs", "additionalProperties", "patternProperties", "propertyNames"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One custom resource definition: its names, its model, and the columns that the API server prints."""

    kind: str
    plural: str
    short: str
    model: type[meta.ApiModel]
    columns: tuple[tuple[str, str, str, int], ...]
    """Name, type, JSONPath, priority (1: only with -o wide). Of a list, kubectl would print the first item alone."""
    selectable: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    """CEL rules of the root: rule, message."""
    status: bool = True
    listed: bool = True
    """True to include it in `kubectl get hotpool`. A fleet has very many slices."""


def _name_rule(limit: int, *, label: bool) -> tuple[str, str]:
    if not label:
        return f"self.metadata.name.size() <= {limit}", f"metadata.name must have at most {limit} characters"
    return (
        f"self.metadata.name.size() <= {limit} && !self.metadata.name.contains('.')",
        f"metadata.name must be a DNS label of at most {limit} characters: for example zh-en",
    )


_READY: Final = ("Ready", "string", ".status.ready", 0)
_REASON: Final = ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0)
_DRAINING: Final = '.status.conditions[?(@.type=="Draining")].status'
_POOL_OF_SLICE: Final = ".metadata.labels." + meta.POOL_LABEL.replace(".", "\\.")
_AGE: Final = ("Age", "date", ".metadata.creationTimestamp", 0)

KINDS: Final = (
    Kind(
        kind="NodeCapability",
        plural="nodecapabilities",
        short="ncap",
        model=capability.NodeCapability,
        columns=(
            _READY,
            _REASON,
            ("Services", "string", ".status.report.summary", 0),
            ("Types", "string", ".status.report.readyTypes", 0),
            ("Draining", "string", _DRAINING, 0),
            _AGE,
            ("Agent", "string", ".status.report.agentVersion", 1),
            ("Epoch", "integer", ".status.report.epoch", 1),
        ),
        selectable=(".status.ready", ".spec.drain"),
        rules=(
            _name_rule(names.NODE_NAME_MAX, label=False),
            ("!has(oldSelf.status) || has(self.status)", "stale report: status cannot be removed"),
        ),
    ),
    Kind(
        kind="NodePool",
        plural="nodepools",
        short="hpool",
        model=pool.NodePool,
        columns=(
            _READY,
            _REASON,
            ("Members", "integer", ".status.members", 0),
            ("Suspect", "integer", ".status.suspectMembers", 0),
            ("Draining", "integer", ".status.drainingMembers", 0),
            ("Min", "integer", ".spec.minMembers", 0),
            ("Key", "string", ".spec.generated.key", 0),
            _AGE,
            ("Mode", "string", ".spec.mode", 1),
            ("Slices", "integer", ".status.slices", 1),
            ("Last Change", "date", ".status.lastChange", 1),
        ),
        selectable=(".status.ready", ".spec.mode", ".spec.generated.by"),
        rules=(_name_rule(meta.POOL_NAME_MAX, label=True),),
    ),
    Kind(
        kind="NodePoolSlice",
        plural="nodepoolslices",
        short="hpslice",
        model=slices.NodePoolSlice,
        columns=(
            ("Pool", "string", _POOL_OF_SLICE, 0),
            ("Term", "integer", ".term", 0),
            _AGE,
        ),
        rules=(_name_rule(63, label=True),),
        status=False,
        listed=False,
    ),
    Kind(
        kind="NodePoolGenerator",
        plural="nodepoolgenerators",
        short="hpgen",
        model=generator.NodePoolGenerator,
        columns=(
            _READY,
            _REASON,
            ("Pools", "integer", ".status.pools", 0),
            ("Not Admitted", "integer", ".status.notAdmittedCount", 0),
            _AGE,
        ),
        selectable=(".status.ready",),
        rules=(_name_rule(meta.GENERATOR_NAME_MAX, label=True),),
    ),
)


def structural(node: Any, definitions: Json) -> Any:
    """Convert a JSON schema node to structural OpenAPI v3: references inlined, `null` as nullable, no titles."""
    if isinstance(node, list):
        return [structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return structural({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    if "anyOf" in node:
        return _nullable(node, definitions)
    return _plain(node, definitions)


def _nullable(node: Json, definitions: Json) -> Json:
    options = [option for option in node["anyOf"] if option.get("type") != "null"]
    if len(options) != 1:
        raise ValueError(f"a structural schema has one type or null, not {node['anyOf']}")
    rest = {key: value for key, value in node.items() if key not in {"anyOf", "default"}}
    return {**structural({**options[0], **rest}, definitions), "nullable": True}


def _plain(node: Json, definitions: Json) -> Json:
    result = {key: _value(key, value, definitions) for key, value in node.items() if key not in _DROPPED}
    if result.get("default", ...) in (None, []):
        del result["default"]
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = structural(node["additionalProperties"], definitions)
    if result.get("type") == "array":
        result.setdefault("x-kubernetes-list-type", "atomic")
    if result.get("type") == "integer":
        result["format"] = "int64"
    return result


def _value(key: str, value: Any, definitions: Json) -> Any:
    if key == "properties":
        return {name: structural(field, definitions) for name, field in value.items()}
    if key == "default" and isinstance(value, dict):
        return {}  # the API server fills in the defaults of the fields within
    return value if key == "default" or key.startswith("x-kubernetes") else structural(value, definitions)


def _open_api(kind: Kind) -> Json:
    schema = kind.model.model_json_schema(by_alias=True)
    root: Json = structural(schema, schema.get("$defs", {}))
    root["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of this shape: hotpool.dev/v1alpha1."},
        "kind": {"type": "string", "description": f"{kind.kind}."},
        "metadata": {"type": "object"},
        **root["properties"],
    }
    of_kind = [{"rule": rule, "message": message} for rule, message in kind.rules]
    root["x-kubernetes-validations"] = [*root.get("x-kubernetes-validations", ()), *of_kind]
    return root


def definition(kind: Kind) -> Json:
    """Return the CustomResourceDefinition of one kind, as a JSON object."""
    version: Json = {
        "name": meta.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _open_api(kind)},
        "additionalPrinterColumns": [
            {"name": name, "type": type_, "jsonPath": path, "priority": priority}
            for name, type_, path, priority in kind.columns
        ],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if kind.status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{meta.GROUP}",
            "annotations": {meta.SCHEMA_REVISION_ANNOTATION: str(meta.SCHEMA_REVISION)},
        },
        "spec": {
            "group": meta.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                **({"categories": ["hotpool"]} if kind.listed else {}),
            },
            "versions": [version],
        },
    }


def render() -> dict[str, str]:
    """Return file name → content (YAML) of all definitions."""
    return {f"{kind.plural}.yaml": _yaml(definition(kind)) for kind in KINDS}


def _yaml(value: Any, indent: int = 0) -> str:
    """Return block YAML with JSON scalars: enough for definitions, and no dependency for the operator's image."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{key}:{_nested(item, indent)}" for key, item in value.items())
    return "".join(f"{pad}-{_nested(item, indent)}" for item in value)


def _nested(item: Any, indent: int) -> str:
    if isinstance(item, dict | list | tuple) and item:
        return "\n" + _yaml(item, indent + 1)
    return f" {json.dumps(item, ensure_ascii=False)}\n"


def main() -> None:
    """Write all definitions (`crdgen FOLDER`), or exit with 1 if a file differs (`crdgen --check FOLDER`)."""
    folder = Path(sys.argv[-1])
    if "--check" not in sys.argv:
        for name, text in render().items():
            (folder / name).write_text(text, encoding="utf-8")
        return
    stale = [name for name, text in render().items() if (folder / name).read_text(encoding="utf-8") != text]
    if stale:
        sys.exit(f"not as generated: {', '.join(stale)}; run: make crds")


if __name__ == "__main__":
    main()
