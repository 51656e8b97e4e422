"""Each path in the chart's configuration of kube-state-metrics is one of the definitions (F8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from localfleet.kind import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIGURATION: Final = REPOSITORY / "charts/hotpool/files/kube-state-metrics.yaml"
METADATA: Final = {"type": "object", "properties": {key: {"type": "string"} for key in ("name", "namespace")}}
NUMERIC: Final = {"integer", "number", "boolean"}
Found = tuple[str, tuple[str, ...], dict[str, Any] | None]
"""Kind, path, and the schema there; None: the definition has no such field."""


def definitions() -> dict[str, dict[str, Any]]:
    """Return kind → schema of its objects."""
    loaded = [yaml.safe_load(path.read_text()) for path in (REPOSITORY / "crds").glob("*.yaml")]
    return {item["spec"]["names"]["kind"]: item["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for item in loaded}


def field(schema: dict[str, Any] | None, path: Sequence[str]) -> dict[str, Any] | None:
    """Return the schema of a field; of an array that is passed, that of its items."""
    for name in path:
        schema = (schema or {}).get("items", schema)
        schema = METADATA if name == "metadata" else ((schema or {}).get("properties") or {}).get(name)
    return schema


def resources() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CONFIGURATION.read_text())["spec"]["resources"]
    return found


def paths(*, values: bool) -> Iterator[Found]:
    """Yield the paths of numbers (`values`) or of labels, and of states, which are labels."""
    for resource in resources():
        kind, schemas = resource["groupVersionKind"]["kind"], definitions()
        if not values:
            yield from ((kind, tuple(at), field(schemas[kind], at)) for at in resource["labelsFromPath"].values())
        for metric in resource["metrics"]:
            gauge = metric["each"].get("gauge")
            if gauge and values:
                at = (*gauge["path"], *gauge["valueFrom"])
                yield kind, at, field(schemas[kind], at)
            elif gauge:
                for label in (gauge.get("labelsFromPath") or {}).values():
                    yield kind, (*gauge["path"], *label), field(schemas[kind], (*gauge["path"], *label))


def test_every_number_is_one_of_the_definition_or_a_status_that_is_read_as_one() -> None:
    found = list(paths(values=True))
    assert len(found) == 7
    wrong = [(kind, at) for kind, at, schema in found if (schema or {}).get("type") not in NUMERIC]
    assert wrong == [("NodePool", ("status", "conditions", "status"))], "True is 1, False is 0"


def test_every_label_is_a_text_of_the_definition() -> None:
    found = list(paths(values=False))
    assert len(found) == 8
    assert [(kind, at) for kind, at, schema in found if (schema or {}).get("type") != "string"] == []


def test_the_states_of_a_node_are_those_of_the_definition() -> None:
    (states,) = [
        metric["each"]["stateSet"]
        for resource in resources()
        for metric in resource["metrics"]
        if "stateSet" in metric["each"]
    ]
    schema = field(definitions()["NodeCapability"], states["path"])
    assert schema is not None
    assert schema["enum"] == states["list"]


def test_a_path_that_no_definition_has_is_found() -> None:
    pool = definitions()["NodePool"]
    assert [field(pool, path) for path in (("status", "phase"), ("status", "conditions", "kind"))] == [None, None]


@pytest.mark.parametrize("kind", ["NodePool", "NodePoolGenerator", "NodeCapability"])
def test_group_and_version_are_those_of_the_definitions(kind: str) -> None:
    (resource,) = [item for item in resources() if item["groupVersionKind"]["kind"] == kind]
    assert resource["groupVersionKind"] == {"group": "hotpool.dev", "version": "v1alpha1", "kind": kind}
