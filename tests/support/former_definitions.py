"""The definitions of the release before endpoints: those of today without what later schema revisions added.

They state today's revision, because today's operator stands for the former one, and refuses an older revision.
"""

from typing import Any, Final

import yaml

from localfleet.kind import REPOSITORY

CRDS: Final = REPOSITORY / "crds"

Json = dict[str, Any]


def former_definitions() -> list[Json]:
    """Return all definitions of the former release."""
    definitions = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CRDS.glob("*.yaml"))]
    for definition in definitions:
        (version,) = definition["spec"]["versions"]
        _reduce(definition["spec"]["names"]["kind"], version["schema"]["openAPIV3Schema"])
    return definitions


def _reduce(kind: str, schema: Json) -> None:
    if kind == "NodeCapability":
        report = _at(schema, "status", "report")
        _drop(_at(schema, "spec"), "addresses", "limits")
        _drop(report, "addresses", "readyTypes")
        dropped = ("endpoint", "endpointReason", "maxConcurrent", "pod", "inFlight")
        _drop(report["properties"]["services"]["items"], *dropped)
        _drop(_at(schema, "status"), "drain")
    elif kind == "NodePool":
        _reduce_pool(_at(schema, "spec"))
    elif kind == "NodePoolGenerator":
        _reduce_pool(_at(schema, "spec", "template", "spec"))
        _drop_rules(_at(schema, "spec", "template"))
    _drop_rules(schema)


def _reduce_pool(spec: Json) -> None:
    _drop(_at(spec, "requires"), "endpoint", "hardware")
    _drop(spec, "service")
    _drop_rules(spec)


def _at(schema: Json, *names: str) -> Json:
    for name in names:
        schema = schema["properties"][name]
    return schema


def _drop(schema: Json, *names: str) -> None:
    """Remove properties. Raises KeyError for one that does not exist."""
    for name in names:
        del schema["properties"][name]


def _drop_rules(schema: Json) -> None:
    """Remove the rules about Services."""
    rules = [item for item in schema.pop("x-kubernetes-validations", []) if "service" not in item["rule"]]
    if rules:
        schema["x-kubernetes-validations"] = rules
