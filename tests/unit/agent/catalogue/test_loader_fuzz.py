"""A catalogue may be any text (requirement A1): it is read, or rejected with the lines of its errors."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.catalogue.loader import CatalogueError, parse_catalogue
from hotpool_agent.catalogue.model import Catalogue

GOOD = """\
version: 1
onAgentExit: stop
types:
  asr: {devices: [gpu, cpu]}
services:
- id: faster-whisper
  type: asr
  device: gpu
  port: 6007
  autoStart: true
  preStopSeconds: 0.5
  drainTimeoutSeconds: 60
  inFlight: {http: {path: /metrics}, metric: running}
  attributes: {languages: [zh, en], tier: [gold]}
  run: {command: [python, --port, "6007"], env: {A: b}, workingDir: .}
  ready: {http: {path: /health, expectStatus: 200, expectBody: '"ok"'}, timeoutSeconds: 2}
- id: nmt
  type: nmt
  port: 5008
  attributes: {rules: [{kind: any_to_any, languages: [zh, en], blocked: [zh-en]}]}
  observe: {http: {path: /healthz}}
"""
ALIASES = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
ERROR = re.compile(r"c\.yaml:(\d+): \S.*")


def outcome(text: str) -> Catalogue | list[str]:
    """Return the catalogue or the errors, each of which is one printable line that names file and line."""
    try:
        return parse_catalogue(text, "c.yaml")
    except CatalogueError as error:
        errors = error.errors
    assert errors
    for line in errors:
        assert line.isprintable()
        found = ERROR.fullmatch(line)
        assert found
        # An error at the end of the text may be placed on the empty line behind it.
        assert 1 <= int(found[1]) <= len(text.splitlines()) + 1
    return errors


words = st.sampled_from(
    ["version", "services", "id", "type", "run", "command", "attributes", "<<", "&a", "*a", "!!int"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | words
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(words | scalars, inner, max_size=5),
    max_leaves=30,
)
marks = st.sampled_from(list("{}[]:,-?!&*|>%@`#'\"\\ \n\t~=<.0x\x85\ufeff\x00"))


@given(st.text(max_size=300) | st.lists(marks | words, max_size=60).map("".join))
def test_any_text_is_a_catalogue_or_errors_with_their_lines(text: str) -> None:
    outcome(text)


@given(trees)
def test_any_tree_is_a_catalogue_or_errors_with_their_lines(tree: Any) -> None:
    outcome(yaml.safe_dump(tree, allow_unicode=True))


@given(st.fixed_dictionaries({"version": st.just(1), "services": trees, "types": trees}))
def test_any_services_and_types_are_a_catalogue_or_errors_with_their_lines(tree: Any) -> None:
    outcome(yaml.safe_dump(tree, allow_unicode=True))


@given(st.data())
def test_a_valid_catalogue_with_a_few_changes_is_read_or_rejected(data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.text(max_size=6) | marks | words) + text[at + gone :]
    outcome(text)


@given(st.data())
def test_a_value_of_another_kind_is_rejected_at_its_line(data: st.DataObject) -> None:
    """Replace a leaf of a valid catalogue by a mapping, which no leaf may be."""
    lines = GOOD.splitlines()
    leaves = [number for number, line in enumerate(lines) if re.fullmatch(r"(- |  )?\w+: [^{]+", line)]
    number = data.draw(st.sampled_from(leaves))
    field, _, _ = lines[number].partition(":")
    lines[number] = f"{field}: {{x: 1}}"
    found = outcome("\n".join(lines))
    assert isinstance(found, list)
    assert any(line.startswith(f"c.yaml:{number + 1}: ") and field.strip("- ") in line for line in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a0: &a0 [x]\n" + ALIASES, "aliases that expand to too many"),
        ("services: &a [*a]\n", "c.yaml:1: too many values, or aliases"),
        ("&a\nservices: *a\n", "too many values, or aliases"),
        ("version: 1\nservices: " + "[" * 5000, "c.yaml:2: nested too deeply"),
        ("version: 1\nservices: " + "{a: " * 5000, "c.yaml:2: nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("version: 1 # " + "x" * 2**20, "must have at most 1048576 characters"),
        ("version: " + "9" * 5000, "c.yaml:1: version: cannot be read as a whole number"),
        ("version: 0x" + "f" * 5000, "c.yaml:1: version: cannot be read as a whole number"),
        ("version: 1e" + "9" * 5000, "c.yaml:1: version: cannot be read as a number"),
        ("version: .nan", "c.yaml:1: version: must be 1 (got nan)"),
        ("version: !!int foo", "c.yaml:1: version: cannot be read as a whole number"),
        ("version: !!python/name:os.system x", "is not supported"),
        ("version: 2001-99-99", "c.yaml:1: version: must be 1 (got '2001-99-99')"),
        ("version: 1\nversion: 1", "c.yaml:2: version: is there twice"),
        ("version: 1\n7: x", "c.yaml:2: a field's name must be a string"),
        ("version: 1\n? [a]\n: x", "c.yaml:2: a field's name must be a string"),
        ("version: 1\n? {a: b}\n: x", "c.yaml:2: a field's name must be a string"),
        ('version: 1\n"a\\e[31m\\nb": x', r"c.yaml:2: 'a\x1b[31m\nb': unknown field"),
        ("version: 1\n? " + "k" * 5000 + "\n: x", "unknown field"),
    ],
)
def test_bombs_and_malformed_texts_are_rejected(text: str, expected: str) -> None:
    found = outcome(text)
    assert isinstance(found, list)
    assert any(expected in line for line in found)
    assert all(len(line) < 300 for line in found)


def test_aliases_are_expanded() -> None:
    text = """\
version: 1
services:
- {id: a, type: asr, autoStart: &yes true, attributes: &spoken {languages: [zh, en]}, run: {command: &run [x]}}
- {id: b, type: tts, autoStart: *yes, attributes: *spoken, run: {command: *run}}
"""
    first, second = parse_catalogue(text, "c.yaml").services
    assert (second.auto_start, second.attributes, second.run) == (True, first.attributes, first.run)
