"""Warnings of `hotpool-agent check`: what the agent accepts, and what has no effect or cannot work (requirement A1)."""

from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from hotpool_agent.catalogue.loader import check_catalogue, parse_catalogue, read_catalogue
from hotpool_agent.catalogue.programs import program_problem
from localfleet.kind import REPOSITORY

NMT: Final = "type: nmt\nrun: {command: [sh]}\n"


def warned(folder: Path, services: str, head: str = "") -> list[str]:
    """Return the problems of a catalogue that the agent accepts, without the file and the word warning."""
    path = folder / "c.yaml"
    path.write_text(f"version: 1\n{dedent(head)}services:\n{dedent(services)}", encoding="utf-8")
    assert read_catalogue(path).version == 1
    found = check_catalogue(path)
    assert not found.invalid
    marked = [line.removeprefix(f"{path}:") for line in found.problems]
    assert all(": warning: " in line for line in marked)
    return [line.replace("warning: ", "") for line in marked]


def one(folder: Path, lines: str, head: str = "") -> list[str]:
    """Return the warnings of a service with these lines, without their line numbers and the service's index."""
    body = "".join(f"  {line}\n" for line in dedent(lines).strip().splitlines())
    found = warned(folder, f"- id: a\n{body}", head)
    return [line.partition(": ")[2].removeprefix("services[0].") for line in found]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("type: asr\nobserve: {file: {path: x}}\nready: {}", "ready: has no effect: another program runs"),
        ("type: asr\nobserve: {file: {path: x}}\nlive: {failures: 2}", "live: has no effect: another program"),
        ("type: asr\nobserve: {file: {path: x}}\npreStopSeconds: 2", "preStopSeconds: has no effect: another"),
        ("type: asr\nobserve: {file: {path: x}}\nheavy: true", "heavy: has no effect: another program loads"),
        ("type: asr\nappProtocol: http\nrun: {command: [sh]}", "appProtocol: has no effect without port"),
        (
            "type: asr\nappProtocol: http\nport: 1\nscope: local\nrun: {command: [sh]}",
            "appProtocol: has no effect with scope: local",
        ),
        ("type: asr\nrun: {command: [sh]}\nready: {startSeconds: 5}", "ready: has no effect without a port or a"),
        ("type: asr\nrun: {command: [sh]}\nlive: {failures: 5}", "live: has no effect without a port or a probe"),
        (
            "type: asr\nrun: {command: [sh]}\nattributes: {rules: [{kind: any_to_en, languages: [zh]}]}",
            "attributes.rules: has no effect: a service of type asr offers no pairs, only one of type nmt does",
        ),
        (
            "type: nmt\nrun: {command: [sh]}\nattributes: {rules: [{kind: any_to_any}]}",
            "attributes.rules[0]: offers nothing: kind any_to_any needs languages",
        ),
        (
            f"{NMT}attributes: {{rules: [{{kind: specific_pairs, pairs: [zh-en], languages: [zh]}}]}}",
            "attributes.rules[0].languages: has no effect with kind: specific_pairs, which reads pairs",
        ),
        (
            f"{NMT}attributes: {{rules: [{{kind: any_to_en, languages: [zh-CN], blocked: [zh-en, en-zh]}}]}}",
            "attributes.rules[0].blocked[1]: has no effect: this rule does not offer en-zh",
        ),
        (
            "type: asr\nrun: {command: [sh]}\nattributes: {language: [zh], roles: [a], tier: [gold]}",
            "attributes.language: is a list of words like any other; similar: languages",
        ),
        (
            "type: asr\nrun: {command: [no-such-program]}",
            "run.command: there is no program 'no-such-program' in PATH",
        ),
        (
            "type: asr\nrun: {command: [sh]}\nready: {exec: {command: [./no-such-script]}}",
            "ready.exec.command: there is no program ",
        ),
        ("type: asr\nobserve: {exec: {command: [no-such-program]}}", "observe.exec.command: there is no program"),
        ("type: asr\nrun: {command: [sh], workingDir: nowhere}", "run.workingDir: there is no folder "),
    ],
)
def test_what_has_no_effect_or_cannot_work_is_a_warning(tmp_path: Path, lines: str, expected: str) -> None:
    (found,) = one(tmp_path, lines)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    "lines",
    [
        "type: asr\nrun: {command: [sh]}",
        "type: asr\nport: 1\nappProtocol: http\nrun: {command: [sh]}\nready: {startSeconds: 5}\nlive: {failures: 2}",
        "type: asr\nrun: {command: [sh]}\nready: {exec: {command: [sh]}, startSeconds: 5}\nlive: {failures: 2}",
        "type: asr\nobserve: {file: {path: x}}\nheavy: false",
        f"{NMT}attributes: {{rules: [{{kind: en_to_any, languages: [zh], blocked: [en-zh]}}]}}",
        f"{NMT}attributes: {{rules: [{{kind: specific_pairs, pairs: [zh-en], blocked: [zh-CN-en]}}]}}",
    ],
)
def test_what_has_an_effect_is_no_warning(tmp_path: Path, lines: str) -> None:
    assert one(tmp_path, lines) == []


