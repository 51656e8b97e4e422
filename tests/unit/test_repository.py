"""Traps of the layout, and what must never be tracked."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hotpool.crdgen import KINDS, definition, render

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_operator_is_a_source_root_and_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()
    script = "import operator; print(operator.add(1, 2))"
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout == "3\n"
    subprocess.run([sys.executable, "-m", "json.tool"], cwd=ROOT, input=b"{}", check=True, stdout=subprocess.DEVNULL)


def test_no_tracked_file_names_a_registry() -> None:
    hosts = ["pypi" + ".org", "files.python" + "hosted.org", "proxy.golang" + ".org", "registry.npm" + "js.org"]
    guilty = [path for path in tracked() if any(host in path.read_text(errors="replace") for host in hosts)]
    assert guilty == []


def test_committed_definitions_are_the_generated_ones() -> None:
    assert {name: (ROOT / "crds" / name).read_text() for name in render()} == render()
    assert {path.name for path in (ROOT / "crds").glob("*.yaml")} == set(render())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_field_has_a_description_and_a_bound(kind: object) -> None:
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]  # type: ignore[arg-type]
    assert schema["description"]
    missing: list[str] = []

    def walk(path: str, field: dict[str, object]) -> None:
        if "description" not in field and not path.endswith(("metadata", "[]", "{}")):
            missing.append(f"{path}: description")
        if field.get("type") == "array" and "maxItems" not in field:
            missing.append(f"{path}: maxItems")
        if field.get("type") == "string" and not {"maxLength", "enum"} & field.keys() and path.count(".") > 1:
            missing.append(f"{path}: maxLength")
        for name, child in dict(field.get("properties", {})).items():  # type: ignore[call-overload]
            walk(f"{path}.{name}", child)
        if isinstance(field.get("items"), dict):
            walk(f"{path}[]", field["items"])  # type: ignore[arg-type]

    walk("", schema)
    assert missing == []


def test_samples_are_yaml_of_our_kinds() -> None:
    kinds = {kind.kind for kind in KINDS}
    for path in (ROOT / "crds" / "samples").glob("*.yaml"):
        assert {item["kind"] for item in yaml.safe_load_all(path.read_text())} <= kinds