def test_a_type_that_no_service_has_is_a_warning_if_it_resembles_one(tmp_path: Path) -> None:
    head = "types: {asrr: {devices: [gpu]}, tts: {}}\n"
    (found,) = warned(tmp_path, "- {id: a, type: asr, run: {command: [sh]}}\n", head)
    assert found == "2: types.asrr: no service has this type; similar: asr"


def test_a_port_of_two_services_is_a_warning_unless_one_server_may_offer_both(tmp_path: Path) -> None:
    services = """\
        - {id: a, type: asr, port: 7, run: {command: [sh]}}
        - {id: b, type: tts, port: 7, run: {command: [sh]}}
        - {id: c, type: nmt, port: 7, observe: {tcp: {}}}
        - {id: d, type: nmt, port: 7, observe: {tcp: {}}}
        - {id: e, type: nmt, port: 8, observe: {tcp: {}}}
        """
    assert warned(tmp_path, services) == [
        "4: services[1].port: 7 is the port of services[0] (a), too: only one of them can run at a time",
        "6: services[3].port: 7 is the port of services[2] (c), too: one server is counted as two of type nmt",
    ]


def test_warnings_and_errors_come_together_in_the_order_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 1\nservices:\n- {id: a, type: asr, heavy: true, observe: {file: {path: x}}}\n"
        "- {id: b, type: asr, port: x, appProtocol: http, run: {command: [no-such-program]}}\n",
        encoding="utf-8",
    )
    found = check_catalogue(path)
    assert found.invalid
    assert [
        line.removeprefix(f"{path}:").rpartition(" (")[0] or line.removeprefix(f"{path}:") for line in found.problems
    ] == [
        "3: services[0].heavy: warning: has no effect: another program loads this observed service",
        "4: services[1].port: must be a whole number",
        "4: services[1].run.command: warning: there is no program 'no-such-program' in PATH",
    ]


def test_a_program_is_looked_up_as_exec_does(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program, plain = tmp_path / "bin" / "serve", tmp_path / "bin" / "plain"
    for file in (program, plain):
        file.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    plain.chmod(0o644)
    path = {"PATH": f"{tmp_path}/none:bin"}
    assert program_problem("serve", tmp_path, path) == ""
    assert program_problem("bin/serve", tmp_path, {}) == ""
    assert program_problem(str(program), Path("/nowhere"), {}) == ""
    assert program_problem("plain", tmp_path, path) == f"cannot be run: {str(plain)!r} is not executable"
    assert program_problem("bin", tmp_path, {"PATH": "."}) == "there is no program 'bin' in PATH"
    assert program_problem("", tmp_path, path) == "there is no program '' in PATH"
    assert program_problem("serve", tmp_path, {"PATH": ""}) == "there is no program 'serve' in PATH"


def test_the_documented_catalogue_has_no_warning_but_its_programs(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/reference/catalogue.md").read_text(encoding="utf-8").split("```yaml\n")[1]
    example = text.partition("```")[0]
    parse_catalogue(example, "c.yaml")
    path = tmp_path / "c.yaml"
    path.write_text(example, encoding="utf-8")
    found = check_catalogue(path)
    assert all("there is no program" in line for line in found.problems)
